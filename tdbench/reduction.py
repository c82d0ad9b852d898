"""What a reduction is, under its published name; it is defined in `tdbench.searchers.reduction`."""

from tdbench.searchers.reduction import Reduction, ReductionFactory, ReductionProblem

__all__ = ["Reduction", "ReductionFactory", "ReductionProblem"]
