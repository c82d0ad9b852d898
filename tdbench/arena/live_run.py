"""A run under way: what it needs next, and what follows from the answer. It asks nobody and trains nothing itself.

The arena looks at `need`, sees to it, and hands the outcome to the method that the need names. What was recorded
before an interruption is replayed here: the searcher is asked again, and is told what the log has.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tdbench.arena.race import Race, entrants
from tdbench.arena.worker import Reply, Turn
from tdbench.base.errors import wrong_shape
from tdbench.searchers.reduction import IDENTITY, ReductionProblem
from tdbench.searchers.registry import ReductionRegistration, Registration
from tdbench.searchers.searcher import Problem
from tdbench.settings import RunSettings
from tdbench.space.executor import Request
from tdbench.space.labelings import LabelVectors
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import tag_of
from tdbench.store.log import Asked, Replay, RunRecord, digest
from tdbench.store.rows import CHECKPOINTS

ROUNDING = 4 * float(np.finfo(np.float64).eps)  # values may lie outside of [0, 1] by 4 units in the last place of 1


@dataclass(frozen=True)
class Ask:
    """The searcher must answer a turn: `LiveRun.answered`."""

    turn: Turn


@dataclass(frozen=True)
class Restart:
    """Another search begins, with a new searcher for `LiveRun.problem`: `LiveRun.restarted`."""


@dataclass(frozen=True)
class Reduce:
    """The reduction must give the scores of (n, dim) vectors: `LiveRun.reduced`."""

    vectors: NDArray[np.float64]


@dataclass(frozen=True)
class Train:
    """Labelings must be evaluated and committed: `LiveRun.evaluated`.

    Attributes:
        labels: (n, N) that were asked.
        unknown: (n,) which of them must be trained; the others are known or refused.
        refused: (n,) the taskness that is told of labelings that may not be evaluated; NaN for all others.
        request: the training of the unknown ones.
    """

    labels: LabelVectors
    unknown: NDArray[np.bool_]
    refused: NDArray[np.float64]
    request: Request


@dataclass(frozen=True)
class Confirm:
    """Recommended (m, N) label vectors must be confirmed: `LiveRun.confirmed`."""

    labels: LabelVectors


@dataclass(frozen=True)
class End:
    """The run has ended, well (``ok``) or not."""

    status: str
    error: str = ""


class InvalidAnswer(Exception):
    """The searcher or the reduction answered with something that is not what it was asked for."""


@dataclass(eq=False)
class SpaceReduction:
    """A reduction on one space under its full name (``ntk:20``), as its runs know it; its code runs elsewhere.

    Attributes:
        dim: length of the vectors that the searcher is asked for; 0 until the reduction has said it.
    """

    name: str
    registration: ReductionRegistration
    problem: ReductionProblem
    dim: int = 0

    @property
    def is_identity(self) -> bool:
        return self.name == IDENTITY


class LiveRun:
    """A run under way.

    Attributes:
        need: what must happen next.
        searching: whether the searcher is still needed.
        tag: under which the log keeps its confirmations: the engine it was begun with, and the seal.
        evaluations: how many have been evaluated so far.
        best_told: the best taskness that the searcher was told.
        recommended: checkpoint -> (N,) label vector recommended after that share of the budget.
        wants_replicates: the searcher is told the losses of single replicates.
        ended_early: after how many evaluations the searcher was done, before its budget was used; else None.
    """

    def __init__(
        self,
        settings: RunSettings,
        space: TaskSpace,
        record: RunRecord,
        registration: Registration,
        variant: str | None,
        reduction: SpaceReduction,
        recorded: Replay,
        start: LabelVectors | None = None,
    ) -> None:
        """`recorded` are the asks that are still to be replayed; `space` has the run's engine.

        `start` are (m, N) labelings that the searcher may begin from.
        """
        self.settings, self.space, self.record = settings, space, record
        self.registration, self.variant, self.reduction = registration, variant, reduction
        self.tag = tag_of(space.engine, settings.sealed)
        self.evaluations = 0
        self.best_told = math.nan
        self.recommended: dict[float, LabelVectors] = {}
        self.searching = True
        self.wants_replicates = False
        self.ended_early: int | None = None
        self._start_from = start
        self._recorded = recorded
        self._labels: list[LabelVectors] = []  # (n, N) of every ask so far
        self._told: list[NDArray[np.float64]] = []  # (n,) taskness of each
        self._known: dict[bytes, float] = {}  # in frozen mode: label vector -> taskness
        self._known_each: dict[bytes, NDArray[np.float64]] = {}  # and (k,) that of each replicate
        self._best: LabelVectors | None = None
        self._searched = 0  # evaluations that the searcher was told
        self._asked_scores: NDArray[np.float64] | None = None
        self._race: Race | None = None  # once the search is over, where one follows
        self._started: float | None = None
        self._begin()
        self.need: Ask | Restart | Reduce | Train | Confirm | End = Ask(self._turn(None))

    @property
    def seconds(self) -> float:
        return self.record.seconds + (0.0 if self._started is None else time.monotonic() - self._started)

    def begin_clock(self) -> None:
        """Its first searcher starts; a later one of the same run changes nothing."""
        self._started = time.monotonic() if self._started is None else self._started

    @property
    def history(self) -> tuple[LabelVectors, NDArray[np.float64], int]:
        """(n, N) label vectors, (n,) taskness, and how many of them, the first ones, the searcher was told."""
        labels = np.concatenate([np.zeros((0, self.space.n), dtype=np.uint8), *self._labels])
        return labels, np.concatenate([np.zeros(0), *self._told]), self._searched

    def problem(self) -> Problem:
        return Problem(
            dim=self.reduction.dim,
            n_images=self.space.n,
            n_positives=self.space.n_positives,
            batch_size=self.settings.batch,
            budget=self.settings.search_budget,
            seed=self.settings.seed,
            images=self.space.images if self.registration.sees_images else None,
            replicates=self.settings.replicates,
            noise=self.settings.noise,
            start=self._start_from,
        )

    def answered(self, reply: Reply) -> None:
        """The searcher has answered the turn."""
        n, dim = self._to_ask, self.reduction.dim
        if reply.done and n:
            self._end_early()
            return
        try:
            self._asked_scores = checked_scores(reply.asked, (n, dim), "ask") if n else np.zeros((0, dim))
            recommended = self._checked_recommendation(reply.recommended)
        except InvalidAnswer as invalid:
            self.fail("invalid", str(invalid))
            return
        vectors = np.concatenate([recommended, self._asked_scores])
        if self.reduction.is_identity or not len(vectors):
            self.reduced(vectors.reshape(-1, self.space.n))
        else:
            self.need = Reduce(vectors)

    def reduced(self, scores: NDArray[np.float64] | None) -> None:
        """The reduction's (m, N) scores for what the searcher answered, a recommendation first where it makes one."""
        assert self._asked_scores is not None  # by `answered`
        try:
            labels = self._decode(scores, len(self.need.vectors) if isinstance(self.need, Reduce) else None)
            own, labels = np.split(labels, [len(labels) - len(self._asked_scores)])
            self._take(own, labels)
        except InvalidAnswer as invalid:
            self.fail("invalid", str(invalid))

    def evaluated(self, values: NDArray[np.float64]) -> Asked:
        """What is to be committed, of a `Train` need whose unknown label vectors have these (m, k) taskness values."""
        assert isinstance(self.need, Train) and self._asked_scores is not None  # the arena saw to that need
        labels, unknown, taskness = self.need.labels, self.need.unknown, self.need.refused.copy()
        refused = ~np.isnan(taskness)
        taskness[unknown] = values.mean(axis=1)
        known = ~unknown & ~refused
        each = np.repeat(taskness[:, None], self.settings.replicates, axis=1) if self._keeps_replicates else None
        if each is not None:
            each[unknown] = values
        if known.any():
            self._remember(labels[unknown], taskness[unknown], None if each is None else each[unknown])
            taskness[known] = [self._known[row.tobytes()] for row in labels[known]]
            if each is not None:
                each[known] = [self._known_each[row.tobytes()] for row in labels[known]]
        return Asked(self.evaluations, digest(self._asked_scores), labels, taskness, refused, each)

    def committed(self, asked: Asked) -> None:
        """What `evaluated` gave is in the log."""
        try:
            self._account(asked)
            if self._race is None:
                self.need = Ask(self._turn(asked))
            else:
                self._go_on_racing(self._race)
        except InvalidAnswer as invalid:
            self.fail("invalid", str(invalid))

    def restarted(self) -> None:
        """The searcher of the next search starts."""
        raise NotImplementedError  # an ordinary run has one search

    def confirmed(self) -> None:
        """The recommended label vectors are confirmed."""
        left = self.settings.budget - self.evaluations
        note = f"the searcher was done early: {left} of {self.settings.budget} evaluations were not used"
        self.need = End("ok", note if left else "")

    def fail(self, status: str, error: str) -> None:
        self.searching = False
        self.need = End(status, error)

    def forget(self) -> None:
        """Let go of the history, once the run has ended."""
        self._labels, self._told, self._known, self._known_each = [], [], {}, {}

    def _begin(self) -> None:
        """Set what one kind of run keeps besides."""

    @property
    def _search_end(self) -> int:
        """The number of evaluations after which the search is over."""
        return self._planned_end if self.ended_early is None else self.ended_early

    @property
    def _planned_end(self) -> int:
        """The same where the searcher is asked for its whole budget."""
        return self.settings.search_budget

    @property
    def _racing(self) -> int:
        """Evaluations of a race after the search."""
        return self.settings.budget - self.settings.search_budget

    @property
    def _keeps_replicates(self) -> bool:
        """Whether the log keeps the taskness of single replicates, because the searcher is told it."""
        return self.wants_replicates and self.settings.replicates > 1 and self._race is None

    def _end_early(self) -> None:
        """The searcher is done: its search ends with what it was told so far."""
        assert isinstance(self.need, Ask)  # the arena saw to that need
        if self.need.turn.tell is None:
            self.fail("invalid", "ask raised tdbench.Done before the searcher was told anything")
        elif self._recorded.search_end != self.evaluations and self._recorded:
            self.fail("invalid", self._not_reproducible("the searcher was done"))
        else:
            self.ended_early = self.evaluations
            self.need = Ask(self._turn(None))

    def _not_reproducible(self, what: str) -> str:
        return (
            f"not reproducible: on resume {what} at evaluation {self.evaluations}, other than the log has it, so the "
            "run cannot go on; run it anew with --again"
        )

    @property
    def _to_ask(self) -> int:
        """How many vectors the searcher is asked for next."""
        return min(self.settings.batch, self._search_end - self.evaluations)

    def _turn(self, told: Asked | None) -> Turn:
        """Tell what came of the last ask, and ask for what the search has left."""
        if told is None or self._asked_scores is None:
            return self._turn_after(None)
        turn = self._turn_after((self._asked_scores, 1.0 - told.taskness))
        return turn if told.replicates is None else replace(turn, losses=1.0 - told.replicates)

    def _turn_after(self, tell: tuple[NDArray[np.float64], NDArray[np.float64]] | None) -> Turn:
        """The turn that begins with telling these scores and losses."""
        recommend = self.settings.recommend != "best" and (bool(self._due_checkpoints()) or self._to_ask == 0)
        return Turn(tell, recommend, ask=self._to_ask)

    def _checked_recommendation(self, recommended: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """(m, dim) vectors that the searcher recommends. Raises InvalidAnswer for anything else."""
        if recommended is None or self.settings.recommend == "best":
            return np.zeros((0, self.reduction.dim))
        return checked_scores(recommended, *self._recommendation_shape(recommended))

    def _recommendation_shape(self, recommended: NDArray[np.float64]) -> tuple[tuple[int, int], str]:
        """The shape that what the searcher recommends must have, and the method that gave it."""
        return (1, self.reduction.dim), "recommend"

    def _take(self, own: LabelVectors, labels: LabelVectors) -> None:
        """The searcher recommends `own` (0 or 1, N), and asked for the (n, N) labelings; none where its search ends."""
        if due := self._due_checkpoints():
            recommended = own[0] if len(own) else self._best
            assert recommended is not None  # a checkpoint comes after evaluations
            self.recommended.update(dict.fromkeys(due, recommended))
        if len(labels):
            self._evaluate_next(labels)
            return
        self.searching = False
        if self._racing:
            self._begin_race(own[0] if len(own) else None)
        else:
            self._need_confirmation()

    def _evaluate_next(self, labels: LabelVectors) -> None:
        """The log has these (n, N) label vectors already, or they must be trained."""
        if self._recorded:
            known = self._replayed(labels)
            self._account(known)
            self.need = Ask(self._turn(known))
        elif self._recorded.search_end is not None and self.ended_early is None:
            raise InvalidAnswer(self._not_reproducible("the searcher went on"))
        else:
            self._need_training(labels)

    def _need_training(self, labels: LabelVectors) -> None:
        refused = self._refused(labels)
        unknown = self._unknown(labels) & np.isnan(refused)
        indices = self.evaluations + np.flatnonzero(unknown)
        seeds = self.space.told_seeds(indices, self.settings.replicates, self.settings.noise, self.settings.seed)
        self.need = Train(labels, unknown, refused, Request(self.space, labels[unknown], seeds))

    def _refused(self, labels: LabelVectors) -> NDArray[np.float64]:
        """(n,) the taskness that is told, untrained, of labelings that may not be evaluated; NaN for all others."""
        return np.full(len(labels), np.nan)

    def _replayed(self, labels: LabelVectors) -> Asked:
        """The next recorded ask, which the scores just asked and their labels must be."""
        assert self._asked_scores is not None  # just asked
        asked = self._recorded.popleft()
        asker = "the searcher" if self._race is None else "the race of its recommendations"
        if asked.digest != digest(self._asked_scores) or len(asked.labels) != len(labels):
            raise InvalidAnswer(
                f"not reproducible: on resume {asker} asked something else at evaluation {self.evaluations} than the "
                "log has, so the run cannot go on; run it anew with --again"
            )
        if not np.array_equal(labels, asked.labels):
            raise InvalidAnswer(
                f"not reproducible: on resume reduction {self.settings.reduction} gives other labelings at "
                f"evaluation {self.evaluations} than the log has, so the run cannot go on; run it anew with --again"
            )
        if self._keeps_replicates and asked.replicates is None:
            raise InvalidAnswer(
                "the searcher has tell_replicates now, and the log has no single replicates of this run, so it cannot "
                "go on; run it anew with --again"
            )
        return asked

    def _account(self, asked: Asked) -> None:
        self._labels.append(asked.labels)
        self._told.append(asked.taskness)
        self.evaluations += len(asked.labels)
        if self.settings.noise == "frozen":
            each = None if asked.replicates is None else asked.replicates[~asked.refused]
            self._remember(asked.labels[~asked.refused], asked.taskness[~asked.refused], each)
        if self._race is not None:
            self._race.tell(asked.taskness)
            return
        self._searched = self.evaluations
        if asked.refused.all():
            return
        best = int(np.argmax(np.where(asked.refused, -math.inf, asked.taskness)))
        if not asked.taskness[best] <= self.best_told:  # of equals the first stays
            self.best_told, self._best = float(asked.taskness[best]), asked.labels[best]

    def _remember(self, labels: LabelVectors, taskness: NDArray[np.float64], each: NDArray[np.float64] | None) -> None:
        for i, (row, value) in enumerate(zip(labels, taskness.tolist(), strict=True)):
            self._known.setdefault(row.tobytes(), value)
            if each is not None:
                self._known_each.setdefault(row.tobytes(), each[i])

    def _unknown(self, labels: LabelVectors) -> NDArray[np.bool_]:
        """(n,) which label vectors must be trained: all, but in frozen mode only those not told before."""
        if self.settings.noise == "fresh":
            return np.ones(len(labels), dtype=np.bool_)
        keys = [row.tobytes() for row in labels]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        return np.array([key not in self._known and first[key] == i for i, key in enumerate(keys)], dtype=np.bool_)

    def _due_checkpoints(self) -> list[float]:
        """Shares of the budget that are reached and have no recommendation yet; all, once the searcher is done."""
        over = self.ended_early is not None and not self._racing
        reached = self.settings.budget if over else self.evaluations
        return [
            share
            for share in CHECKPOINTS
            if share not in self.recommended and reached >= math.ceil(share * self.settings.budget)
        ]

    def _decode(self, scores: NDArray[np.float64] | None, count: int | None) -> LabelVectors:
        """(m, N) label vectors of (m, N) scores. Raises InvalidAnswer for anything that is no such scores."""
        what = f"reduction {self.reduction.name!r}"
        if scores is None:
            raise InvalidAnswer(f"{what} gave no scores")
        expected = (len(scores) if count is None else count, self.space.n)
        if scores.shape != expected:
            raise InvalidAnswer(wrong_shape(f"scores from {what}", expected, scores.shape))
        if not np.isfinite(scores).all():
            raise InvalidAnswer(f"{what} gave NaN or infinite scores")
        return self.space.decode(scores)

    def _begin_race(self, own: LabelVectors | None) -> None:
        """The search is over: its leader stands at the checkpoints that lie in the race, and the race begins."""
        racing = self._racing
        labels, told, _ = self.history
        candidates = entrants(labels, told, own, racing)
        self.recommended.update({s: candidates[0] for s in CHECKPOINTS if s < 1 and s not in self.recommended})
        self._race = Race(candidates, racing)
        self._go_on_racing(self._race)

    def _go_on_racing(self, race: Race) -> None:
        """Replay what the log has of the race; then its next evaluations are needed, or its winner's confirmation."""
        while len(labels := race.ask(self.settings.batch)):
            self._asked_scores = labels.astype(np.float64)
            if not self._recorded:
                self._need_training(labels)
                return
            self._account(self._replayed(labels))
        self.recommended[1.0] = race.winner
        self._need_confirmation()

    def _need_confirmation(self) -> None:
        distinct = {labels.tobytes(): labels for labels in self.recommended.values()}
        self.need = Confirm(np.stack(list(distinct.values())))


def checked_scores(answer: NDArray[np.float64] | None, shape: tuple[int, int], what: str) -> NDArray[np.float64]:
    """The searcher's answer as numbers in [0, 1] of that shape, which rounding may have left by a hair.

    Raises:
        InvalidAnswer: it is anything else.
    """
    if answer is None:
        raise InvalidAnswer(f"{what} returned nothing")
    if answer.shape != shape:
        raise InvalidAnswer(wrong_shape(f"an array from {what}", shape, answer.shape))
    if not np.isfinite(answer).all():
        raise InvalidAnswer(f"{what} returned NaN or infinite values")
    if answer.size and (answer.min() < -ROUNDING or answer.max() > 1 + ROUNDING):
        raise InvalidAnswer(
            f"{what} must return values in [0, 1], got {float(answer.min())!r} to {float(answer.max())!r}"
        )
    return answer
