"""One run in this process, for debugging: breakpoints, prints and tracebacks of a searcher work as in any program.

Nothing protects this process from the plugin, and nothing is kept: no log, no row. A trial goes through the same steps
as a run of its settings, and is told the same losses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.arena.live_run import Ask, Confirm, End, LiveRun, Reduce, SpaceReduction, Train
from tdbench.arena.worker import Reply, Turn
from tdbench.base.errors import UserError, echo
from tdbench.engine import Engine
from tdbench.searchers.loading import load_plugins
from tdbench.searchers.reduction import IDENTITY, ReductionProblem
from tdbench.searchers.registry import PluginSource, Registration
from tdbench.searchers.searcher import Done, Problem
from tdbench.settings import Options, RunSettings
from tdbench.space.evaluate import Evaluator
from tdbench.space.executor import LocalExecutor, Request
from tdbench.space.labelings import LabelVectors
from tdbench.space.task_space import TaskSpace
from tdbench.store.log import Replay, RunRecord

NOTE = "in this process, for debugging: no log and no row is written, and nothing limits the searcher"


@dataclass(frozen=True)
class Trial:
    """What came of a run in this process.

    Attributes:
        settings, space: what was run, and where.
        labels: (N,) the recommended labeling.
        told: (n,) taskness told for each evaluation of the search.
        confirmed: (R,) taskness of the recommended labeling on the replicates that runs are confirmed on.
        evaluations: those of a race among them.
        note: what the searcher left of its budget, where it was done early.
    """

    settings: RunSettings
    space: TaskSpace
    labels: LabelVectors
    told: NDArray[np.float64]
    confirmed: NDArray[np.float64]
    evaluations: int
    note: str

    def __repr__(self) -> str:
        told, confirmed = self.told.max(), self.confirmed.mean()
        return f"Trial({self.settings.searcher}: told {told:.3f}, confirmed {confirmed:.3f}; nothing was written)"


def registration_of(searcher: Callable[[Problem], Any], *, sees_images: bool = False) -> Registration:
    """A class or a factory as if a plugin had registered it under its name."""
    name = getattr(searcher, "__name__", "searcher")
    source = PluginSource(name, "this process", "", "own", "")
    return Registration(
        name=name,
        factory=searcher,
        summary="",
        version="",
        sees_images=sees_images,
        source=source,
        baseline=False,
        reducible=True,
        takes_start=True,
        variants=None,
    )


def run_here(
    settings: RunSettings,
    options: Options,
    space: TaskSpace,
    registration: Registration,
    variant: str | None,
    start: LabelVectors | None,
) -> Trial:
    """Play one run to its end. Whatever the searcher raises is raised.

    Raises:
        UserError: the searcher or the reduction answered with something that is not what it was asked for.
    """
    print(f"note: {NOTE}", file=sys.stderr)
    reduction, scores = _reduction(settings, options, space)
    run = LiveRun(settings, space, _record(settings, space), registration, variant, reduction, _Nothing(), start)
    searcher: Any = registration.make(run.problem(), variant)
    run.wants_replicates = hasattr(searcher, "tell_replicates")
    evaluator = Evaluator(LocalExecutor(space.engine))
    confirmed = np.zeros(0)
    while not isinstance(need := run.need, End):
        if isinstance(need, Ask):
            run.answered(_reply(searcher, need.turn))
        elif isinstance(need, Reduce):
            run.reduced(scores(need.vectors))
        elif isinstance(need, Train):
            run.committed(run.evaluated(evaluator.evaluate([need.request])[0]))
        elif isinstance(need, Confirm):
            seeds = space.confirm_seeds(1, settings.confirm, options.key)
            confirmed = evaluator.evaluate([Request(space, run.recommended[1.0][None], seeds)])[0][0]
            run.confirmed()
    if need.status != "ok":
        raise UserError(f"{settings.full_name}: {need.status} after {run.evaluations} evaluations: {need.error}")
    _, taskness, searched = run.history
    return Trial(settings, space, run.recommended[1.0], taskness[:searched], confirmed, run.evaluations, need.error)


def _reply(searcher: Any, turn: Turn) -> Reply:
    """What the process of a searcher answers to a turn."""
    recommended = asked = None
    if turn.tell is not None:
        scores, loss = (array.copy() for array in turn.tell)
        if hasattr(searcher, "tell_replicates"):
            searcher.tell_replicates(scores, loss[:, None] if turn.losses is None else turn.losses.copy())
        else:
            searcher.tell(scores, loss)
    if turn.recommend and hasattr(searcher, "recommend") and (own := searcher.recommend()) is not None:
        recommended = _numbers(own, "recommend")[None]
    if turn.ask:
        try:
            asked = _numbers(searcher.ask(turn.ask), "ask")
        except Done:
            return Reply(done=True)
    return Reply(asked, recommended)


def _numbers(answer: Any, what: str) -> NDArray[np.float64]:
    try:
        return np.array(answer, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f"{what} must return an array of numbers, got {echo(answer)}") from error


def _reduction(
    settings: RunSettings, options: Options, space: TaskSpace
) -> tuple[SpaceReduction, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    found, dim = load_plugins(options.plugins if settings.reduction != IDENTITY else ()).reduction(settings.reduction)
    images = space.images if found.sees_images else None
    problem = ReductionProblem(dim or space.n, space.n, space.n_positives, images)
    made = found.make(problem)
    return SpaceReduction(settings.reduction, found, problem, made.dim), made.scores


def _record(settings: RunSettings, space: TaskSpace) -> RunRecord:
    engine: Engine = space.engine
    names = (engine.name, engine.device, engine.detail)
    return RunRecord("", "", 1, space.identity, settings, "", *names, "running", "", 0.0, 0.0, None)


class _Nothing(Replay):
    """A log that has nothing of the run."""

    def __init__(self) -> None:
        self.search_end = None

    def __len__(self) -> int:
        return 0
