"""Results of runs under their published name; they are defined in `tdbench.store.result`."""

from tdbench.store.result import Result

__all__ = ["Result"]
