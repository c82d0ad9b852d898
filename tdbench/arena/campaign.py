"""A campaign: many runs, from settings to results. Finds spaces and engines, and what the log has of each run already.

`tdbench.api` is what users call; it gives the settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tdbench.arena.discovery import JointDiscovery, RoundsDiscovery
from tdbench.arena.live_run import LiveRun, SpaceReduction
from tdbench.arena.lockstep import Arena
from tdbench.arena.outcome import library_of
from tdbench.arena.seals import check_seals
from tdbench.arena.shards import Shard, first_of_spaces
from tdbench.base.errors import UserError
from tdbench.base.files import check_name
from tdbench.base.progress import Progress
from tdbench.cluster import chosen_engine, open_clusters
from tdbench.engine import Engine
from tdbench.searchers.reduction import IDENTITY, JOINT, ReductionProblem
from tdbench.searchers.registry import Plugins, Registration
from tdbench.settings import Options, RunSettings
from tdbench.space.labelings import LabelVectors
from tdbench.space.references import chosen
from tdbench.space.settings import SpaceSettings
from tdbench.space.sources import Source, load_source
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import reference_scores, space_references
from tdbench.store.labelings_file import read_start
from tdbench.store.library import TaskLibrary
from tdbench.store.log import Replay, RunRecord, Store
from tdbench.store.result import Result, library_path, picture_path
from tdbench.store.rows import CHECKPOINTS, Leaderboard, Row, leaderboard_path

_MANY_ATTEMPTS = 999  # a run's picture has the number of its attempt in its name


def run_all(
    campaign: Sequence[RunSettings],
    options: Options,
    plugins: Plugins,
    one_run: bool = False,
    shard: Shard | None = None,
) -> list[Result]:
    """Play the shard's runs that are not finished, confirm the reference tasks, and return every result in order.

    Nothing is written before all settings have been checked.

    Args:
        one_run: whether the one run that there is is meant, not a row of a benchmark: to resume it under another key
            or on another engine is an error, also where it is finished.
    """
    for settings in campaign:
        _check_names(settings, plugins)
    runs = campaign if shard is None else shard.part(campaign)
    if shard is not None and not runs:
        return _nothing_to_do(shard, len(campaign), options)
    entries = list(zip(runs, _spaces(runs, options), strict=True))
    options.log_of_searchers  # noqa: B018 - one that cannot be written is an error now
    with contextlib.ExitStack() as stack:
        stack.enter_context(open_clusters(say=options.progress))
        default_engine(runs[0], options)  # --device cuda without one, before anything is written
        boards = _boards(entries, options)
        replaced: set[str] = set()  # runs whose rows took the place of others
        libraries: dict[str, TaskLibrary] = {}  # run -> what it discovered
        store = stack.enter_context(Store(options.folder))
        stack.enter_context(store.lock(_unfinished_keys(entries, store, options)))
        live = list(_prepare(entries, plugins, store, options, one_run))
        todo = [run for run in live if not run.record.ended]
        total = sum(run.settings.budget for run in todo)
        progress = stack.enter_context(Progress(total, options.progress))

        def on_end(run: LiveRun, row: Row) -> None:
            if run.record.id not in libraries and (members := store.members(run.record)):
                libraries[run.record.id] = library_of(run, members, store)
                libraries[run.record.id].save(_library_file(run, options))
            if boards[run.space.name].add(row):
                replaced.add(row.run)

        arena = Arena(store, options, progress, on_end)
        if shard is not None:
            progress.announce(shard.line(runs, len(campaign)))
        if todo and options.progress:
            progress.announce(_trainings_to_come(todo, live, campaign, store, options))
        arena.play(todo)
        _confirm_references(arena, live, campaign)
        rows = [store.row(store.record(run.record.id)) for run in live]
        for run, row in zip(live, rows, strict=True):
            on_end(run, row)  # a kill between the log and the leaderboard is mended here
        scores = functools.cache(functools.partial(reference_scores, store))
        return [
            Result(
                row=row,
                space=run.space,
                labels=store.recommended(run.record).get(1.0),
                told=store.told_taskness(run.record),
                references=tuple(scores(run.space.identity, run.tag, run.settings.confirm)),
                leaderboard=boards[run.space.name].path,
                log=store.path,
                picture=None,
                replaced=row.run in replaced,
                was_finished=run.record.ended,
                library=libraries.get(row.run),
                library_path=_library_file(run, options) if row.run in libraries else None,
            )
            for run, row in zip(live, rows, strict=True)
        ]


def _nothing_to_do(shard: Shard, campaign: int, options: Options) -> list[Result]:
    with Store(options.folder), Progress(0, options.progress) as progress:  # an empty log, which can be merged
        progress.announce(shard.line([], campaign))
    return []


def _library_file(run: LiveRun, options: Options) -> Path:
    return library_path(options.folder, run.space.name, run.settings.full_name, run.record.id)


def _boards(entries: Sequence[tuple[RunSettings, TaskSpace]], options: Options) -> dict[str, Leaderboard]:
    """The leaderboard of each space by its name. Raises UserError where a result could not be written in the end."""
    boards: dict[str, Leaderboard] = {}
    for settings, space in entries:
        if space.name not in boards:
            boards[space.name] = Leaderboard(leaderboard_path(options.folder, space.name))
            check_name(boards[space.name].path, f"the leaderboard of {space.source}")
            boards[space.name].check()
        run = f"{settings.key(space)}-{_MANY_ATTEMPTS}"
        picture = picture_path(options.folder, space.name, settings.full_name, run)
        check_name(picture, f"the picture of searcher {settings.full_name} on {space.source}")
    return boards


def _latest(settings: RunSettings, space: TaskSpace, store: Store) -> RunRecord | None:
    """The latest attempt at a run, under whichever key it was begun."""
    return next((record for key in settings.keys(space) if (record := store.latest(key)) is not None), None)


def _unfinished_keys(entries: Sequence[tuple[RunSettings, TaskSpace]], store: Store, options: Options) -> Iterator[str]:
    """The keys of the runs that are to be played."""
    for settings, space in entries:
        record = _latest(settings, space, store)
        if record is None or not record.ended or options.again:
            yield settings.key(space) if record is None else record.key


def _check_names(settings: RunSettings, plugins: Plugins) -> None:
    searcher, _ = plugins.searcher(settings.searcher)
    _, dim = plugins.reduction(settings.reduction)
    if settings.start and not searcher.takes_start:
        raise UserError(
            f"searcher {settings.searcher!r} does not begin from given labelings (register it with takes_start=True); "
            "run it without --start"
        )
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
    """The engine that these settings ask for, on this machine or on the workers of the cluster."""
    return chosen_engine(settings.engine, settings.device, options.threads, options.cluster)


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
    one_run: bool,
) -> Iterator[LiveRun]:
    """The runs with their records: begun, to be resumed, or finished. Checks them all before it begins any."""
    plans: list[tuple[RunSettings, TaskSpace, RunRecord | None, str, int]] = []
    known = _Known(store, options, one_run)
    check_seals([settings for settings, _ in entries], store.runs(), options, one_run)
    for settings, space in entries:
        record = _latest(settings, space, store)
        known.check(settings, space, record)
        key, attempt = settings.key(space), 1
        if record is not None and record.ended and options.again:
            key, attempt, record = record.key, record.attempt + 1, None
        elif record is not None and not record.ended and not options.resume:
            done = store.evaluated(record.id)
            raise UserError(
                f"the run of {settings.full_name} with seed {settings.seed} was interrupted after {done} of "
                f"{settings.budget} evaluations; go on with --resume"
            )
        plans.append((settings, space, record, key, attempt))
    reductions = _reductions(entries, plugins)
    on_engine = functools.cache(TaskSpace.on)  # runs of one space on one engine share it
    with store.together():
        for (settings, space, record, key, attempt), reduction in zip(plans, reductions, strict=True):
            registration, variant = plugins.searcher(settings.searcher)
            if record is None:
                engine = default_engine(settings, options)
                if not store.has_space(space.identity):
                    store.add_space(space)
                record = store.begin(
                    key,
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
            replay = Replay(store, record)
            start = _start_of(settings, space, options)
            yield _kind_of(settings)(
                settings, on_engine(space, engine), record, registration, variant, reduction, replay, start
            )


def _start_of(settings: RunSettings, space: TaskSpace, options: Options) -> LabelVectors | None:
    """The labelings that the search begins from, where it is given any."""
    if not settings.start or options.start is None:
        return None
    labels = read_start(Path(options.start), space.n, space.n_positives)
    labels.flags.writeable = False
    return labels


def _kind_of(settings: RunSettings) -> type[LiveRun]:
    """The kind of run that these settings ask for."""
    if not settings.tasks:
        return LiveRun
    return RoundsDiscovery if settings.protocol == "rounds" else JointDiscovery


def _reductions(entries: Sequence[tuple[RunSettings, TaskSpace]], plugins: Plugins) -> list[SpaceReduction]:
    """The reduction of each run; runs of one space share it."""
    made: dict[tuple[str, str], SpaceReduction] = {}
    for settings, space in entries:
        registration, dim = plugins.reduction(settings.reduction)
        images = space.images if registration.sees_images else None
        problem = ReductionProblem(dim or space.n, space.n, space.n_positives, images)
        known = space.n if settings.reduction == IDENTITY else 0
        reduction = SpaceReduction(settings.reduction, registration, problem, known)
        made.setdefault((settings.reduction, space.identity), reduction)
    return [made[settings.reduction, space.identity] for settings, space in entries]


def _version(searcher: Registration, reduction: SpaceReduction) -> str:
    if reduction.is_identity:
        return searcher.version
    return JOINT.join(version for version in (searcher.version, reduction.registration.version) if version)


class _Known:
    """What the log has of other runs with the same settings, looked up and not searched for."""

    def __init__(self, store: Store, options: Options, one_run: bool) -> None:
        self._resume = options.resume
        unfinished = store.runs("running")
        self._by_settings: dict[RunSettings, list[RunRecord]] = {}
        for record in unfinished:
            self._by_settings.setdefault(record.settings, []).append(record)
        # A bench may add runs on another engine to ended ones; `run --resume` is for the one run that there is.
        begun = store.runs() if one_run and options.resume else unfinished
        self._by_work = {_work(record.settings, record.space): record for record in begun}

    def check(self, settings: RunSettings, space: TaskSpace, record: RunRecord | None) -> None:
        """Raises UserError where the log has the run on other images, or begun with another engine or device."""
        same = [r for r in self._by_settings.get(settings, ()) if r.space != space.identity]
        if record is not None and record.space != space.identity:
            same = [record]
        if same and (self._resume or record is not None):
            raise UserError(
                f"the log has this run on space {same[0].space}, but {settings.data} now gives {space.identity}: the "
                "images or the protocol have changed; restore them, or use another --out"
            )
        other = self._by_work.get(_work(settings, space.identity))
        if self._resume and record is None and other is not None:
            raise UserError(
                f"the run of {settings.full_name} with seed {settings.seed} was begun with --engine "
                f"{other.settings.engine} --device {other.settings.device}, and goes on with these only; without "
                f"--resume, one with --engine {settings.engine} --device {settings.device} begins beside it"
            )


def _work(settings: RunSettings, identity: str) -> tuple[Any, ...]:
    """Equal for runs that differ in nothing but what trains them."""
    own = [field.name for field in dataclasses.fields(settings) if field.name not in ("data", "engine", "device")]
    return (identity, *(getattr(settings, name) for name in own))


def _recorded_engine(record: RunRecord, options: Options) -> Engine:
    """The engine that a run was begun with, on which alone it may go on."""
    try:
        engine = chosen_engine(record.engine, record.device, options.threads, options.cluster)
    except UserError as error:
        raise UserError(f"the run was begun with engine {record.engine} on {record.device}: {error}") from error
    if engine.detail != record.engine_detail:
        raise UserError(
            f"the run was begun with engine {record.engine} ({record.engine_detail}), which is {engine.detail!r} "
            "here, so its numbers would differ; run it anew with --again or another --out"
        )
    return engine


def _confirm_references(arena: Arena, runs: Sequence[LiveRun], campaign: Sequence[RunSettings]) -> None:
    """Score the reference tasks that are asked for like everything else, once for each space and engine."""
    arena.progress.reference_tasks()
    for run, labelings in _missing_references(runs, campaign, arena.store, arena.options):
        arena.confirm(run, labelings)


def _missing_references(
    runs: Sequence[LiveRun], campaign: Sequence[RunSettings], store: Store, options: Options
) -> Iterator[tuple[LiveRun, list[LabelVectors]]]:
    """For each space, engine and confirmation a run of it, and the reference tasks that are not confirmed yet.

    Of the shards of a campaign, the one that has the first run on a space confirms all that the campaign asks for.
    """
    cases: dict[tuple[str, str, int], list[LiveRun]] = {}
    for run in runs:
        cases.setdefault((run.space.identity, run.tag, run.settings.confirm), []).append(run)
    first = first_of_spaces(campaign)
    for (space, tag, confirm), members in cases.items():
        if first.isdisjoint(run.settings for run in members):
            continue
        spaces = {run.settings.space for run in members}
        searched = sum(settings.budget * settings.replicates for settings in campaign if settings.space in spaces)
        tasks = chosen(space_references(store, space), options.references, confirm, searched)
        yield members[0], [t.labels for t in tasks if store.confirmed(space, tag, t.labels, confirm) is None]


def _trainings_to_come(
    todo: Sequence[LiveRun], runs: Sequence[LiveRun], campaign: Sequence[RunSettings], store: Store, options: Options
) -> str:
    """How many trainings the runs that are not finished will do at most, and what for."""
    search = sum((r.settings.budget - store.evaluated(r.record.id)) * r.settings.replicates for r in todo)
    confirm = sum((r.settings.tasks or len(CHECKPOINTS)) * r.settings.confirm for r in todo)
    missing = _missing_references(runs, campaign, store, options)
    references = sum(len(labelings) * r.settings.confirm for r, labelings in missing)
    return (
        f"trainings: {search} to search, at most {confirm} to confirm what was found, {references} for reference tasks"
    )
