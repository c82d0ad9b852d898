"""What was told of each distinct labeling, and which of many noisy candidates to look at again."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ._library import WORST, finite

Array = NDArray[np.float64]
Labelings = NDArray[np.bool_]

LEAST_NOISE = 0.05  # loss below which the noise is taken to stay the same; chosen by hand
# Variance of one evaluation over the labeling's loss, until replicates tell. It gives standard deviations of 0.22 to
# 0.32 at losses of 0.2 to 0.4; docs/finding-tasks.md ("Where the difference comes from") has 0.2 to 0.3 for mediocre
# labelings.
TYPICAL_NOISE = 0.25
TRUST = 10  # replicates that the typical noise counts for; chosen by hand


class Evidence:
    """Means of all that was told, by labeling.

    A labeling that generalizes well is told nearly the same each time, a middling one anything between 0 and 1: the
    variance of an evaluation is taken as proportional to the labeling's loss, with the factor learned from replicates.
    """

    def __init__(self, n_images: int) -> None:
        self.labels: Labelings = np.empty((0, n_images), dtype=np.bool_)  # distinct, in the order first told
        self.counts: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._sums: Array = np.empty(0)
        self._squares: Array = np.empty(0)
        self._rows: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def means(self) -> Array:
        """(n,) mean loss of each labeling."""
        result: Array = self._sums / self.counts
        return result

    def knows(self, labels: Labelings) -> bool:
        return labels.tobytes() in self._rows

    def add(self, labels: Labelings, loss: Array) -> None:
        """Take in the (B,) losses of (B, N) labelings."""
        loss = np.clip(finite(loss), -WORST, WORST)
        new = {row.tobytes(): row for row in labels if row.tobytes() not in self._rows}
        if new:
            self._rows.update({key: len(self) + i for i, key in enumerate(new)})
            self.labels = np.concatenate([self.labels, np.array(list(new.values()))])
            zeros = np.zeros(len(new))
            self.counts = np.concatenate([self.counts, zeros.astype(np.int64)])
            self._sums, self._squares = np.concatenate([self._sums, zeros]), np.concatenate([self._squares, zeros])
        rows = np.array([self._rows[row.tobytes()] for row in labels])
        np.add.at(self.counts, rows, 1)
        np.add.at(self._sums, rows, loss)
        np.add.at(self._squares, rows, loss**2)

    def noise(self, expected: Array) -> Array:
        """(n,) variance of one evaluation of labelings with these expected losses."""
        level = np.maximum(expected, LEAST_NOISE)
        repeated = self.counts > 1
        spread = (self._squares - self._sums**2 / self.counts)[repeated] / np.maximum(self.means, LEAST_NOISE)[repeated]
        freedom = (self.counts[repeated] - 1).sum()
        factor = (TRUST * TYPICAL_NOISE + spread.sum()) / (TRUST + freedom)
        result: Array = max(factor, 1e-6) * level
        return result

    def posterior(self, prior_mean: Array, prior_variance: float) -> tuple[Array, Array]:
        """(n,) mean and deviation of each labeling's loss, its own evaluations combined with what is expected of it."""
        precision = self.counts / self.noise(prior_mean)
        variance = 1 / (1 / prior_variance + precision)
        return variance * (prior_mean / prior_variance + precision * self.means), np.sqrt(variance)


def final_field(left: int, budget: int, most: int = 32) -> int:
    """How many candidates are still in, with `left` evaluations to go of the `budget` of a final.

    Sequential halving (Karnin, Koren & Somekh, ICML 2013): rounds of equal length, each with half the candidates of
    the one before, from at most `most` of them (10 evaluations or more for each over the final) down to 2.
    """
    rounds = max(1, int(math.log2(max(2, min(most, budget // 10)))))
    current = min(rounds - 1, rounds * (budget - left) // max(1, budget))
    return 1 << (rounds - current)


def least_seen(counts: NDArray[np.int64], n: int) -> NDArray[np.intp]:
    """(n,) which candidates to evaluate next, so that their counts become as equal as can be; the earlier first."""
    counts = counts.copy()
    chosen = np.empty(n, dtype=np.intp)
    for i in range(n):
        chosen[i] = counts.argmin()
        counts[chosen[i]] += 1
    return chosen
