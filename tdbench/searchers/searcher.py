"""What a searcher is, and all it may know: the seam between tdbench and every optimizer."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdbench.searchers.problem import SpaceProblem


@dataclass(frozen=True)
class Problem(SpaceProblem):
    """Everything a searcher is told about the problem before it starts.

    Attributes:
        dim: length of the vectors asked for; `n_images`, or less where a reduction stands in between.
        n_images: N, images in the space.
        n_positives: P, how many of them a labeling marks positive.
        batch_size: most vectors asked for at a time.
        budget: evaluations it will be asked for in the whole run (a race at its end is not counted).
        seed: of all randomness in the searcher, 0 to 2**32 - 1.
        images: (N, 3, 32, 32) float32 standardized pixels, read-only. A searcher that looks at them
            registers with ``sees_images=True``, and the leaderboard shows it; others get None.
        tasks: how many labelings, different from each other, the run wants of this search: K in a joint discovery of
            several tasks, else 1 (definitions, section 10).
        avoid: (m, N) uint8 labelings that were found before, in a discovery by rounds; else None. A labeling that
            shares more than `max_overlap` positives with one of them is told the loss 1 + similarity, untrained.
        max_overlap: the most positives that a labeling may share with one of `avoid`, and in a joint discovery with
            another of its library; None in an ordinary run.
        replicates: trainings of an evaluation (k); the loss that is told is the mean over them.
        noise: ``fresh``, where a labeling asked twice is trained anew, or ``frozen``, where it has the same loss again.
        start: (m, N) uint8 labelings to begin from, read-only, that the user has given with ``--start``, for a searcher
            registered with ``takes_start=True``; else None.
    """

    batch_size: int
    budget: int
    seed: int
    images: NDArray[np.float32] | None = None
    tasks: int = 1
    avoid: NDArray[np.uint8] | None = None
    max_overlap: int | None = None
    replicates: int = 1
    noise: str = "fresh"
    start: NDArray[np.uint8] | None = None


class Done(Exception):
    """Raised by a searcher's ``ask``: it wants no more evaluations, and its search ends here.

    It must have been told something. It is asked for its recommendation as at the end of any search; a race of the
    leading candidates follows where the run has one. What is left of the search's budget is not used, and the run's
    result says how much that is.
    """


class Searcher(typing.Protocol):
    """Proposes score vectors and learns from their losses. Made by a factory ``factory(problem) -> Searcher``.

    ``ask`` and ``tell`` alternate: every ask is followed by one tell with the same vectors in the same order.
    A searcher may also have ``recommend() -> (dim,) scores``, the vector that it expects to generalize best. It may be
    called after any tell, several times in a run, and must not fail before the first tell. Without it, the best told
    labeling is recommended.

    Where an evaluation is the mean of several trainings, a searcher may want the loss of each. It then has
    ``tell_replicates(scores, losses)``, which is called in place of ``tell`` in every run: the (n, dim) vectors just
    asked and their (n, k) losses, k = `Problem.replicates`. Their mean over k is what ``tell`` would be told.

    ``ask`` may raise `Done` to end the search before its budget is used.

    A searcher may have ``recommend_many(k) -> (j, dim) scores`` for joint discoveries: the labelings that it expects to
    generalize, the best first. It is called once, after the last tell. They are taken in order, those that share more
    than `Problem.max_overlap` positives with one before are skipped, until k are there; j may be more than k for that
    reason, up to 64 k. Where they are too few, or without this method, the best mean told taskness decides.

    >>> import numpy as np
    >>> from tdbench import Problem
    >>> class Uniform:
    ...     def __init__(self, problem):
    ...         self.dim, self.rng = problem.dim, np.random.default_rng(problem.seed)
    ...     def ask(self, n):
    ...         return self.rng.random((n, self.dim))
    ...     def tell(self, scores, loss):
    ...         self.best = scores[loss.argmin()].copy()
    >>> searcher = Uniform(Problem(dim=50, n_images=50, n_positives=10, batch_size=32, budget=320, seed=0))
    >>> scores = searcher.ask(32)
    >>> scores.shape
    (32, 50)
    >>> searcher.tell(scores, np.ones(32))
    """

    def ask(self, n: int) -> NDArray[np.float64]:
        """(n, dim) vectors in [0, 1]; the P highest scores of a vector become the positives. n <= batch_size."""
        ...

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """Learn that the (n, dim) vectors just asked have these (n,) losses; lower is better, noise is in them."""
        ...


Factory = Callable[[Problem], Searcher]
VariantFactory = Callable[[Problem, str], Searcher]
