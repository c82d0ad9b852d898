"""A space as a problem of IOHexperimenter, with its counters and loggers. It needs ioh, which is optional."""

from __future__ import annotations

from typing import Any

import ioh

from tdbench.space.objective import Objective


def ioh_problem(objective: Objective) -> Any:
    """A continuous problem of ioh to be minimized, which loggers can be attached to.

    Its name is the space's name. The optimum is unknown; its value is given as 0, below which no loss can be. A second
    problem of the same space takes the place of the first one in ioh's registry; both go on working.
    """
    low, high = objective.bounds.T
    return ioh.wrap_problem(
        objective,
        name=objective.space.name,
        problem_class=ioh.ProblemClass.REAL,
        dimension=objective.dimension,
        optimization_type=ioh.OptimizationType.MIN,
        lb=float(low[0]),
        ub=float(high[0]),
        calculate_objective=lambda instance, dimension: ([float("nan")] * dimension, 0.0),
    )
