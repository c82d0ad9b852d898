"""Results of runs under their published name; they are defined in `tdbench.arena.campaign`."""

from tdbench.arena.campaign import Result

__all__ = ["Result"]
