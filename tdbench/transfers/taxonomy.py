"""The taxonomy: which few sources serve all targets best, solved exactly (Taskonomy, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, eye_array, hstack, kron, vstack

MOST_SOURCES = 8  # b goes from 1 to at most this


@dataclass(frozen=True, eq=False)
class Choice:
    """The best b sources.

    Attributes:
        sources: indices of the chosen sources, rising; as many as serve a target, at most b.
        serves: (t,) the source that serves each target, one of `sources`.
        total: the sum of the affinities of all targets to the sources that serve them.
    """

    sources: tuple[int, ...]
    serves: NDArray[np.int64]
    total: float


def best_sources(affinity: NDArray[np.float64], b: int) -> Choice:
    """At most b sources of (s, t) affinities, so that each target is served by one of them with the largest total.

    A binary programme: x_i says whether source i is chosen, y_ij whether it serves target j. The sum of
    affinity_ij y_ij is maximal with sum_i y_ij = 1, y_ij <= x_i and sum_i x_i <= b.

    Raises:
        ValueError: no sources, no targets, or b below 1.
    """
    s, t = affinity.shape
    if not s or not t or b < 1:
        raise ValueError(f"expected at least one source, one target and b = 1, got {s}, {t} and {b}")
    none = csr_array((t, s))
    served_once = hstack([none, kron(np.ones((1, s)), eye_array(t))])
    by_a_chosen_one = hstack([kron(-eye_array(s), np.ones((t, 1))), eye_array(s * t)])
    number = hstack([csr_array(np.ones((1, s))), csr_array((1, s * t))])
    solved = milp(
        np.concatenate([np.zeros(s), -affinity.ravel()]),
        integrality=np.ones(s + s * t),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(
            vstack([served_once, by_a_chosen_one, number], format="csc"),
            np.concatenate([np.ones(t), np.full(s * t + 1, -np.inf)]),
            np.concatenate([np.ones(t), np.zeros(s * t), [b]]),
        ),
    )
    if solved.x is None:
        raise ValueError(f"the taxonomy was not solved: {solved.message}")
    serves = solved.x[s:].reshape(s, t).argmax(axis=0).astype(np.int64)
    total = float(affinity[serves, np.arange(t)].sum())
    return Choice(tuple(np.unique(serves).tolist()), serves, total)


def taxonomy(affinity: NDArray[np.float64]) -> list[Choice]:
    """The best sources for b = 1, 2, ... up to 8, or to the number of sources."""
    return [best_sources(affinity, b) for b in range(1, min(MOST_SOURCES, len(affinity)) + 1)]
