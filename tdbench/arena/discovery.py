"""Runs that discover several labelings, different from each other: a task library (definitions, section 10)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tdbench.arena.live_run import Ask, Confirm, LiveRun, Restart, checked_scores
from tdbench.arena.worker import Turn, most_recommended
from tdbench.searchers.searcher import Problem
from tdbench.space.labelings import LabelVectors
from tdbench.space.similarity import Dissimilar
from tdbench.store.log import Asked, Member

_MAX_SEED = 2**32


@dataclass(frozen=True)
class Told:
    """What a run was told of each labeling that was evaluated.

    Attributes:
        labels: (m, N) distinct labelings, in the order in which they were first evaluated.
        taskness: (m,) mean over its evaluations.
        evaluations: (m,) how many there were.
    """

    labels: LabelVectors
    taskness: NDArray[np.float64]
    evaluations: NDArray[np.int64]

    @classmethod
    def of(cls, labels: LabelVectors, taskness: NDArray[np.float64]) -> Told:
        """Of the (n, N) labelings of n evaluations, and their (n,) taskness."""
        _, first, which, counts = np.unique(labels, axis=0, return_index=True, return_inverse=True, return_counts=True)
        sums = np.bincount(which.ravel(), taskness, minlength=len(counts))
        order = np.argsort(first)
        return cls(labels[first[order]], (sums / counts)[order], counts[order])

    @property
    def best_first(self) -> LabelVectors:
        """(m, N) labelings by mean taskness; of equals the one that was evaluated first."""
        best: LabelVectors = self.labels[np.argsort(-self.taskness, kind="stable")]
        return best

    def member(self, labels: LabelVectors) -> Member:
        """An (N,) labeling as a member of a library."""
        found = np.flatnonzero((self.labels == labels).all(axis=1))
        if not len(found):
            return Member(labels, math.nan, 0)
        return Member(labels, float(self.taskness[found[0]]), int(self.evaluations[found[0]]))


class Discovery(LiveRun):
    """A run that ends as a library; `JointDiscovery` and `RoundsDiscovery` say how.

    Attributes:
        found: (m, N) labelings of the library so far, m <= K.
    """

    found: LabelVectors
    _refusals: list[NDArray[np.bool_]]  # (n,) of every ask so far

    @property
    def rule(self) -> Dissimilar:
        """What the labelings of the library must obey."""
        return Dissimilar(self.space.n, self.space.n_positives, self.settings.max_similarity)

    @property
    def told(self) -> Told:
        labels, taskness, _ = self.history
        evaluated = ~np.concatenate([np.zeros(0, dtype=np.bool_), *self._refusals])
        return Told.of(labels[evaluated], taskness[evaluated])

    @property
    def refused(self) -> int:
        """How many proposals were too similar to what was found before, and were not evaluated."""
        return int(sum(mask.sum() for mask in self._refusals))

    def members(self) -> list[Member]:
        """The library, in the order in which it was chosen."""
        told = self.told
        return [told.member(labels) for labels in self.found]

    def forget(self) -> None:
        super().forget()
        self._refusals = []

    def _begin(self) -> None:
        self.found = np.zeros((0, self.space.n), dtype=np.uint8)
        self._refusals = []

    def _due_checkpoints(self) -> list[float]:
        return []  # a library has none

    def _account(self, asked: Asked) -> None:
        self._refusals.append(asked.refused)
        super()._account(asked)

    def _add(self, candidates: LabelVectors, most: int) -> None:
        """Add up to `most` of the (m, N) labelings to the library, in their order, without those too similar."""
        chosen = candidates[self.rule.choose(candidates, np.arange(len(candidates)), most, self.found)]
        self.found = np.concatenate([self.found, chosen])

    def _need_confirmation(self) -> None:
        self.searching = False
        self.need = Confirm(self.found)


class JointDiscovery(Discovery):
    """One search for all labelings, which may recommend many at its end."""

    def problem(self) -> Problem:
        return replace(super().problem(), tasks=self.settings.tasks, max_overlap=self.rule.max_overlap)

    def _turn_after(self, tell: tuple[NDArray[np.float64], NDArray[np.float64]] | None) -> Turn:
        ends = self._to_ask == 0 and self.settings.recommend != "best"
        return Turn(tell, recommend_many=most_recommended(self.settings.tasks) if ends else 0, ask=self._to_ask)

    def _checked_recommendation(self, recommended: NDArray[np.float64] | None) -> NDArray[np.float64]:
        dim = self.reduction.dim
        if recommended is None or self.settings.recommend == "best":
            return np.zeros((0, dim))
        if recommended.ndim != 2 or len(recommended) > most_recommended(self.settings.tasks):
            return checked_scores(recommended, (most_recommended(self.settings.tasks), dim), "recommend_many")
        return checked_scores(recommended, (len(recommended), dim), "recommend_many")

    def _take(self, own: LabelVectors, labels: LabelVectors) -> None:
        if len(labels):
            self._evaluate_next(labels)
            return
        self._add(own, self.settings.tasks)
        self._add(self.told.best_first, self.settings.tasks - len(self.found))
        self._need_confirmation()


class RoundsDiscovery(Discovery):
    """A search for each labeling, which may not be too similar to those that were found before."""

    @property
    def _search_end(self) -> int:
        each, more = divmod(self.settings.budget, self.settings.tasks)
        done = self._round + 1
        return done * each + min(done, more)

    def problem(self) -> Problem:
        return replace(
            super().problem(),
            budget=self._search_end - self.evaluations,
            seed=round_seed(self.settings.seed, self._round),
            avoid=self.rule.avoid(self.found) if len(self.found) else None,
            max_overlap=self.rule.max_overlap,
        )

    def restarted(self) -> None:
        """The next round's searcher is there."""
        self._asked_scores = None
        self.need = Ask(self._turn(None))

    def _begin(self) -> None:
        super()._begin()
        self._round = 0

    def _refused(self, labels: LabelVectors) -> NDArray[np.float64]:
        allowed = self.rule.allowed(labels, self.found)
        if allowed.all():
            return np.full(len(labels), np.nan)
        return np.where(allowed, np.nan, -self.rule.nearest(labels, self.found))  # the loss is 1 + similarity

    def _take(self, own: LabelVectors, labels: LabelVectors) -> None:
        if len(labels):
            self._evaluate_next(labels)
            return
        before = len(self.found)
        self._add(own, 1)
        if len(self.found) == before:
            self._add(self.told.best_first, 1)
        if self._round + 1 < self.settings.tasks:
            self._round += 1
            self.need = Restart()
        else:
            self._need_confirmation()


def round_seed(seed: int, number: int) -> int:
    """The seed of the searcher of that round (0, 1, ...) of a run with that seed."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) % _MAX_SEED
