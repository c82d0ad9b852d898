"""How alike labelings of one image set are, and the rule that the members of a task library obey.

Definitions, section 10. Plain numpy: searches, libraries and their scores use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdbench.base.errors import UserError, echo, setting
from tdbench.space.labelings import LabelVectors

DEFAULT_MAX_SIMILARITY = 0.25
_ROUNDING = 1e-9  # positives; far above the rounding errors of a bound, far below one positive


def overlap(a: LabelVectors, b: LabelVectors) -> NDArray[np.int64]:
    """(m, k) positives that (m, N) and (k, N) labelings share.

    >>> overlap(np.array([[1, 1, 0, 0]]), np.array([[1, 0, 1, 0], [1, 1, 0, 0]])).tolist()
    [[1, 2]]
    """
    shared = np.asarray(a, dtype=np.float32) @ np.asarray(b, dtype=np.float32).T  # exact below 2 ** 24
    return shared.astype(np.int64)


def kappa(a: LabelVectors, b: LabelVectors) -> NDArray[np.float64]:
    """(m, k) Cohen's kappa of (m, N) and (k, N) labelings with P positives each.

    kappa = (o - P^2/N) / (P - P^2/N) for o shared positives: 1 is the same labeling, 0 is what chance gives.
    """
    a, b = np.asarray(a), np.asarray(b)
    positives = a.sum(axis=1, dtype=np.int64)[:, None]
    by_chance = positives**2 / a.shape[1]
    values: NDArray[np.float64] = (overlap(a, b) - by_chance) / (positives - by_chance)
    return values


@dataclass(frozen=True)
class Dissimilar:
    """The rule that two labelings of a library may have at most this similarity. A labeling is never in it twice.

    >>> rule = Dissimilar(n=50, positives=10, max_similarity=0.25)
    >>> rule.max_overlap
    4

    Attributes:
        n, positives: N and P.
        max_similarity: from 0 (what chance gives) to 1 (all labelings that are not the same).

    Raises:
        UserError: a similarity out of this range.
    """

    n: int
    positives: int
    max_similarity: float = DEFAULT_MAX_SIMILARITY

    def __post_init__(self) -> None:
        check_max_similarity(self.max_similarity)

    @property
    def balanced(self) -> bool:
        """Whether P = N/2. Then a labeling and its complement are one task, and similarity is the square of kappa."""
        return 2 * self.positives == self.n

    @property
    def max_overlap(self) -> int:
        """The most positives that a labeling may share with each labeling of `avoid`."""
        kappa_max = math.sqrt(self.max_similarity) if self.balanced else self.max_similarity
        by_chance = self.positives**2 / self.n
        most = by_chance + kappa_max * (self.positives - by_chance)
        return min(math.floor(most + _ROUNDING), self.positives - 1)

    @property
    def most_labelings(self) -> float:
        """An upper bound of how many labelings can stand together (Johnson 1962); inf where the bound says nothing.

        >>> [Dissimilar(50, 10, kappa).most_labelings for kappa in (0, 0.125)]
        [55, 515]
        """
        return _most_labelings(self.n, self.positives, self.max_overlap)

    def avoid(self, labels: LabelVectors) -> NDArray[np.uint8]:
        """(m, N) labelings that further ones are compared with, or (2 m, N): at P = N/2 with their complements."""
        labels = np.asarray(labels, dtype=np.uint8).reshape(-1, self.n)
        return np.concatenate([labels, 1 - labels]) if self.balanced else labels

    def similarity(self, a: LabelVectors, b: LabelVectors) -> NDArray[np.float64]:
        """(m, k) similarity of (m, N) and (k, N) labelings: kappa, or its square at P = N/2."""
        values = kappa(a, b)
        return values**2 if self.balanced else values

    def allowed(self, labels: LabelVectors, members: LabelVectors) -> NDArray[np.bool_]:
        """(m,) whether each of (m, N) labelings may join (k, N) members of a library."""
        shared = overlap(labels, self.avoid(members))
        return np.asarray(shared.max(axis=1, initial=0) <= self.max_overlap)

    def nearest(self, labels: LabelVectors, members: LabelVectors) -> NDArray[np.float64]:
        """(m,) largest similarity of each of (m, N) labelings to (k, N) members; -inf if there are no members."""
        values: NDArray[np.float64] = self.similarity(labels, members).max(axis=1, initial=-np.inf)
        return values

    def choose(
        self, labels: LabelVectors, order: ArrayLike, most: int, members: LabelVectors | None = None
    ) -> NDArray[np.int64]:
        """Indices of at most `most` labelings, taken greedily: those too similar to one taken before are skipped.

        >>> labels = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
        >>> Dissimilar(n=6, positives=2).choose(labels, order=[1, 0, 3, 2], most=2).tolist()
        [1, 3]

        Args:
            labels: (m, N).
            order: indices of `labels`, the first to be taken first.
            members: (k, N) labelings that are in the library before.
        """
        labels = np.asarray(labels, dtype=np.uint8).reshape(-1, self.n)
        free = np.ones(len(labels), np.bool_) if members is None else self.allowed(labels, members)
        taken: list[int] = []
        for i in np.asarray(order, dtype=np.int64).tolist():
            if len(taken) >= most:
                break
            if free[i]:
                taken.append(i)
                free &= self.allowed(labels, labels[i : i + 1])
        return np.array(taken, dtype=np.int64)


def _most_labelings(n: int, positives: int, shared: int) -> float:
    """The most labelings with so many positives of n images of which two share at most `shared` positives.

    Johnson's bounds: those that hold one image are labelings of the others with one positive less, two of which share
    one less; and over all images, pairs of labelings cannot meet less often than where positives are spread evenly.
    """
    if shared >= positives:
        return math.inf
    meeting = _most_meeting(n, positives, shared)
    if shared == 0:
        return min(meeting, n // positives)
    return min(meeting, n * _most_labelings(n - 1, positives - 1, shared - 1) // positives)


def _most_meeting(n: int, positives: int, shared: int) -> float:
    """The largest m for which m(m-1) ordered pairs, each sharing at most `shared`, can hold all m P positives."""
    excess = positives**2 - shared * n
    if excess <= 0:
        return math.inf
    for m in range(n * (positives - shared) // excess + 1, 0, -1):
        each, more = divmod(m * positives, n)
        if (n - more) * each * (each - 1) + more * (each + 1) * each <= m * (m - 1) * shared:
            return m
    return 1


def check_max_similarity(value: object) -> float:
    """The value as a float. Raises UserError for anything but a number from 0 to 1."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:  # type: ignore[operator]
        raise UserError(
            f"{setting('max_similarity')} must be a number from 0 (chance) to 1 (the same), got {echo(value)}"
        )
    return float(value)  # type: ignore[arg-type]
