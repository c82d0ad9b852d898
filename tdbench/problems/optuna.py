"""A space as a problem of Optuna, as OptunaHub's benchmarks are. It needs optunahub, which is optional."""

from __future__ import annotations

from typing import Any

import optuna
from optunahub.benchmarks import BaseProblem

from tdbench.space.objective import Objective


class OptunaProblem(BaseProblem):
    """The parameters ``x0``, ``x1``, ... are the scores, floats from 0 to 1; the loss is minimized."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    @property
    def search_space(self) -> dict[str, optuna.distributions.BaseDistribution]:
        return {
            f"x{i}": optuna.distributions.FloatDistribution(low, high)
            for i, (low, high) in enumerate(self.objective.bounds.tolist())
        }

    @property
    def directions(self) -> list[optuna.study.StudyDirection]:
        return [optuna.study.StudyDirection.MINIMIZE]

    def evaluate(self, params: dict[str, Any]) -> float:
        """The loss of one evaluation."""
        return self.objective(self._scores(params))

    def confirm(self, params: dict[str, Any]) -> float:
        """The confirmed loss, for `study.best_params`."""
        return self.objective.confirm(self._scores(params))

    def _scores(self, params: dict[str, Any]) -> Any:
        return [params[name] for name in self.search_space]
