"""Labelings that stay apart: which may stand together, the best such set of many, and descent that keeps a distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem
from tdbench.toolkit import descend, draw_labelings

from ._evidence import Array, Labelings

Indices = NDArray[np.intp]
DRAWN = 20  # random labelings for each that is wanted far from others; chosen by hand
TRIED = 60  # candidates that a step of `best_set` tries to force into the set; chosen by hand


@dataclass(frozen=True)
class Apart:
    """The rule of a search for many tasks: two labelings share at most `most` positives.

    Attributes:
        most: positives that two labelings may share.
        mirrored: P = N/2, where a labeling and its complement are one task: the rule holds for complements too.
    """

    most: int
    mirrored: bool

    @staticmethod
    def members(problem: Problem) -> Labelings:
        """(m, N) labelings to stay apart from."""
        avoid = np.empty((0, problem.n_images)) if problem.avoid is None else problem.avoid
        return np.asarray(avoid).astype(np.bool_)

    @staticmethod
    def of(problem: Problem) -> Apart:
        """The rule of a problem; where it has none, labelings must only differ."""
        most = problem.n_positives - 1 if problem.max_overlap is None else problem.max_overlap
        return Apart(most, 2 * problem.n_positives == problem.n_images)

    def conflicts(self, a: Labelings, b: Labelings) -> NDArray[np.bool_]:
        """(m, k) whether labelings (m, N) and (k, N) are too similar to stand together."""
        return np.asarray(self.shared(a, b) > self.most)

    def shared(self, a: Labelings, b: Labelings) -> NDArray[np.float32]:
        """(m, k) positives that labelings (m, N) and (k, N) share; where mirrored, with b or its complement."""
        shared: NDArray[np.float32] = a.astype(np.float32) @ b.T.astype(np.float32)
        if not self.mirrored:
            return shared
        mirrored: NDArray[np.float32] = np.maximum(shared, a.sum(axis=1, keepdims=True) - shared)
        return mirrored

    def allowed(self, labels: Labelings, members: Labelings) -> NDArray[np.bool_]:
        """(m,) whether each of (m, N) labelings may stand beside all members (k, N)."""
        return np.asarray(~self.conflicts(labels, members).any(axis=1))

    def first(self, labels: Labelings, most: int, members: Labelings) -> Labelings:
        """(at most `most`, N) of the labelings, taken in order, apart from each other and from the members."""
        kept = np.empty((0, labels.shape[1]), dtype=np.bool_)
        for row in labels[self.allowed(labels, members)]:
            if len(kept) < most and self.allowed(row[None], kept)[0]:
                kept = np.concatenate([kept, row[None]])
        return kept

    def draw(self, rng: np.random.Generator, count: int, n_positives: int, members: Labelings) -> Labelings:
        """(count, N) random labelings, which share few positives with the members."""
        drawn = draw_labelings(rng, DRAWN * count, members.shape[1], n_positives)
        nearest = self.shared(drawn, members).max(axis=1, initial=0)
        apart: Labelings = drawn[np.argsort(nearest, kind="stable")[:count]]
        return apart

    def descend(self, form: Array, labels: Labelings, others: Labelings) -> Labelings:
        """(B, N) labelings to which descent under the form leads while each stays apart from its (B, M, N) others."""
        if self.mirrored:
            others = np.concatenate([others, ~others], axis=1)
        return descend(form, labels, others, self.most)


def best_set(gains: Array, conflicts: NDArray[np.bool_], most: int) -> Indices:
    """(at most `most`,) candidates without conflicts and with a high sum of gains, the highest first.

    A maximum weight independent set of limited size, by local search: greedy first, then single candidates are forced
    in, those in their way leave, and what fits is filled in again, as long as the sum rises.
    """
    conflicts = conflicts & ~np.eye(len(gains), dtype=np.bool_)
    order = np.argsort(-gains, kind="stable")
    chosen = _filled([], gains, conflicts, order, most)
    while True:
        better = _improved(chosen, gains, conflicts, order, most)
        if better is None:
            return np.array(sorted(chosen, key=lambda i: -gains[i]), dtype=np.intp)
        chosen = better


def _improved(
    chosen: list[int], gains: Array, conflicts: NDArray[np.bool_], order: Indices, most: int
) -> list[int] | None:
    total = gains[chosen].sum()
    in_the_way = conflicts[:, chosen]
    count = in_the_way.sum(axis=1)
    # Where places are left then, others may come in: each at most as good as the best that needs few to leave.
    spare = gains[(count <= 2) & ~np.isin(np.arange(len(gains)), chosen)].max(initial=0.0)
    places = np.maximum(most - len(chosen) + count - 1, 0)
    promise = gains - in_the_way @ gains[chosen] + places * spare
    promise[chosen] = -np.inf
    if len(chosen) == most:
        promise[count == 0] -= gains[chosen].min(initial=np.inf)
    for forced in np.argsort(-promise, kind="stable")[:TRIED]:
        if promise[forced] <= 1e-9:
            return None
        stay = [i for i in chosen if not conflicts[forced, i]]
        if len(stay) == most:
            stay.remove(min(stay, key=lambda i: gains[i]))
        trial = _filled([int(forced), *stay], gains, conflicts, order, most)
        if gains[trial].sum() > total + 1e-9:
            return trial
    return None


def _filled(chosen: list[int], gains: Array, conflicts: NDArray[np.bool_], order: Indices, most: int) -> list[int]:
    """The chosen ones, and in order the others with a gain that fit beside them."""
    chosen = list(chosen)
    open_ = (gains > 0) & ~conflicts[:, chosen].any(axis=1)
    open_[chosen] = False
    while len(chosen) < most and open_.any():
        best = int(order[open_[order].argmax()])
        chosen.append(best)
        open_ &= ~conflicts[best]
        open_[best] = False
    return chosen
