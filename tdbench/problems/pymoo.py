"""A space as a problem of pymoo, which evaluates whole populations. It needs pymoo, which is optional."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.problem import Problem

from tdbench.space.objective import Objective


class PymooProblem(Problem):
    """N variables from 0 to 1, one objective. A population trains as one batch."""

    def __init__(self, objective: Objective) -> None:
        low, high = objective.bounds.T
        # threads and engines of the objective cannot be copied, as `save_history` would
        super().__init__(n_var=objective.dimension, n_obj=1, xl=low, xu=high, exclude_from_serialization=["objective"])
        self.objective = objective

    def _evaluate(self, X: NDArray[np.float64], out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = self.objective.batch(X)
