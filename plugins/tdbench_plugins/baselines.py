"""`random`: the yardstick. Uniform scores, so that the P highest are a uniform choice of P images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, hookimpl
from tdbench.hookspecs import RegisterSearcher


class RandomSearcher:
    """Independent uniform scores; it has nothing to learn, and recommends the best it was told."""

    def __init__(self, problem: Problem) -> None:
        self._dim = problem.dim
        self._rng = np.random.default_rng(problem.seed)

    def ask(self, n: int) -> NDArray[np.float64]:
        """(n, dim) independent uniform scores."""
        return self._rng.random((n, self._dim))

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """Nothing is learned from the (n, dim) scores and (n,) losses."""


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("random", RandomSearcher, summary="uniform label vectors", baseline=True)
