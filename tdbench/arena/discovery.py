"""Runs that discover several labelings, different from each other: a task library (definitions, section 10)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tdbench.arena.live_run import Ask, Confirm, LiveRun, Restart
from tdbench.arena.worker import Turn, most_recommended
from tdbench.searchers.searcher import Problem
from tdbench.space.labelings import LabelVectors
from tdbench.space.similarity import Dissimilar
from tdbench.store.log import Asked, Member, Told


class Discovery(LiveRun):
    """A run that ends as a library; `JointDiscovery` and `RoundsDiscovery` say how.

    Attributes:
        found: (m, N) labelings of the library so far, m <= K.
        members: the library, in the order in which it was chosen; empty until the search is over.
    """

    found: LabelVectors
    members: list[Member]
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

    def forget(self) -> None:
        super().forget()
        self._refusals = []

    def _begin(self) -> None:
        self.found = np.zeros((0, self.space.n), dtype=np.uint8)
        self.members, self._refusals = [], []

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
        told = self.told
        self.members = [told.member(labels) for labels in self.found]
        self.searching = False
        self.need = Confirm(self.found)


class JointDiscovery(Discovery):
    """One search for all labelings, which may recommend many at its end."""

    def problem(self) -> Problem:
        return replace(super().problem(), tasks=self.settings.tasks, max_overlap=self.rule.max_overlap)

    def _turn_after(self, tell: tuple[NDArray[np.float64], NDArray[np.float64]] | None) -> Turn:
        ends = self._to_ask == 0 and self.settings.recommend != "best"
        return Turn(tell, recommend_many=most_recommended(self.settings.tasks) if ends else 0, ask=self._to_ask)

    def _recommendation_shape(self, recommended: NDArray[np.float64]) -> tuple[tuple[int, int], str]:
        most = most_recommended(self.settings.tasks)
        count = len(recommended) if recommended.ndim == 2 and len(recommended) <= most else most
        return (count, self.reduction.dim), "recommend_many"

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
    def _planned_end(self) -> int:
        each, more = divmod(self.settings.budget, self.settings.tasks)
        return self._round_start + each + (self._round < more)

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
        self._round = self._round_start = 0

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
            self._round, self._round_start, self.ended_early = self._round + 1, self.evaluations, None
            self.need = Restart()
        else:
            self._need_confirmation()


def round_seed(seed: int, number: int) -> int:
    """The seed of the searcher of that round (0, 1, ...) of a run with that seed."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
