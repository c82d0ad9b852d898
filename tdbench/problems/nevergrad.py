"""A space as an experiment function of Nevergrad, judged by the confirmed loss."""

from __future__ import annotations

import nevergrad as ng
import numpy as np
from nevergrad.functions import ExperimentFunction

from tdbench.space.task_space import TaskSpace


class NevergradFunction(ExperimentFunction):
    """Scores from 0 to 1 to a loss; an `Experiment` reports the confirmed loss of what its optimizer recommends.

    Each copy counts its own evaluations. Its replicates are drawn from the random state of its parametrization, so the
    seed of an `Experiment` decides them.
    """

    def __init__(self, space: TaskSpace, replicates: int = 1, noise: str = "fresh") -> None:
        scores = ng.p.Array(shape=(space.n,), lower=0.0, upper=1.0).set_name("scores")
        seed = int(scores.random_state.randint(2**32, dtype=np.uint32))
        self.objective = space.objective(replicates=replicates, noise=noise, seed=seed)
        super().__init__(self.objective, scores)
        self.add_descriptors(name=space.name)

    def evaluation_function(self, *recommendations: ng.p.Parameter) -> float:
        """The confirmed loss of the recommendation."""
        (recommendation,) = recommendations  # one objective has one best point
        return self.objective.confirm(recommendation.value)
