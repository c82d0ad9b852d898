"""Making label vectors: from scores, or from another label vector by exchanging positives and negatives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LabelVectors = NDArray[np.uint8]  # (n, N), or (N,) for one: P ones, for the positives, and zeros


def decode(scores: NDArray[Any], n_positives: int) -> NDArray[np.uint8]:
    """(B, N) label vectors for (B, N) signed scores: the P highest become 1, ties go to the lower index."""
    labels = np.zeros(scores.shape, dtype=np.uint8)
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :n_positives]
    np.put_along_axis(labels, highest, 1, axis=1)
    return labels


def count_distinct(scores: NDArray[Any], n_positives: int) -> int:
    """How many different labelings (B, N) scores decode to: 1 where all rows have the same P highest.

    >>> count_distinct(np.array([[0.9, 0.1, 0.5], [0.8, 0.3, 0.4], [0.0, 1.0, 0.0]]), n_positives=1)
    2
    """
    return len(np.unique(decode(scores, n_positives), axis=0))


def ablate(labels: NDArray[np.uint8], exchanged: int, order: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(k, N) label vectors, made from (N,) labels by exchanging positives for as many negatives.

    Args:
        exchanged: how many positives.
        order: (k, N) orders of the images; in each, the first positives are exchanged for the first negatives.
    """
    ordered = labels[order].astype(np.int64)
    earlier = np.where(ordered == 1, np.cumsum(ordered, axis=1) - ordered, np.cumsum(1 - ordered, axis=1) + ordered - 1)
    ablated = np.empty(order.shape, dtype=np.uint8)
    np.put_along_axis(ablated, order, np.where(earlier < exchanged, 1 - ordered, ordered).astype(np.uint8), axis=1)
    return ablated
