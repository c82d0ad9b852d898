"""The hooks under their published name; they are defined in `tdbench.searchers.hookspecs`."""

from tdbench.searchers.hookspecs import (
    RegisterReduction,
    RegisterSearcher,
    hookimpl,
    register_reductions,
    register_searchers,
)

__all__ = ["RegisterReduction", "RegisterSearcher", "hookimpl", "register_reductions", "register_searchers"]
