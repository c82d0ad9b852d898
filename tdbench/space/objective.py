"""Objective: the loss of one space as a function of real vectors, for optimizers that are no plugins of tdbench."""

from __future__ import annotations

import os
import threading
import typing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import number_array
from tdbench.base.errors import wrong_shape
from tdbench.space.seal import Key

if typing.TYPE_CHECKING:
    from tdbench.space.task_space import TaskSpace


class Objective:
    """The loss that a searcher is told, as a function of N scores. Made by `TaskSpace.objective`.

    The P highest of N scores become the positives. Any finite numbers will do, as only their order counts;
    optimizers that need bounds take `bounds`. Evaluations are counted: evaluation i has the replicates of evaluation i
    of a run with the same seed, so the same scores in the same order give the same losses as there. It may be called
    from several threads, but then it depends on their order which replicates an evaluation gets.

    >>> from tdbench import TaskSpace
    >>> f = TaskSpace("digits", n=10, steps=5).objective()
    >>> f.dimension, f.bounds.shape
    (10, (10, 2))
    >>> X = np.random.default_rng(0).random((3, f.dimension))
    >>> f.batch(X).shape, type(f(X[0])), f.evaluations
    ((3,), <class 'float'>, 4)

    Attributes:
        space: the space.
        replicates, noise, seed: see `TaskSpace.objective`.
        evaluations: how many evaluations there were so far; those of `confirm` do not count.
    """

    def __init__(self, space: TaskSpace, replicates: int, noise: str, seed: int) -> None:
        """Raises UserError for settings of a wrong type or out of range."""
        space.told_seeds(np.zeros(0, dtype=np.int64), replicates, noise, seed)
        self.space, self.replicates, self.noise, self.seed = space, replicates, noise, seed
        self.evaluations = 0
        self._counting = threading.Lock()

    @property
    def dimension(self) -> int:
        """N, the length of x."""
        return self.space.n

    @property
    def bounds(self) -> NDArray[np.float64]:
        """(N, 2) lower and upper bound of each score: 0 and 1, as for searchers."""
        return np.tile([0.0, 1.0], (self.dimension, 1))

    def __call__(self, x: NDArray[Any]) -> float:
        """The loss of (N,) scores: 1 - the mean taskness over the replicates. Raises ValueError for another shape."""
        return float(self.batch(self._checked(x)[None])[0])

    def batch(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """(B,) losses of (B, N) scores, as if each were evaluated alone, but trained together and so much faster.

        Raises:
            ValueError: scores of another shape, or that are not finite numbers.
        """
        labels = self.space.decode(X)
        with self._counting:
            first = self.evaluations
            self.evaluations += len(labels)
        return 1.0 - self.space.taskness(
            labels, replicates=self.replicates, noise=self.noise, run_seed=self.seed, first_evaluation=first
        )

    def confirm(
        self, x: NDArray[Any], replicates: int | None = None, key: Key | str | os.PathLike[str] | None = None
    ) -> float:
        """The confirmed loss of (N,) scores: 1 - the mean taskness on replicates that no evaluation has.

        Args:
            replicates, key: see `TaskSpace.confirm`; as many replicates as there by default.
        """
        settings = {} if replicates is None else {"replicates": replicates}
        return float(1.0 - self.space.confirm(self.labels(x), key=key, **settings).mean())

    def labels(self, x: NDArray[Any]) -> NDArray[np.uint8]:
        """The (N,) label vector that (N,) scores stand for."""
        labels: NDArray[np.uint8] = self.space.decode(self._checked(x)[None])[0]
        return labels

    def __repr__(self) -> str:
        return (
            f"Objective({self.space!r}, replicates={self.replicates}, noise={self.noise!r}, seed={self.seed}, "
            f"evaluations={self.evaluations})"
        )

    def _checked(self, x: NDArray[Any]) -> NDArray[Any]:
        array = number_array("x", x)
        if array.shape != (self.dimension,):
            raise ValueError(wrong_shape("x", (self.dimension,), array.shape))
        return array
