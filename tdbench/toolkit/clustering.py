"""Clusters of label vectors: k-means and mean-shift, how much a cluster's members differ, and how little they could.

The definitions, section 7, say what ablation is here. Searcher and study cluster with the same settings.
"""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.space.labelings import decode

ITERATIONS = 20  # Lloyd's; most samples of label vectors have settled by then


def kmeans(labels: NDArray[Any], clusters: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """(K, N) centres and (M,) cluster indices of (M, N) label vectors.

    scikit-learn's KMeans (Lloyd, k-means++) in float32, one start, at most `ITERATIONS` iterations. On one thread: it
    adds partial sums in the order in which threads finish, which would not be reproducible. Where the vectors have
    fewer than K distinct values some clusters stay empty.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    model = KMeans(clusters, n_init=1, max_iter=ITERATIONS, algorithm="lloyd", random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore")  # fewer distinct labelings than clusters is a fact about a small space
        model.fit(labels.astype(np.float32, copy=False))
    return model.cluster_centers_, model.labels_


def mean_shift(labels: NDArray[Any], bandwidth: float) -> NDArray[np.int64]:
    """(M,) cluster indices of (M, N) label vectors; a flat kernel of that radius, each vector a start.

    Time grows with the square of M.
    """
    from sklearn.cluster import MeanShift
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        found: NDArray[np.int64] = MeanShift(bandwidth=bandwidth).fit(labels.astype(np.float64)).labels_
    return found


def bandwidth(n_positives: int, ablation: float) -> float:
    """The Euclidean distance between two label vectors that differ in that share of their P positives.

    Each of a P exchanged positives changes two entries by 1: sqrt(2 a P).
    """
    return math.sqrt(2 * ablation * n_positives)


def average_ablation(labels: NDArray[np.uint8], cluster_of: NDArray[np.integer]) -> float:
    """The average cluster ablation of (M, N) label vectors in these (M,) clusters, a share 0..1.

    A cluster's representative is the mean of its members decoded to the top P, ties to the lower index. It is taken
    from how often each image is positive, whole numbers, so that rounding decides no tie.
    """
    from scipy.sparse import csr_array

    members = np.arange(len(labels))
    membership = csr_array((np.ones(len(labels), dtype=np.int32), (cluster_of, members)))
    counts = membership @ labels.astype(np.int32)
    n_positives = int(labels[0].sum())
    shared = np.count_nonzero(labels & decode(counts, n_positives)[cluster_of])
    return 1 - shared / (n_positives * len(labels))


class Bound:
    """The least average ablation of all C(N, P) labelings in K clusters, whatever the clustering.

    At most V_i = sum over j <= i of C(P, j) C(N - P, j) labelings lie within i exchanged positives of a
    representative, so the average is at least (1/P) sum over i = 0..P-1 of max(0, 1 - K V_i / C(N, P)) (definitions,
    section 7). A finite sample may fall below it.

    Attributes:
        labelings: C(N, P).
    """

    def __init__(self, n: int, n_positives: int) -> None:
        self.labelings = math.comb(n, n_positives)
        self._balls: list[int] = []  # V_i
        for i in range(n_positives):
            shell = math.comb(n_positives, i) * math.comb(n - n_positives, i)
            self._balls.append(shell + (self._balls[-1] if i else 0))

    def at(self, clusters: int) -> float:
        """The bound at K clusters, a share 0..1."""
        return float(self._exact(clusters))

    def clusters_for(self, ablation: Fraction) -> int:
        """The smallest K at which the bound allows that average ablation."""
        low, high = 1, self.labelings
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._exact(middle) <= ablation else (middle + 1, high)
        return low

    def _exact(self, clusters: int) -> Fraction:
        uncovered = sum(max(0, self.labelings - clusters * ball) for ball in self._balls)
        return Fraction(uncovered, self.labelings * len(self._balls))
