"""What searchers over subsets of exactly P images share: samples, margins, and the refusal of reductions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, UserError

Array = NDArray[np.float64]


def refuse_reduction(name: str, problem: Problem) -> None:
    """Raises UserError where something stands between the searcher of that name and the labels of the images."""
    if problem.dim != problem.n_images:
        raise UserError(
            f"{name} searches labelings of the images themselves: it needs vectors of length {problem.n_images}, but "
            f"a reduction to {problem.dim} was chosen; run it without the reduction"
        )


def sample(rng: np.random.Generator, probabilities: Array, count: int) -> Array:
    """(count, N) vectors of zeros and P ones, with a one at i with probability exactly ``probabilities[i]``.

    Systematic sampling in a random order: the (N,) probabilities, which sum to P, are laid end to end on a line in
    random order, and a comb with teeth 1 apart, dropped at random, hits P of them (Madow 1949; random order: Goodman
    & Kish 1950). Drawing one after another by weight, the usual way, would distort the probabilities.
    """
    order = rng.permuted(np.tile(np.arange(len(probabilities)), (count, 1)), axis=1)
    ends = np.cumsum(probabilities[order], axis=1)
    ends[:, -1] = np.rint(ends[:, -1])  # rounding must not lose or add a tooth
    teeth_below = np.ceil(np.hstack([np.zeros((count, 1)), ends]) - rng.random((count, 1)))
    labels = np.zeros(order.shape)
    np.put_along_axis(labels, order, np.diff(teeth_below, axis=1), axis=1)
    return labels


def margins(n_images: int, n_positives: int) -> tuple[float, float]:
    """Least and greatest probability of a one, so that nothing dies out.

    1 / (N - P) and 1 - 1 / P: a distribution that has settled on one subset still exchanges one positive in each
    sample on average, as 1 / n and 1 - 1 / n do for one bit of n without the fixed size. Where P or N - P are so small
    that these would cross P / N, half way to it.
    """
    share = n_positives / n_images
    slack = min(0.5, 1 / (n_positives * (1 - share)))
    return slack * share, 1 - slack * (1 - share)


def within(probabilities: Array, low: float, high: float) -> Array:
    """(N,) the nearest point to `probabilities` with the same sum and all entries within [low, high].

    That point is ``clip(probabilities + shift, low, high)`` for the one shift that keeps the sum; found by bisection.
    """
    total = probabilities.sum()
    least, most = low - probabilities.max(), high - probabilities.min()
    for _ in range(60):  # halvings, which go below rounding
        shift = (least + most) / 2
        if np.clip(probabilities + shift, low, high).sum() < total:
            least = shift
        else:
            most = shift
    nearest: Array = np.clip(probabilities + most, low, high)
    return nearest
