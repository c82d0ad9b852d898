"""Affinity: how well each source serves a target, from which source wins how often (Taskonomy, section 3.3).

Zamir et al. (2018), "Taskonomy: Disentangling Task Transfer Learning". There a win is counted over test images; here it
is counted over replicates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

LEAST, MOST = 0.001, 0.999  # win rates are clipped to this range, so that no ratio is infinite

Values = NDArray[np.float64]


def win_rates(taskness: Values) -> Values:
    """(s, s) share of replicates in which the row's source beats the column's on one target.

    >>> win_rates(np.array([[0.5, 0.2], [0.1, 0.2]]))
    array([[1.  , 0.75],
           [0.25, 1.  ]])

    Args:
        taskness: (s, R) of s sources on the same R replicates. Ties count 1/2; the diagonal is 1.
    """
    ours, theirs = taskness[:, None], taskness[None]
    rates = ((ours > theirs) + 0.5 * (ours == theirs)).mean(axis=2)
    np.fill_diagonal(rates, 1.0)
    return np.asarray(rates, dtype=np.float64)


def affinity(rates: Values) -> Values:
    """(s,) affinity of each source to one target, above 0 and summing to 1.

    The principal eigenvector of W / W^T, where W are the win rates, clipped to [0.001, 0.999] (Taskonomy, section 3.3;
    an analytic hierarchy process).
    """
    clipped = np.clip(rates, LEAST, MOST)
    values, vectors = np.linalg.eig(clipped / clipped.T)
    principal = np.abs(np.real(vectors[:, np.argmax(np.real(values))]))
    return np.asarray(principal / principal.sum(), dtype=np.float64)


def affinities(taskness: Values) -> Values:
    """(s, t) affinity of s sources to t targets, each column summing to 1, from (s, t, R) taskness."""
    return np.stack([affinity(win_rates(taskness[:, t])) for t in range(taskness.shape[1])], axis=1)


def tree(features: Values) -> Values:
    """(s - 1, 4) scipy's linkage of s >= 2 rows: average linkage of their Euclidean distances.

    With affinities as features, tasks are near each other that serve the same targets (Taskonomy, section 4.3).
    """
    return np.asarray(linkage(features, "average", optimal_ordering=True), dtype=np.float64)


def clustered(features: Values) -> list[int]:
    """An order of the rows in which alike ones are neighbours."""
    if len(features) < 3:
        return list(range(len(features)))
    return [int(i) for i in leaves_list(tree(features))]
