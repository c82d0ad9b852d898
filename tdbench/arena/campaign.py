"""`run` and `bench`: settings in, results out. Finds the plugins, spaces and engines, and what the log has already."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from tdbench.arena.live_run import LiveRun
from tdbench.arena.lockstep import Arena
from tdbench.base.errors import UserError, nearest
from tdbench.base.progress import Progress
from tdbench.base.stats import Estimate
from tdbench.engine import Engine, make_engine
from tdbench.searchers.reduction import IDENTITY, JOINT, ReductionProblem, SpaceReduction
from tdbench.searchers.registry import Plugins, Registration, load_plugins
from tdbench.settings import AUTO_THRESHOLD, Options, RunSettings
from tdbench.space.sources import Source, load_source
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import ReferenceScore, reference_scores, space_references
from tdbench.store.log import RunRecord, Store
from tdbench.store.rows import Row, append_row, leaderboard_path, row_from_json

RUN_FIELDS = tuple(field.name for field in dataclasses.fields(RunSettings))
OPTION_FIELDS = tuple(field.name for field in dataclasses.fields(Options))


@dataclass(frozen=True)
class Result:
    """What came of one run.

    Attributes:
        row: its leaderboard row.
        space: the space it searched.
        labels: (N,) the recommended labeling; None where the run failed.
        told: (n,) taskness told for each evaluation; those of a race were told to nobody and are not among them.
        references: confirmed scores of the space's reference tasks.
        leaderboard, log: the files the result is in.
        picture: the discovered task as a PNG; None where there is none.
        threshold: T_task, where `run` was asked for one and the run went well. Its `n` is the number of random
            labelings it rests on, 0 where it was given.
    """

    row: Row
    space: TaskSpace
    labels: NDArray[np.uint8] | None
    told: NDArray[np.float64]
    references: tuple[ReferenceScore, ...]
    leaderboard: Path
    log: Path
    picture: Path | None
    threshold: Estimate | None = None

    @property
    def is_task(self) -> bool | None:
        """Whether what was found counts as a task; None without a threshold."""
        return None if self.threshold is None else self.row.confirmed > self.threshold.value

    def reference(self, kind: str) -> list[ReferenceScore]:
        """The reference scores of that kind: class, pixel or random."""
        return [score for score in self.references if score.task.kind == kind]


def run(searcher: str = "twopointsde", **settings: Any) -> Result:
    """Run one searcher on one space, as `tdbench run` does.

    Args:
        searcher: its name, as `tdbench searchers` lists it.
        settings: any field of `RunSettings` and `Options` by name.

    Raises:
        UserError: settings that cannot be run, an interrupted run without ``resume=True``, or a finished one
            without ``resume=True`` (returns its result) or ``again=True`` (runs it once more).
    """
    run_settings, options = split_settings({"searcher": searcher, **settings})
    result = run_all([run_settings], options, _plugins(options), finished_is_error=True)[0]
    result = replace(result, picture=write_picture(result, options))
    return replace(result, threshold=_threshold(result, run_settings, options))


def bench(
    searchers: str | Sequence[str],
    seeds: int | Sequence[int] = 10,
    space_seeds: int | Sequence[int] = (0,),
    data: str | Sequence[str] = "digits",
    n: int | Sequence[int] = 50,
    ratio: int | Sequence[int] = 4,
    reductions: str | Sequence[str] = IDENTITY,
    **settings: Any,
) -> list[Result]:
    """Run every searcher with every reduction on every space with every seed, in lockstep, as `tdbench bench` does.

    Args:
        searchers: names.
        seeds: run seeds, or how many (0, 1, ...).
        space_seeds, data, n, ratio: the spaces are all combinations.
        reductions: names. Where ``identity`` is among them, it alone is for a searcher that can use no reduction.
        settings: any other field of `RunSettings` and `Options` by name.

    Returns:
        One result for each run. A run that is finished already is not run again, unless ``again=True``.

    Raises:
        UserError: settings that cannot be run, or interrupted runs without ``resume=True``.
    """
    for one, several in (("searcher", "searchers"), ("reduction", "reductions"), ("seed", "seeds")):
        if one in settings:
            raise UserError(f"bench takes {several}, not {one}")
    if settings.get("threshold") is not None:
        raise UserError("bench takes no threshold, only run does")
    base, options = split_settings(settings)
    all_seeds = range(int(seeds)) if isinstance(seeds, Integral) else seeds
    axes = [_several(axis) for axis in (data, n, ratio, space_seeds, searchers, reductions, all_seeds)]
    names = ("data", "n", "ratio", "space_seed", "searcher", "reduction", "seed")
    if any(len(axis) == 0 for axis in axes):
        raise UserError("bench needs at least one searcher, one seed, one space and one reduction")
    runs = [replace(base, **dict(zip(names, point, strict=True))) for point in itertools.product(*axes)]
    plugins = _plugins(options)
    if any(run.reduction == IDENTITY for run in runs):
        runs = [run for run in runs if run.reduction == IDENTITY or plugins.searcher(run.searcher)[0].reducible]
    return run_all(list(dict.fromkeys(runs)), options, plugins)


def split_settings(settings: dict[str, Any]) -> tuple[RunSettings, Options]:
    """Settings by name, sorted into the two dataclasses. Raises UserError for a name that neither has."""
    for name in settings:
        if name not in RUN_FIELDS and name not in OPTION_FIELDS:
            raise UserError(f"unknown setting {name!r}{nearest(name, (*RUN_FIELDS, *OPTION_FIELDS))}")
    chosen: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    return (
        RunSettings(**{name: v for name, v in chosen.items() if name in RUN_FIELDS}),
        Options(**{name: v for name, v in chosen.items() if name in OPTION_FIELDS}),
    )


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
        stack.enter_context(_locked([options.folder / ".locks" / f"{key}.lock" for key in unfinished]))
        live = list(_prepare(entries, plugins, store, options, finished_is_error))
        todo = [run for run in live if not run.record.ended]
        total = sum(run.settings.budget for run in todo)
        progress = stack.enter_context(Progress(total, options.progress))

        def on_end(run: LiveRun, row: Row) -> None:
            append_row(leaderboard_path(options.folder, run.space.name), row)

        arena = Arena(store, options, progress, on_end)
        arena.run(todo)
        _confirm_references(arena, live)
        return [_result(run, store, options) for run in live]


def _plugins(options: Options) -> Plugins:
    return load_plugins(options.plugins, extra_must_load=True)


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


def _several(value: Any) -> Sequence[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _spaces(runs: Sequence[RunSettings], options: Options) -> list[TaskSpace]:
    """The space of each run; runs of one space share it, and a source is read once."""
    sources: dict[str, Source] = {}
    spaces: dict[tuple[Any, ...], TaskSpace] = {}
    for s in runs:
        if s.data not in sources:
            sources[s.data] = load_source(s.data, options.data_dir, options.download)
        key = (s.data, s.classes, s.n, s.ratio, s.space_seed, s.steps, s.lr, s.split)
        if key not in spaces:
            spaces[key] = TaskSpace(
                sources[s.data],
                n=s.n,
                ratio=s.ratio,
                seed=s.space_seed,
                classes=s.classes,
                steps=s.steps,
                lr=s.lr,
                split=s.split,
            )
    return [spaces[s.data, s.classes, s.n, s.ratio, s.space_seed, s.steps, s.lr, s.split] for s in runs]


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
    for (settings, space, record, attempt), reduction in zip(plans, reductions, strict=True):
        registration, _ = plugins.searcher(settings.searcher)
        if record is None:
            engine = default_engine(settings, options)
            store.add_space(space)
            record = store.begin(
                settings.key(space),
                attempt,
                space.identity,
                settings.recorded(),
                _version(registration, reduction),
                (engine.name, engine.device, engine.detail),
            )
        elif record.ended:
            engine = default_engine(settings, options)
        else:
            engine = _recorded_engine(record, options)
        recorded = [] if record.ended else store.asked(record.id, space.n)
        yield LiveRun(settings, space, engine, record, registration, reduction, deque(recorded))


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
    arguments = json.loads(json.dumps(settings.recorded()))
    same = [r for r in known if r.settings == arguments and r.space != space.identity and not r.ended]
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
    """Score the reference tasks of every space like everything else, once for each space and engine."""
    done: set[tuple[str, str, int]] = set()
    for run in runs:
        case = (run.space.identity, run.tag, run.settings.confirm)
        if case in done:
            continue
        done.add(case)
        for task in space_references(arena.store, run.space.identity):
            arena.confirm(run, task.labels[None], lambda: None)
    arena.run([])


def _result(run: LiveRun, store: Store, options: Options) -> Result:
    record = store.latest(run.record.key)
    assert record is not None and record.row is not None  # it has ended
    row = row_from_json(record.row)
    board = leaderboard_path(options.folder, run.space.name)
    append_row(board, row)  # a kill between the log and the leaderboard is mended here
    told = store.evaluations(record.id, run.space.n)[1][: run.settings.search_budget]
    recommended = store.recommended(record.id, run.space.n).get(1.0)
    references = reference_scores(store, run.space.identity, run.tag, run.settings.confirm)
    return Result(row, run.space, recommended, told, tuple(references), board, store.path, None)


def write_picture(result: Result, options: Options) -> Path | None:
    """Write the picture of what a run found; None where it found nothing. Raises UserError where it cannot."""
    from tdbench.report.pictures import write_run_picture

    if result.labels is None:
        return None
    row = result.row
    searcher = re.sub(r"[^A-Za-z0-9]+", "-", row.searcher).strip("-") or "searcher"
    path = options.folder / "pictures" / f"{result.space.name}-{searcher}-{row.run}.png"
    write_run_picture(
        path,
        result.space.pixels,
        result.labels,
        result.told,
        title=f"{row.searcher} on {row.data}, N = {row.n}, 1:{row.ratio}",
        told=row.told,
        confirmed=row.confirmed,
        confirmed_se=row.confirmed_se,
    )
    return path


def _threshold(result: Result, settings: RunSettings, options: Options) -> Estimate | None:
    if options.threshold is None or result.row.status != "ok":
        return None
    if options.threshold != AUTO_THRESHOLD:
        return Estimate(float(options.threshold), math.nan, math.nan, 0)
    from tdbench.leaderboard.threshold import task_threshold
    from tdbench.studies._lab import Lab

    with Lab(options, default_engine(settings, options)) as lab:
        return task_threshold(lab, settings)


@contextlib.contextmanager
def _locked(paths: Sequence[Path]) -> Iterator[None]:
    """Hold the locks of runs; another process with one of them is an error."""
    with contextlib.ExitStack() as stack:
        try:
            for path in dict.fromkeys(paths):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(path, timeout=0))
        except Timeout as error:
            raise UserError("another tdbench process is at this run; wait for it, or use another --out") from error
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise UserError(
                    f"{len(paths)} unfinished runs are more than the files this process may open; raise the limit "
                    "(ulimit -n), or run fewer at a time"
                ) from error
            raise UserError(f"{paths[0].parent} cannot be written: {error.strerror or error}") from error
        yield
