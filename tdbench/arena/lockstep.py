"""Many runs in lockstep: ask all that are ready, train their labelings in one batch, commit, tell.

What a run does depends on nothing but its settings: replicates are drawn by (space seed, run seed, evaluation,
replicate), engines are batch-invariant, and every searcher has a process to itself. While one batch trains, the
answers of searchers are taken for the next.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.arena.discovery import Discovery
from tdbench.arena.live_run import Ask, Confirm, End, LiveRun, Reduce, Restart, SpaceReduction, Train
from tdbench.arena.outcome import leaderboard_row
from tdbench.arena.worker import Limits, ReductionWorker, SearcherWorker, WorkerFailure
from tdbench.base import environment
from tdbench.base.channel import wait
from tdbench.base.errors import Stopped
from tdbench.base.progress import Progress
from tdbench.cluster import ClusterEngine
from tdbench.engine import Engine
from tdbench.settings import Options, RunProgress
from tdbench.space.evaluate import Evaluation, Evaluator
from tdbench.space.executor import WAKE_SECONDS, LocalExecutor, Request
from tdbench.space.labelings import LabelVectors
from tdbench.store.log import Asked, Store
from tdbench.store.rows import Row, row_to_json

PATIENCE = 0.05  # seconds to wait for more asks before training a batch that does not fill the engine


@dataclass(eq=False)
class Job:
    """Labelings to train in one piece, for the run that needs them or for a confirmation.

    `done` is called with their (n, k) taskness; the evaluations of a run that it returns are committed.
    """

    request: Request
    engine: Engine
    done: Callable[[NDArray[np.float64]], tuple[LiveRun, Asked] | None]


@dataclass(frozen=True)
class Batch:
    """Jobs in training."""

    jobs: tuple[Job, ...]
    evaluation: Evaluation


class Arena:
    """Runs a set of runs to their end. Every evaluation is committed before its searcher is told."""

    def __init__(self, store: Store, options: Options, progress: Progress, on_end: Callable[[LiveRun, Row], None]):
        self.store = store
        self.options = options
        self.progress = progress
        self.on_end = on_end
        self._waiting: deque[LiveRun] = deque()
        self._workers: dict[LiveRun, SearcherWorker] = {}
        self._reductions: dict[SpaceReduction, ReductionWorker] = {}
        self._limits = Limits(
            options.start_timeout, options.ask_timeout, options.memory_limit, options.log_of_searchers
        )
        self._counted: dict[LiveRun, int] = {}  # evaluations that the progress bar has
        self._found: dict[LiveRun, int] = {}  # labelings of libraries that it has
        self._jobs: deque[Job] = deque()
        self._evaluators: dict[Engine, Evaluator] = {}
        self._training: list[Batch] = []
        self._woken, self._wake = Pipe(duplex=False)
        self._end_of_time = time.monotonic() + (options.max_seconds or math.inf)

    def play(self, runs: list[LiveRun]) -> None:
        """Play all runs; workers are gone when this returns.

        Raises:
            UserError: the log cannot be written.
            Stopped: the user's function or the time limit stops it.
        """
        self._waiting.extend(runs)
        self._go_on()

    def confirm(self, run: LiveRun, labelings: list[LabelVectors]) -> None:
        """Confirm (N,) label vectors of that run's space as its own are, those that the log does not have yet."""
        for labels in labelings:
            self._confirm(run, labels[None], lambda: None)
        self._go_on()

    def _go_on(self) -> None:
        try:
            while self._waiting or self._workers or self._jobs or self._training:
                self._check_time()
                self._start_workers()
                answered = self._listen()
                finished = [batch for batch in self._training if batch.evaluation.done]
                self._training = [batch for batch in self._training if batch not in finished]
                if self._has_room and (self._filled() or not (answered or finished)):
                    self._train()  # before the log is written, so that the engine is not left idle
                for batch in finished:
                    self._commit(batch)
        finally:
            for worker in (*self._workers.values(), *self._reductions.values()):
                worker.kill()
            self._workers.clear()
            self._reductions.clear()
            for evaluator in self._evaluators.values():
                evaluator.executor.cancel()

    def _check_time(self) -> None:
        if time.monotonic() >= self._end_of_time:
            raise _stopped(f"after {self.options.max_seconds:g} seconds")

    def _report(self, runs: Sequence[LiveRun]) -> None:
        """Tell the user's function of the runs that have a new batch in the log."""
        if self.options.on_batch is None:
            return
        for run in runs:
            settings = run.settings
            progress = RunProgress(
                run.record.id, settings.full_name, settings.seed, run.evaluations, settings.budget, run.best_told
            )
            go_on = self.options.on_batch(progress)
            if go_on is not None and not go_on:
                raise _stopped(f"by on_batch after {run.evaluations} of {settings.budget} evaluations")

    def _start_workers(self) -> None:
        starting = sum(not worker.ready for worker in (*self._workers.values(), *self._reductions.values()))
        room = max(2, environment.available_cores()) - starting
        later: list[LiveRun] = []
        while self._waiting and room > 0 and len(self._workers) < self.options.workers:
            run = self._waiting.popleft()
            if not run.reduction.dim:
                later.append(run)
                room -= self._start_reduction(run)
                continue
            run.begin_clock()
            self._workers[run] = SearcherWorker(run.registration, run.variant, run.problem(), self._limits)
            room -= 1
        self._waiting.extendleft(reversed(later))

    def _start_reduction(self, run: LiveRun) -> int:
        """Start the process of the run's reduction, where it is not there yet; how many were started."""
        reduction = run.reduction
        if reduction in self._reductions:
            return 0
        most_vectors = 1 + max(r.settings.batch for r in (run, *self._waiting) if r.reduction is reduction)
        self._reductions[reduction] = ReductionWorker(
            reduction.name, reduction.registration, reduction.problem, most_vectors, self._limits
        )
        return 1

    def _listen(self) -> bool:
        """Take the answers that are there, and wait for more where there is nothing else to do; whether any came."""
        asked: dict[Any, LiveRun] = {w.channel: run for run, w in self._workers.items() if w.deadline < math.inf}
        reductions = {w.channel: r for r, w in self._reductions.items() if w.deadline < math.inf}
        ready = wait([*asked, *reductions], self._patience(), [self._woken])
        now = time.monotonic()  # who answers later, while answers are taken, is heard the next time
        while self._woken.poll():
            self._woken.recv_bytes()
        took = [self._take_scores(reductions[channel]) for channel in ready if channel in reductions]
        took += [self._take_answer(asked[channel]) for channel in ready if channel in asked]
        for run, worker in [(run, w) for run, w in self._workers.items() if w.deadline <= now]:
            self._fail(run, worker.overdue())
        for reduction, slow in [(r, w) for r, w in self._reductions.items() if w.deadline <= now]:
            self._fail_reduction(reduction, slow.overdue())
        return any(took)

    def _patience(self) -> float:
        """Seconds to wait for answers."""
        workers = (*self._workers.values(), *self._reductions.values())
        deadline = min((worker.deadline for worker in workers), default=math.inf)
        left = min(WAKE_SECONDS, max(0.0, deadline - time.monotonic()))
        if any(batch.evaluation.done for batch in self._training):
            return 0.0
        if not self._has_room:
            return left
        if self._filled() or (deadline == math.inf and not self._training):
            return 0.0
        return min(PATIENCE, left) if self._jobs else left

    @property
    def _has_room(self) -> bool:
        """Whether another batch may be in training."""
        at_once = (self._evaluators[b.jobs[0].engine].executor.at_once for b in self._training)
        return len(self._training) < min(at_once, default=1)

    def _filled(self) -> bool:
        """Whether the jobs that wait fill their engine."""
        if not self._jobs:
            return False
        engine = self._jobs[0].engine
        return sum(job.request.trainings for job in self._jobs if job.engine is engine) >= engine.best_batch

    def _take_answer(self, run: LiveRun) -> bool:
        """Take the searcher's answer; whether it was there whole."""
        worker = self._workers.get(run)
        if worker is None:
            return False  # its reduction has failed meanwhile
        try:
            reply = worker.reply()
        except WorkerFailure as failure:
            self._fail(run, failure)
            return True
        if reply is None:
            return False
        if worker.ready:
            run.answered(reply)
        else:
            run.wants_replicates = reply.replicates
        worker.ready = True
        if run.ended_early is not None and not isinstance(run, Discovery):
            self.store.end_search(run.record.id, run.ended_early)
        self._see_to(run)
        return True

    def _take_scores(self, reduction: SpaceReduction) -> bool:
        """Take the reduction's answer; whether it was there whole."""
        worker = self._reductions[reduction]
        try:
            message = worker.receive()
            if message is None:
                return False
            if not worker.ready:
                worker.take_ready(message)
                reduction.dim = worker.dim
                return True
            run, scores = worker.answered(message)
        except WorkerFailure as failure:
            self._fail_reduction(reduction, failure)
            return True
        if run in self._workers:  # it has not failed meanwhile
            run.reduced(scores)
            self._see_to(run)
        return True

    def _fail_reduction(self, reduction: SpaceReduction, failure: WorkerFailure) -> None:
        """The runs that use it fail: those under way, and those that wait."""
        self._reductions.pop(reduction).kill()
        users = [run for run in (*self._workers, *self._waiting) if run.reduction is reduction]
        self._waiting = deque(run for run in self._waiting if run.reduction is not reduction)
        for run in users:
            self._fail(run, failure)

    def _fail(self, run: LiveRun, failure: WorkerFailure) -> None:
        run.fail(failure.status, str(failure))
        self._see_to(run)

    def _see_to(self, run: LiveRun) -> None:
        """What the run needs next."""
        if isinstance(run, Discovery):
            self.progress.found(len(run.found) - self._found.get(run, 0))
            self._found[run] = len(run.found)
        self.progress.advance(run.evaluations - self._counted.get(run, 0), run.best_told)
        self._counted[run] = run.evaluations
        need = run.need
        if run in self._workers and (not run.searching or isinstance(need, Restart)):
            self._workers.pop(run).kill()
        if isinstance(need, Ask):
            self._workers[run].ask(need.turn)
        elif isinstance(need, Restart):
            run.restarted()
            self._waiting.appendleft(run)
        elif isinstance(need, Reduce):
            self._reductions[run.reduction].enqueue(run, need.vectors)
        elif isinstance(need, Train):
            self._jobs.append(Job(need.request, run.space.engine, lambda values: (run, run.evaluated(values))))
        elif isinstance(need, Confirm):
            self._confirm(run, need.labels, lambda: self._confirmed(run))
        else:
            self._end(run, need)

    def _confirm(self, run: LiveRun, labels: LabelVectors, then: Callable[[], None]) -> None:
        """Queue the confirmation of those (n, N) label vectors that the log does not have yet."""
        space, tag, replicates = run.space, run.tag, run.settings.confirm
        missing = [y[None] for y in labels if self.store.confirmed(space.identity, tag, y, replicates) is None]
        if not missing:
            then()
            return
        waiting = len(missing)

        def done(confirmed: LabelVectors, values: NDArray[np.float64]) -> None:
            nonlocal waiting
            self.store.add_confirmations(space.identity, tag, confirmed, values)
            self.progress.extra(values.size)
            waiting -= 1
            if not waiting:
                then()

        self.progress.expect_extra(len(missing), replicates)
        seeds = space.confirm_seeds(1, replicates, self.options.key)
        for one in missing:
            self._jobs.append(Job(Request(space, one, seeds), space.engine, functools.partial(done, one)))

    def _confirmed(self, run: LiveRun) -> None:
        run.confirmed()
        self._see_to(run)

    def _train(self) -> None:
        """Begin to train the jobs that have waited longest, together, as many as fill the engine."""
        if not self._jobs:
            return
        engine = self._jobs[0].engine
        chosen: list[Job] = []
        others: deque[Job] = deque()
        trainings = 0
        for job in self._jobs:
            if job.engine is engine and trainings < engine.best_batch:
                chosen.append(job)
                trainings += job.request.trainings
            else:
                others.append(job)
        self._jobs = others
        if engine not in self._evaluators:
            self._evaluators[engine] = Evaluator(LocalExecutor(engine))
        evaluation = self._evaluators[engine].submit([job.request for job in chosen])
        self._training.append(Batch(tuple(chosen), evaluation))
        for future in evaluation.futures:
            future.add_done_callback(lambda _: self._wake_up())

    def _wake_up(self) -> None:
        """End the wait for answers: called by the executor's thread."""
        with contextlib.suppress(OSError):
            self._wake.send_bytes(b"")

    def _commit(self, batch: Batch) -> None:
        """Commit what a batch has trained, then let the runs go on."""
        results = zip(batch.jobs, batch.evaluation.taskness(), strict=True)
        evaluated = [asked for job, values in results if (asked := job.done(values)) is not None]
        with self.store.together():
            if evaluated:
                self.store.append(
                    [(run.record.id, asked) for run, asked in evaluated],
                    {run.record.id: run.seconds for run, _ in evaluated},
                )
            if isinstance(batch.jobs[0].engine, ClusterEngine):
                self.store.add_work(batch.jobs[0].engine.take_work())
        for run, committed in evaluated:
            run.committed(committed)
            self._see_to(run)
        self._report([run for run, _ in evaluated])

    def _end(self, run: LiveRun, end: End) -> None:
        self.progress.skip(run.settings.budget - run.evaluations)
        row = leaderboard_row(run, end.status, end.error, self.store)
        members = run.members if isinstance(run, Discovery) and row.status == "ok" else []
        self.store.finish(run.record.id, row.status, row.error, row.seconds, row_to_json(row), run.recommended, members)
        run.forget()
        self._counted.pop(run, None)
        self._found.pop(run, None)
        self.on_end(run, row)


def _stopped(why: str) -> Stopped:
    return Stopped(f"stopped {why}; everything evaluated is kept, go on with --resume")
