"""Many runs in lockstep: ask all that are ready, train their labelings in one batch, commit, tell.

What a run does depends on nothing but its settings: replicates are drawn by (space seed, run seed, evaluation,
replicate), engines are batch-invariant, and every searcher has a process to itself.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.arena.live_run import Labels, LiveRun, leaderboard_row
from tdbench.arena.race import Race, entrants
from tdbench.arena.worker import Start, Turn, Worker, WorkerFailure
from tdbench.base import environment
from tdbench.base.progress import Progress
from tdbench.engine import Engine
from tdbench.searchers.reduction import InvalidScores
from tdbench.settings import Options
from tdbench.space.image_set import Request, evaluate
from tdbench.store.log import Asked, Store, digest
from tdbench.store.rows import CHECKPOINTS, Row, row_to_json

PATIENCE = 0.05  # seconds to wait for more asks before training a batch that does not fill the engine


@dataclass(eq=False)
class Job:
    """Labelings to train in one piece, and what to do with their (n, k) taskness."""

    request: Request
    engine: Engine
    done: Callable[[NDArray[np.float64]], None]

    @property
    def trainings(self) -> int:
        return self.request.seeds.size


class InvalidAnswer(Exception):
    """The searcher answered with something that is not what it was asked for."""


class Arena:
    """Runs a set of runs to their end. Every evaluation is committed before its searcher is told."""

    def __init__(self, store: Store, options: Options, progress: Progress, on_end: Callable[[LiveRun, Row], None]):
        self.store = store
        self.options = options
        self.progress = progress
        self.on_end = on_end
        self.waiting: deque[LiveRun] = deque()
        self.alive: list[LiveRun] = []
        self.jobs: deque[Job] = deque()
        self.uncommitted: list[tuple[LiveRun, Asked]] = []

    def run(self, runs: list[LiveRun]) -> None:
        """Play all runs. Raises UserError where the log cannot be written; workers are gone when this returns."""
        self.waiting.extend(runs)
        try:
            while self.waiting or self.alive or self.jobs:
                self._start_workers()
                self._listen()
                self._train()
        finally:
            for run in self.alive:
                self._dismiss(run)

    def _start_workers(self) -> None:
        starting = sum(1 for run in self.alive if run.worker is not None and not run.worker.ready)
        room = max(2, environment.available_cores()) - starting
        while self.waiting and room > 0 and len(self.alive) < self.options.workers:
            run = self.waiting.popleft()
            start = Start(run.settings.searcher, self.options.plugins, run.problem(), self.options.memory_limit)
            run.started = time.monotonic()
            run.worker = Worker(start, self.options.start_timeout, self.options.ask_timeout)
            self.alive.append(run)
            room -= 1

    def _listen(self) -> None:
        """Take the answers that are there; wait for more only where the engine would otherwise be left idle."""
        while True:
            busy = {run.worker.connection: run for run in self.alive if run.worker is not None}
            if not busy:
                return
            filled = sum(job.trainings for job in self.jobs) >= max((j.engine.best_batch for j in self.jobs), default=1)
            listening = [c for c, run in busy.items() if run.worker is not None and run.worker.deadline < math.inf]
            if not listening:
                return
            deadline = min(run.worker.deadline for run in busy.values() if run.worker is not None)
            patience = 0.0 if filled else PATIENCE if self.jobs else max(0.0, deadline - time.monotonic())
            answered = wait(listening, patience)
            for connection in answered:
                self._take_answer(busy[connection])  # type: ignore[index]
            if not answered:
                now = time.monotonic()
                for run in [r for r in self.alive if r.worker is not None and r.worker.deadline <= now]:
                    assert run.worker is not None  # the filter above
                    self._fail(run, run.worker.overdue())
            if self.jobs and not answered:
                return
            self._start_workers()

    def _take_answer(self, run: LiveRun) -> None:
        worker = run.worker
        assert worker is not None  # only runs with a worker are listened to
        try:
            reply = worker.reply()
            if not worker.ready:
                worker.ready = True
                self._next_turn(run, tell=None)
                return
            due = run.due_checkpoints()
            if due:
                labels = self._recommendation(run, reply.recommended)
                run.recommended.update(dict.fromkeys(due, labels))
            if run.evaluated < run.settings.search_budget:
                self._take_ask(run, reply.asked)
                return
            self._dismiss(run)
            if run.evaluated < run.settings.budget:
                self._begin_race(run, reply.recommended)
            else:
                self._confirm(run)
        except WorkerFailure as failure:
            self._fail(run, failure)
        except (InvalidAnswer, InvalidScores) as invalid:
            self._fail(run, WorkerFailure("invalid", str(invalid)))

    def _next_turn(self, run: LiveRun, tell: NDArray[np.float64] | None) -> None:
        """Tell the (n,) taskness of the last ask, and ask for what the search has left."""
        assert run.worker is not None  # a run without one is confirmed, not asked
        told = None
        if tell is not None and run.last_scores is not None:
            told = (run.last_scores, 1.0 - tell)
        left = run.settings.search_budget - run.evaluated
        recommend = run.settings.recommend != "best" and (bool(run.due_checkpoints()) or left == 0)
        run.worker.request(Turn(told, recommend, min(run.settings.batch, left)))

    def _take_ask(self, run: LiveRun, asked: Any) -> None:
        n = min(run.settings.batch, run.settings.search_budget - run.evaluated)
        scores = _checked_scores(asked, (n, run.reduction.dim), "ask")
        run.last_scores = scores
        labels = run.decode(scores)
        if run.recorded:
            ask = self._replayed(run, scores, labels)
            self._account(run, ask)
            self._next_turn(run, ask.taskness)
        else:
            self._evaluate(run, scores, labels)

    @staticmethod
    def _replayed(run: LiveRun, scores: NDArray[np.float64], labels: Labels) -> Asked:
        """The next recorded ask, which these scores and labels must be."""
        ask, asker = run.recorded.popleft(), "the searcher" if run.race is None else "the race of its recommendations"
        if ask.digest != digest(scores) or len(ask.labels) != len(scores):
            raise InvalidAnswer(
                f"not reproducible: on resume {asker} asked something else at evaluation {run.evaluated} than the "
                "log has, so the run cannot go on; run it anew with --again"
            )
        if not np.array_equal(labels, ask.labels):
            raise InvalidAnswer(
                f"not reproducible: on resume reduction {run.settings.reduction} gives other labelings at "
                f"evaluation {run.evaluated} than the log has, so the run cannot go on; run it anew with --again"
            )
        return ask

    def _evaluate(self, run: LiveRun, scores: NDArray[np.float64], labels: Labels) -> None:
        """Queue the training of the (n, N) label vectors that the (n, dim) scores were decoded to."""
        first, n = run.evaluated, len(labels)
        fresh = run.is_unknown(labels)
        seeds = run.space.told_seeds(
            first + np.flatnonzero(fresh), run.settings.replicates, run.settings.noise, run.settings.seed
        )

        def done(values: NDArray[np.float64]) -> None:
            taskness = np.empty(n)
            taskness[fresh] = values.mean(axis=1)
            if not fresh.all():
                known = run.known(labels[fresh], taskness[fresh])
                taskness[~fresh] = [known[row.tobytes()] for row in labels[~fresh]]
            self.uncommitted.append((run, Asked(first, digest(scores), labels, taskness)))

        self.jobs.append(Job(Request(run.space, labels[fresh], seeds), run.engine, done))

    def _account(self, run: LiveRun, ask: Asked) -> None:
        run.labels.append(ask.labels)
        run.told.append(ask.taskness)
        if run.race is not None:
            run.race.tell(ask.taskness)
        self.progress.advance(len(ask.labels), run.best_told)

    def _recommendation(self, run: LiveRun, scores: Any) -> Labels:
        """The searcher's own where it makes one, else the best told (the first of equals)."""
        own = self._own_recommendation(run, scores)
        if own is not None:
            return own
        labels, told = np.concatenate(run.labels), np.concatenate(run.told)
        best: Labels = labels[int(np.argmax(told))]
        return best

    @staticmethod
    def _own_recommendation(run: LiveRun, scores: Any) -> Labels | None:
        """(N,) labels of the scores that the searcher recommends; None where it was not asked or makes none."""
        if scores is None:
            return None
        own: Labels = run.decode(_checked_scores(np.asarray(scores)[None], (1, run.reduction.dim), "recommend"))[0]
        return own

    def _begin_race(self, run: LiveRun, recommended: Any) -> None:
        """The search is over: its leader stands at the checkpoints that lie in the race, and the race begins."""
        racing = run.settings.budget - run.evaluated
        own = self._own_recommendation(run, recommended)
        candidates = entrants(np.concatenate(run.labels), np.concatenate(run.told), own, racing)
        run.recommended.update({s: candidates[0] for s in CHECKPOINTS if s < 1 and s not in run.recommended})
        run.search_asks = len(run.told)
        run.race = Race(candidates, racing)
        self._go_on_racing(run, run.race)

    def _go_on_racing(self, run: LiveRun, race: Race) -> None:
        """Replay what the log has of the race, then queue its next evaluations, or confirm its winner."""
        while len(labels := race.ask(run.settings.batch)):
            scores = labels.astype(np.float64)
            if not run.recorded:
                self._evaluate(run, scores, labels)
                return
            self._account(run, self._replayed(run, scores, labels))
        run.recommended[1.0] = race.winner
        self._confirm(run)

    def _confirm(self, run: LiveRun) -> None:
        wanted = list({labels.tobytes(): labels for labels in run.recommended.values()}.values())
        self.confirm(run, np.stack(wanted), lambda: self._end(run))

    def confirm(self, run: LiveRun, labels: Labels, then: Callable[[], None]) -> None:
        """Queue the confirmation, as of this run, of those (n, N) label vectors that are not in the log yet."""
        space, tag, replicates = run.space, run.tag, run.settings.confirm
        missing = [y for y in labels if self.store.confirmed(space.identity, tag, y, replicates) is None]
        if not missing:
            then()
            return
        stacked = np.stack(missing)

        def done(values: NDArray[np.float64]) -> None:
            self.store.add_confirmations(space.identity, tag, stacked, values)
            self.progress.extra(values.size)
            then()

        self.progress.expect_extra(len(stacked) * replicates)
        self.jobs.append(Job(Request(space, stacked, space.confirm_seeds(len(stacked), replicates)), run.engine, done))

    def _train(self) -> None:
        """Train the jobs that have waited longest, together, as many as fill the engine; commit; tell."""
        if not self.jobs:
            return
        engine = self.jobs[0].engine
        batch: list[Job] = []
        trainings = 0
        for job in list(self.jobs):
            if job.engine is engine and trainings < engine.best_batch:
                batch.append(job)
                trainings += job.trainings
                self.jobs.remove(job)
        self.uncommitted = []
        for job, values in zip(batch, evaluate([job.request for job in batch], engine), strict=True):
            job.done(values)
        if self.uncommitted:
            self.store.append(
                [(run.record.id, ask) for run, ask in self.uncommitted],
                {run.record.id: run.seconds for run, _ in self.uncommitted},
            )
        for run, ask in self.uncommitted:
            self._account(run, ask)
            if run.race is None:
                self._next_turn(run, ask.taskness)
            else:
                self._go_on_racing(run, run.race)

    def _fail(self, run: LiveRun, failure: WorkerFailure) -> None:
        run.status, run.error = failure.status, str(failure)
        self._dismiss(run)
        self.progress.skip(run.settings.budget - run.evaluated)
        self._end(run)

    def _dismiss(self, run: LiveRun) -> None:
        if run.worker is not None:
            run.worker.kill()
            run.worker = None
        self.alive = [other for other in self.alive if other is not run]

    def _end(self, run: LiveRun) -> None:
        row = leaderboard_row(run, self.store)
        self.store.finish(run.record.id, row.status, row.error, row.seconds, row_to_json(row), run.recommended)
        self.on_end(run, row)


def _checked_scores(asked: Any, shape: tuple[int, int], what: str) -> NDArray[np.float64]:
    try:
        scores = np.array(asked, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidAnswer(f"{what} must return numbers with shape {shape}: {error}") from None
    if scores.shape != shape:
        raise InvalidAnswer(f"{what} must return an array with shape {shape}, but it had shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise InvalidAnswer(f"{what} returned NaN or infinite values")
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        raise InvalidAnswer(f"{what} must return values in [0, 1], got {scores.min():g} to {scores.max():g}")
    return scores
