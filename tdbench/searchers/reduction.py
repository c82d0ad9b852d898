"""What a reduction is, and all it may know: the seam between a searcher's short vectors and scores of the images.

It stands in the arena between the searcher's answer and `TaskSpace.decode` (definitions, section 8).
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdbench.searchers.problem import SpaceProblem

IDENTITY = "identity"
JOINT = "+"  # cmaes+ntk:20, which is why no name of a searcher or reduction may hold one


@dataclass(frozen=True)
class ReductionProblem(SpaceProblem):
    """Everything a reduction is told: the image set, and nothing of a run.

    Attributes:
        dim: D as written in ``name:D``, 1 to N; N for a reduction that takes none.
        n_images: N, images in the space.
        n_positives: P, how many of them a labeling marks positive.
        images: (N, 3, 32, 32) float32 standardized pixels, read-only, for a reduction registered with
            ``sees_images=True``; others get None.
    """

    images: NDArray[np.float32] | None = None


class Reduction(typing.Protocol):
    """Maps short vectors to scores of the images. Made by a factory ``factory(problem) -> Reduction``.

    It depends on its problem and on nothing else: made again, in another process too, it gives the same scores.
    Otherwise runs could not be resumed.

    Attributes:
        dim: length of the vectors; `ReductionProblem.dim` where D is written, its own where it takes none.

    >>> import numpy as np
    >>> from tdbench import ReductionProblem
    >>> class Projection:
    ...     def __init__(self, problem):
    ...         self.dim = problem.dim
    ...         self.directions = np.random.default_rng(0).standard_normal((problem.dim, problem.n_images))
    ...     def scores(self, vectors):
    ...         return (vectors - 0.5) @ self.directions
    >>> reduction = Projection(ReductionProblem(dim=5, n_images=50, n_positives=10))
    >>> reduction.scores(np.zeros((32, 5))).shape
    (32, 50)
    """

    dim: int

    def scores(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, N) finite scores for (n, dim) vectors in [0, 1]; the P highest of a row become the positives."""
        ...


ReductionFactory = Callable[[ReductionProblem], Reduction]


class Identity:
    """no reduction: one score per image"""

    def __init__(self, problem: ReductionProblem) -> None:
        self.dim = problem.n_images

    def scores(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, N) scores, a copy of the (n, N) vectors."""
        return np.array(vectors, dtype=np.float64)


def full_name(searcher: str, reduction: str) -> str:
    """What leaderboards call a searcher with a reduction: ``cmaes+ntk:20``, or ``cmaes`` where there is none."""
    return searcher if reduction == IDENTITY else f"{searcher}{JOINT}{reduction}"
