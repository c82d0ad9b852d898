"""What a task library is worth: formulas on plain arrays (definitions, section 10)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdbench.space.labelings import LabelVectors
from tdbench.space.references import ReferenceTask
from tdbench.space.score import standard_error
from tdbench.space.similarity import overlap

LEVEL = 0.95
RECALL_CHANCE = 0.005  # a reference task is found again where random labelings reach its overlap less often


def quality(values: ArrayLike, tasks: int) -> float:
    """Confirmed or told QD of a library: (1/K) sum of max(0, value). NaN and empty places count 0.

    >>> quality([0.5, 0.25, -0.1], tasks=3)
    0.25

    Args:
        values: (m,) confirmed or told taskness of its members.
        tasks: K, the places of the library, at least m.
    """
    array = np.asarray(values, dtype=np.float64)
    return float(np.fmax(array, 0.0).sum() / tasks)  # fmax takes 0 where the other is NaN


def quality_se(confirmed_values: NDArray[np.float64], tasks: int) -> float:
    """Standard error of confirmed QD from (m, R) taskness on R confirmation replicates.

    All members are confirmed on the same R splits and seeds, so members are not independent, but replicates are: it is
    the standard error of the sums over the members that count (mean above 0), one sum for each replicate.
    """
    values = np.asarray(confirmed_values, dtype=np.float64)
    return standard_error(values[values.mean(axis=1) > 0].sum(axis=0)) / tasks


def confirmed_interval(
    confirmed: ArrayLike, confirmed_se: ArrayLike, replicates: int, level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(m,) lower and (m,) upper ends of Student's interval of confirmed taskness; NaN for fewer than 2 replicates."""
    from scipy import stats

    confirmed, se = np.asarray(confirmed, dtype=np.float64), np.asarray(confirmed_se, dtype=np.float64)
    reach = se * (stats.t.ppf(0.5 + level / 2, replicates - 1) if replicates > 1 else math.nan)
    return confirmed - reach, confirmed + reach


def tasks_above(confirmed: ArrayLike, confirmed_se: ArrayLike, replicates: int, threshold: float) -> int:
    """How many members are tasks: the lower end of their 95 % interval of confirmed is above T_task."""
    low, _ = confirmed_interval(confirmed, confirmed_se, replicates)
    return int((low > threshold).sum())


def best_first(confirmed: ArrayLike) -> NDArray[np.int64]:
    """(m,) order of members, the best confirmed first; equal ones keep their order, NaN comes last."""
    return np.argsort(-np.asarray(confirmed, dtype=np.float64), kind="stable")


def effective_number(similarity: ArrayLike) -> float:
    """How many different tasks a library holds in effect: exp of the entropy of the eigenvalues of similarity / m.

    The Vendi score (Friedman and Dieng 2023, definition 3.1): m for members that are all at chance, 1 for m copies.

    Args:
        similarity: (m, m) as `Dissimilar.similarity` gives it; its diagonal is 1. 0 for m = 0.
    """
    matrix = np.asarray(similarity, dtype=np.float64)
    if not len(matrix):
        return 0.0
    shares = np.linalg.eigvalsh(matrix / len(matrix))
    shares = shares[shares > 0]  # rounding makes some of the zeros negative
    return float(np.exp(-(shares * np.log(shares)).sum()))


@dataclass(frozen=True)
class Recall:
    """Which of r reference tasks a library of m members has found again.

    Attributes:
        names, kinds: of the reference tasks; random labelings are left out.
        overlap: (r,) most positives that a member shares with the task.
        nearest: (r,) which member that is; -1 without members.
        chance: (r,) the probability that the best of m random labelings shares as many.
        hits: (r,) whether that is below 0.005.
        expected: hits that m random labelings have on average.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    overlap: NDArray[np.int64]
    nearest: NDArray[np.int64]
    chance: NDArray[np.float64]
    hits: NDArray[np.bool_]
    expected: float

    @property
    def recalled(self) -> int:
        """How many have been found again."""
        return int(self.hits.sum())


def recall(members: LabelVectors, references: Sequence[ReferenceTask]) -> Recall:
    """Which reference tasks (N, P) are found again by (m, N) members.

    At P = N/2 a labeling and its complement are one task, so the larger of both overlaps counts.
    """
    known = [task for task in references if task.kind != "random"]
    names, kinds = tuple(task.name for task in known), tuple(task.kind for task in known)
    if not known or not len(members):
        none = np.zeros(len(known), dtype=np.int64)
        return Recall(names, kinds, none, none - 1, np.ones(len(known)), none.astype(np.bool_), 0.0)
    tasks = np.stack([task.labels for task in known])
    n, positives = tasks.shape[1], int(tasks[0].sum())
    shared = overlap(tasks, members)
    if 2 * positives == n:
        shared = np.maximum(shared, positives - shared)
    most = shared.max(axis=1)
    reached = chance_of_overlap(n, positives, len(members))
    expected = len(known) * hit_by_chance(n, positives, len(members))
    return Recall(names, kinds, most, shared.argmax(axis=1), reached[most], reached[most] < RECALL_CHANCE, expected)


def hit_by_chance(n: int, positives: int, labelings: int) -> float:
    """The probability that the best of so many random labelings hits a reference task."""
    reached = chance_of_overlap(n, positives, labelings)
    return float(reached[reached < RECALL_CHANCE].max(initial=0.0))


def chance_of_overlap(n: int, positives: int, labelings: int) -> NDArray[np.float64]:
    """(P + 1,) the probability that the best of so many random labelings shares at least 0, 1, ..., P positives.

    The overlap with one of them is hypergeometric. At P = N/2 it is the larger one of a labeling and its complement.
    """
    from scipy import stats

    one = stats.hypergeom.sf(np.arange(positives + 1) - 1, n, positives, positives)
    if 2 * positives == n:
        one = np.where(2 * np.arange(positives + 1) <= positives, 1.0, 2 * one)
    with np.errstate(divide="ignore"):  # log 0 where it is certain
        chance: NDArray[np.float64] = -np.expm1(labelings * np.log1p(-np.minimum(one, 1.0)))
    return chance
