"""A campaign: many runs, from settings to results. Finds spaces and engines, and what the log has of each run already.

`tdbench.api` is what users call; it gives the settings.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

from tdbench.arena.live_run import LiveRun
from tdbench.arena.lockstep import Arena
from tdbench.base.errors import UserError
from tdbench.base.progress import Progress
from tdbench.engine import Engine, make_engine
from tdbench.searchers.reduction import IDENTITY, JOINT, ReductionProblem, SpaceReduction
from tdbench.searchers.registry import Plugins, Registration
from tdbench.settings import Options, RunSettings
from tdbench.space.references import chosen
from tdbench.space.settings import SpaceSettings
from tdbench.space.sources import Source, load_source
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import reference_scores, space_references
from tdbench.store.log import RunRecord, Store
from tdbench.store.result import Result
from tdbench.store.rows import Row, append_row, leaderboard_path, row_from_json


def run_all(
    runs: Sequence[RunSettings], options: Options, plugins: Plugins, finished_is_error: bool = False
) -> list[Result]:
    """Play the runs that are not finished, confirm the reference tasks, and return every result in order.

    Nothing is written before all settings have been checked.
    """
    for settings in runs:
        _check_names(settings, plugins)
    spaces = _spaces(runs, options)
    default_engine(runs[0], options)  # --device cuda without one, before anything is written
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(options.folder))
        entries = list(zip(runs, spaces, strict=True))
        keys = [settings.key(space) for settings, space in entries]
        unfinished = [key for key in keys if options.again or (known := store.latest(key)) is None or not known.ended]
        stack.enter_context(store.lock(unfinished))
        live = list(_prepare(entries, plugins, store, options, finished_is_error))
        todo = [run for run in live if not run.record.ended]
        total = sum(run.settings.budget for run in todo)
        progress = stack.enter_context(Progress(total, options.progress))

        def on_end(run: LiveRun, row: Row) -> None:
            append_row(leaderboard_path(options.folder, run.space.name), row)

        arena = Arena(store, options, progress, on_end)
        arena.play(todo)
        _confirm_references(arena, live)
        return [_result(run, store, options) for run in live]


def _check_names(settings: RunSettings, plugins: Plugins) -> None:
    searcher, _ = plugins.searcher(settings.searcher)
    _, dim = plugins.reduction(settings.reduction)
    if settings.reduction != IDENTITY and not searcher.reducible:
        raise UserError(
            f"searcher {settings.searcher!r} can use no reduction, because its vectors are scores of the images "
            f"themselves; run it without {settings.reduction}"
        )
    if dim is not None and dim > settings.n:
        raise UserError(
            f"reduction {settings.reduction!r} must have at most as many dimensions as there are images, {settings.n}"
        )


def default_engine(settings: RunSettings, options: Options) -> Engine:
    """The engine that these settings ask for on this machine."""
    return make_engine(settings.engine, settings.device, options.threads)


def _spaces(runs: Sequence[RunSettings], options: Options) -> list[TaskSpace]:
    """The space of each run; runs of one space share it, and a source is read once."""
    sources: dict[str, Source] = {}
    spaces: dict[SpaceSettings, TaskSpace] = {}
    for settings in runs:
        if settings.data not in sources:
            sources[settings.data] = load_source(settings.data, options.data_dir, options.download)
        if settings.space not in spaces:
            spaces[settings.space] = TaskSpace.of(settings, sources[settings.data])
    return [spaces[settings.space] for settings in runs]


def _prepare(
    entries: Sequence[tuple[RunSettings, TaskSpace]],
    plugins: Plugins,
    store: Store,
    options: Options,
    finished_is_error: bool,
) -> Iterator[LiveRun]:
    """The runs with their records: begun, to be resumed, or finished. Checks them all before it begins any."""
    plans: list[tuple[RunSettings, TaskSpace, RunRecord | None, int]] = []
    known = store.runs()
    for settings, space in entries:
        key = settings.key(space)
        record = store.latest(key)
        _check_identity(settings, space, record, known, options)
        attempt = 1
        if record is not None and record.ended and options.again:
            attempt, record = record.attempt + 1, None
        elif record is not None and record.ended and finished_is_error and not options.resume:
            raise UserError(
                f"this run is finished ({_outcome(record)}); --resume prints its result, --again runs it once more"
            )
        elif record is not None and not record.ended and not options.resume:
            done = store.evaluated(record.id)
            raise UserError(
                f"the run of {settings.full_name} with seed {settings.seed} was interrupted after {done} of "
                f"{settings.budget} evaluations; go on with --resume"
            )
        plans.append((settings, space, record, attempt))
    reductions = _reductions(entries, plugins)
    for (_, _, record, _), reduction in zip(plans, reductions, strict=True):
        if record is None or not record.ended:
            reduction.make()
    on_engine = functools.cache(TaskSpace.on)  # runs of one space on one engine share it
    for (settings, space, record, attempt), reduction in zip(plans, reductions, strict=True):
        registration, _ = plugins.searcher(settings.searcher)
        if record is None:
            engine = default_engine(settings, options)
            store.add_space(space)
            record = store.begin(
                settings.key(space),
                attempt,
                space.identity,
                settings,
                _version(registration, reduction),
                (engine.name, engine.device, engine.detail),
            )
        elif record.ended:
            engine = default_engine(settings, options)
        else:
            engine = _recorded_engine(record, options)
        recorded = [] if record.ended else store.asked(record.id)
        yield LiveRun(settings, on_engine(space, engine), record, registration, reduction, recorded)


def _reductions(entries: Sequence[tuple[RunSettings, TaskSpace]], plugins: Plugins) -> list[SpaceReduction]:
    """The reduction of each run; runs of one space share it, and so what it has computed."""
    made: dict[tuple[str, str], SpaceReduction] = {}
    for settings, space in entries:
        registration, dim = plugins.reduction(settings.reduction)
        images = space.images if registration.sees_images else None
        problem = ReductionProblem(dim or space.n, space.n, space.n_positives, images)
        made.setdefault(
            (settings.reduction, space.identity),
            SpaceReduction(
                settings.reduction,
                registration.make,
                problem,
                registration.version,
                registration.sees_images,
                registration.takes_dim,
            ),
        )
    return [made[settings.reduction, space.identity] for settings, space in entries]


def _version(searcher: Registration, reduction: SpaceReduction) -> str:
    if reduction.name == IDENTITY:
        return searcher.version
    return JOINT.join(version for version in (searcher.version, reduction.version) if version)


def _check_identity(
    settings: RunSettings, space: TaskSpace, record: RunRecord | None, known: list[RunRecord], options: Options
) -> None:
    """A log of these very arguments but of other images cannot be gone on with."""
    same = [r for r in known if r.settings == settings and r.space != space.identity and not r.ended]
    if record is not None and record.space != space.identity:
        same = [record]
    if same and (options.resume or record is not None):
        raise UserError(
            f"the log has this run on space {same[0].space}, but {settings.data} now gives {space.identity}: the "
            "images or the protocol have changed; restore them, or use another --out"
        )


def _recorded_engine(record: RunRecord, options: Options) -> Engine:
    """The engine that a run was begun with, on which alone it may go on."""
    try:
        engine = make_engine(record.engine, record.device, options.threads)
    except UserError as error:
        raise UserError(f"the run was begun with engine {record.engine} on {record.device}: {error}") from error
    if engine.detail != record.engine_detail:
        raise UserError(
            f"the run was begun with engine {record.engine} ({record.engine_detail}), which is {engine.detail!r} "
            "here, so its numbers would differ; run it anew with --again or another --out"
        )
    return engine


def _outcome(record: RunRecord) -> str:
    if record.row is None or record.status != "ok":
        return record.status
    return f"confirmed {record.row['confirmed']:.3f}"


def _confirm_references(arena: Arena, runs: Sequence[LiveRun]) -> None:
    """Score the reference tasks that are asked for like everything else, once for each space and engine."""
    arena.progress.reference_tasks()
    cases: dict[tuple[str, str, int], list[LiveRun]] = {}
    for run in runs:
        cases.setdefault((run.space.identity, run.tag, run.settings.confirm), []).append(run)
    for (space, _, confirm), members in cases.items():
        searched = sum(run.settings.budget * run.settings.replicates for run in members)
        tasks = chosen(space_references(arena.store, space), arena.options.references, confirm, searched)
        arena.confirm(members[0], [task.labels for task in tasks])


def _result(run: LiveRun, store: Store, options: Options) -> Result:
    record = store.latest(run.record.key)
    assert record is not None and record.row is not None  # it has ended
    row = row_from_json(record.row)
    board = leaderboard_path(options.folder, run.space.name)
    append_row(board, row)  # a kill between the log and the leaderboard is mended here
    told = store.told(record.id)[1]
    recommended = store.recommended(record.id).get(1.0)
    references = reference_scores(store, run.space.identity, run.tag, run.settings.confirm)
    return Result(row, run.space, recommended, told, tuple(references), board, store.path, None)
