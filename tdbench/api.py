"""`run`, `discover`, `bench` and `transfer` in Python, as the commands of these names: settings in, results out."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from tdbench.arena.campaign import default_engine, run_all
from tdbench.arena.in_process import Trial, registration_of, run_here
from tdbench.arena.shards import Shard
from tdbench.base.arguments import members, path_text, truth, whole
from tdbench.base.errors import UserError, echo, nearest, setting
from tdbench.base.files import write_bytes
from tdbench.base.stats import Estimate
from tdbench.cluster import chosen_engine, open_clusters
from tdbench.keywords import BenchKeywords, DiscoverKeywords, RunKeywords
from tdbench.leaderboard.threshold import checked_threshold, task_threshold
from tdbench.report.folder import ResultsFolder
from tdbench.report.notebook import result_figure
from tdbench.report.pictures import figure_png
from tdbench.searchers.catalogue import find_plugins
from tdbench.searchers.loading import load_plugins
from tdbench.searchers.reduction import IDENTITY
from tdbench.searchers.registry import Plugins
from tdbench.searchers.searcher import Problem
from tdbench.settings import DEFAULT_BATCH, DEFAULT_OUT, MOST, MOST_TASKS, ONE_LABELING, Options, RunSettings
from tdbench.space.settings import SpaceSettings
from tdbench.space.sources import load_source
from tdbench.space.task_space import TaskSpace
from tdbench.store.curves import RememberedTrainings
from tdbench.store.labelings_file import fingerprint, read_start
from tdbench.store.library import TaskLibrary
from tdbench.store.result import Result, picture_path
from tdbench.transfers.experiment import CLASSES, load_targets, transfer_between
from tdbench.transfers.result import TransferResult
from tdbench.transfers.settings import TransferSettings

RUN_FIELDS = tuple(field.name for field in dataclasses.fields(RunSettings))
OPTION_FIELDS = tuple(field.name for field in dataclasses.fields(Options))


def run(
    searcher: str = "twopointsde", *, threshold: float | str | None = None, **settings: Unpack[RunKeywords]
) -> Result:
    """Run one searcher on one space, as `tdbench run` does.

    >>> import tempfile
    >>> small = {"n": 10, "steps": 5, "budget": 8, "batch": 4, "confirm": 2}
    >>> result = run("random", **small, out=tempfile.mkdtemp())
    >>> result.row.status, result.row.evaluations
    ('ok', 8)
    >>> result.labels.shape, int(result.labels.sum())  # the labeling that was found: 2 positives of 10 images
    ((10,), 2)

    The same settings give the result that is there, without searching again: a cell of a notebook may be run twice.

    Args:
        searcher: its name, as `tdbench searchers` lists it.
        threshold: T_task; the labeling that was found counts as a task if its confirmed taskness is above it. A number
            from -1 to 1, ``auto`` to calibrate it on random labelings of the run's setting, or None to leave it out.
            It changes nothing else in the result.
        settings: any field of `RunSettings` and `Options` by name. ``again=True`` runs a finished run once more.

    Raises:
        UserError: settings that cannot be run; or an earlier run of the same settings that was interrupted, without
            ``resume=True``.
        Stopped: `on_batch` returned False, or `max_seconds` are over. What was evaluated is kept; the same call with
            ``resume=True`` goes on, to the same result.
    """
    if not isinstance(searcher, str) and callable(searcher):
        raise UserError(
            "run takes a searcher's name; tdbench.run_in_process takes a class, and tdbench.write_plugin writes it to "
            "a file for plugins=[...]"
        )
    if settings.get("tasks"):
        raise UserError("run recommends one labeling; discover finds several tasks")
    return _one_run({"searcher": searcher, **settings}, threshold)


def discover(
    searcher: str = "twopointsde",
    tasks: int = 16,
    *,
    threshold: float | str | None = None,
    **settings: Unpack[DiscoverKeywords],
) -> Result:
    """Search one space for several labelings, different from each other, as `tdbench discover` does.

    >>> import tempfile
    >>> small = {"n": 10, "steps": 5, "budget": 16, "batch": 4, "confirm": 2}
    >>> result = discover("random", tasks=3, max_similarity=0.5, **small, out=tempfile.mkdtemp())
    >>> result.library.labels.shape  # 3 labelings of 10 images
    (3, 10)
    >>> result.row.confirmed == result.library.confirmed_qd  # (1/3) of the sum of those above 0
    True

    Args:
        searcher: its name, as `tdbench searchers` lists it.
        tasks: how many labelings to find (K).
        threshold: T_task, as for `run`; it says how many of the labelings count as tasks.
        settings: any field of `RunSettings` and `Options` by name, such as ``max_similarity`` and
            ``protocol="rounds"``.

    Returns:
        A result whose `library` has the labelings; its row's ``told`` and ``confirmed`` are told and confirmed QD.

    Raises:
        UserError, Stopped: as `run`.
    """
    return _one_run({"searcher": searcher, "tasks": whole("tasks", tasks, 1, MOST_TASKS), **settings}, threshold)


def run_in_process(searcher: str | Callable[[Problem], Any] = "twopointsde", **settings: Any) -> Trial:
    """Run one searcher in this process, for debugging: breakpoints, prints and tracebacks work; nothing is written.

    >>> import numpy as np
    >>> class Uniform:
    ...     def __init__(self, problem):
    ...         self.dim, self.rng = problem.dim, np.random.default_rng(problem.seed)
    ...     def ask(self, n):
    ...         return self.rng.random((n, self.dim))
    ...     def tell(self, scores, loss):
    ...         pass
    >>> trial = run_in_process(Uniform, n=10, steps=5, budget=8, batch=4, confirm=2)
    >>> trial.told.shape, trial.labels.shape, trial.confirmed.shape
    ((8,), (10,), (2,))

    Args:
        searcher: a name, or a class or factory, as defined in a notebook.
        settings: any field of `RunSettings` and `Options` by name, and for a class ``sees_images=True``.

    Raises:
        UserError: settings that cannot be run, or an answer of the searcher that is not what it was asked for.
        Exception: whatever the searcher raises.
    """
    sees_images = truth("sees_images", settings.pop("sees_images", False))
    given = None if isinstance(searcher, str) else registration_of(searcher, sees_images=sees_images)
    name = searcher if isinstance(searcher, str) else registration_of(searcher).name
    run, options = split_settings({"searcher": name, **settings})
    if run.tasks:
        raise UserError("a run in this process recommends one labeling; it takes no tasks")
    plugins = load_plugins(options.plugins, extra_must_load=True)
    registration, variant = plugins.searcher(name) if given is None else (given, None)
    if run.start and not registration.takes_start:
        raise UserError(f"searcher {name!r} does not begin from given labelings; run it without start")
    if settings.get("batch") is None:
        run = replace(run, batch=preferred_batch(run, registration.batch))
    source = load_source(run.data, options.data_dir, options.download)
    space = TaskSpace.of(run, source, default_engine(run, options))
    start = None if options.start is None else read_start(Path(options.start), space.n, space.n_positives)
    return run_here(run, options, space, registration, variant, start)


def _one_run(settings: dict[str, Any], threshold: float | str | None) -> Result:
    threshold = None if threshold is None else checked_threshold(threshold)
    run_settings, options = split_settings(settings)
    plugins = find_plugins(options.plugins, searchers=[run_settings.searcher], extra_must_load=True)
    [run_settings] = _with_batches([run_settings], settings.get("batch"), plugins)
    with open_clusters():
        result = run_all([run_settings], options, plugins, one_run=True)[0]
        result = replace(result, picture=write_picture(result, options))
        return replace(result, threshold=_t_task(threshold, result, run_settings, options))


def bench(
    searchers: str | Sequence[str],
    seeds: int | Sequence[int] = 10,
    space_seeds: int | Sequence[int] = (0,),
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "digits",
    n: int | Sequence[int] = 50,
    ratio: int | Sequence[int] = 4,
    reductions: str | Sequence[str] = IDENTITY,
    tasks: int | Sequence[int] = 0,
    shard: str | None = None,
    **settings: Unpack[BenchKeywords],
) -> list[Result]:
    """Run every searcher with every reduction on every space with every seed, in lockstep, as `tdbench bench` does.

    >>> import tempfile
    >>> small = {"n": 10, "steps": 5, "budget": 8, "batch": 4, "confirm": 2}
    >>> results = bench(["random", "umda"], seeds=2, **small, out=tempfile.mkdtemp())
    >>> [(result.row.searcher, result.row.seed) for result in results]
    [('random', 0), ('random', 1), ('umda', 0), ('umda', 1)]

    Args:
        searchers: names.
        seeds: run seeds, or a number of them (0, 1, ...).
        space_seeds, data, n, ratio: one or several values each; the spaces are all combinations.
        reductions: names. With ``identity`` among them, a searcher that can use no reduction runs with that one only.
        tasks: labelings to discover in a run, one or several numbers; 0 is an ordinary run, which recommends one.
        shard: ``3/16`` runs the third sixteenth of the runs alone; `tdbench.merge` joins the folders of the shards.
        settings: any other field of `RunSettings` and `Options` by name.

    Returns:
        One result for each run of the campaign, or of the shard, which may be empty. A run that is finished already is
        not run again unless ``again=True``.

    Raises:
        UserError: settings that cannot be run, or interrupted runs without ``resume=True``.
        Stopped: as `run`; it stops all runs.
    """
    for one, several in (("searcher", "searchers"), ("reduction", "reductions"), ("seed", "seeds")):
        if one in settings:
            raise UserError(f"bench takes {several}, not {one}")
    if "threshold" in settings:
        raise UserError("bench takes no threshold, only run does")
    part = None if shard is None else Shard.parse(shard)
    many = isinstance(seeds, Iterable)
    axes = {
        "data": _several("data", data),
        "n": _several("n", n),
        "ratio": _several("ratio", ratio),
        "space_seed": _several("space_seeds", space_seeds),
        "searcher": _several("searchers", searchers),
        "reduction": _several("reductions", reductions),
        "tasks": _several("tasks", tasks),
        "seed": _several("seeds", seeds) if many else range(whole("seeds", seeds, most=MOST)),
    }
    if any(len(axis) == 0 for axis in axes.values()):
        raise UserError("bench needs at least one searcher, one seed, one space and one reduction")
    most_tasks = max(whole("tasks", number, 0, MOST_TASKS) for number in axes["tasks"])
    first = {name: axis[0] for name, axis in axes.items()}
    base, options = split_settings({**settings, **first, "tasks": most_tasks})
    if math.prod(map(len, axes.values())) > MOST:
        raise UserError(f"bench can have at most {MOST} runs, got {math.prod(map(len, axes.values()))}")
    points = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    runs = [replace(base, **point, **({} if point["tasks"] else ONE_LABELING)) for point in points]
    plugins = find_plugins(options.plugins, searchers=[run.searcher for run in runs], extra_must_load=True)
    runs = _with_batches(runs, settings.get("batch"), plugins)
    if any(run.reduction == IDENTITY for run in runs):
        runs = [run for run in runs if run.reduction == IDENTITY or plugins.searcher(run.searcher)[0].reducible]
    return run_all(list(dict.fromkeys(runs)), options, plugins, shard=part)


def transfer(
    library: TaskLibrary | str | os.PathLike[str] | None = None,
    targets: TaskLibrary | str | os.PathLike[str] = CLASSES,
    *,
    data: str | os.PathLike[str] | None = None,
    engine: str = "auto",
    device: str = "auto",
    **settings: Any,
) -> TransferResult:
    """Measure what training on found tasks, and on controls, adds to other tasks, as `tdbench transfer` does.

    >>> import tempfile
    >>> small = {"n": 10, "steps": 5, "target_n": 10, "sets": 1, "replicates": 2, "controls": 1, "shots": ()}
    >>> result = transfer(modes="fine-tune", **small, out=tempfile.mkdtemp())
    >>> [gain.kind for gain in result.gains]
    ['class', 'pixel', 'random', 'own class', 'scaled']

    Args:
        library: found tasks, or their file; without one, the sources are the controls of an image set.
        targets: ``classes``, for class tasks of new image sets, or a library whose tasks are the targets, or its file.
        data: where the images are; of a library, only needed if they came from an `.npz`.
        engine, device: see `tdbench.engine.make_engine`; with `cluster`, those of its workers.
        settings: any field of `TransferSettings` and `Options` by name and, without a library, of `SpaceSettings`.

    Returns:
        A `tdbench.transfers.result.TransferResult`. What was trained is remembered in the folder `out`.

    Raises:
        UserError: what cannot be measured, such as sets that share images.
    """
    found = library if library is None or isinstance(library, TaskLibrary) else TaskLibrary.load(library)
    wanted = load_targets(targets)
    where = None if data is None else path_text("data", data)
    given = {kind: _fields_of(kind, settings) for kind in (TransferSettings, Options, SpaceSettings)}
    known = {name for kind in given for name in _field_names(kind)}
    if unknown := [name for name in settings if name not in known]:
        raise UserError(f"unknown setting {echo(unknown[0])}{nearest(unknown[0], known)}")
    if found is not None and given[SpaceSettings]:
        name = next(iter(given[SpaceSettings]))
        raise UserError(
            f"the library has its own {setting(name)}; {setting(name)} is for an image set without a library"
        )
    options, chosen = Options(**given[Options]), TransferSettings(**given[TransferSettings])
    named: dict[str, Any] = {} if where is None or found is not None else {"data": where}
    space = SpaceSettings(**given[SpaceSettings], **named)
    with open_clusters(say=options.progress), contextlib.ExitStack() as stack:
        trainings = RememberedTrainings(
            options.folder,
            chosen_engine(engine, device, options.threads, options.cluster),
            progress=options.progress,
        )
        stack.callback(trainings.close)
        return transfer_between(
            found,
            wanted,
            chosen,
            trainings,
            space=space,
            data=where,
            data_dir=None if options.data_dir is None else str(options.data_dir),
            download=options.download,
            say=lambda line: print(line, file=sys.stderr) if options.progress else None,
        )


def _field_names(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _fields_of(kind: type[Any], settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in _field_names(kind) if name in settings}


def load(folder: str | os.PathLike[str] = DEFAULT_OUT) -> ResultsFolder:
    """The results in an output folder, or in a folder of leaderboards: runs, leaderboard and evaluations as DataFrames.

    Raises:
        UserError: there is no such folder.
    """
    return ResultsFolder(folder)


def split_settings(settings: dict[str, Any]) -> tuple[RunSettings, Options]:
    """Settings by name, divided between the two dataclasses. Raises UserError for a name that neither has."""
    for name in settings:
        if name not in RUN_FIELDS and name not in OPTION_FIELDS:
            raise UserError(f"unknown setting {echo(name)}{nearest(name, (*RUN_FIELDS, *OPTION_FIELDS))}")
    options = Options(**{name: v for name, v in settings.items() if name in OPTION_FIELDS})
    of_runs = {name: v for name, v in settings.items() if name in RUN_FIELDS}
    if of_runs.get("batch") is None:
        of_runs["batch"] = 1  # until the searcher is known: `_with_batches`
    of_runs.update(sealed=options.seal, start="")  # users give files, results a seal and a fingerprint
    run = RunSettings(**of_runs)
    if options.start is not None:
        run = replace(run, start=fingerprint(read_start(Path(options.start), run.n, run.n // (run.ratio + 1))))
    return run, options


def _with_batches(runs: Sequence[RunSettings], given: object, plugins: Plugins) -> list[RunSettings]:
    """The runs with the batch that was given, or else with the one that their searcher prefers."""
    if given is not None:
        return list(runs)
    preferred = {run.searcher: plugins.searcher(run.searcher)[0].batch for run in runs}
    return [replace(run, batch=preferred_batch(run, preferred[run.searcher])) for run in runs]


def preferred_batch(run: RunSettings, preferred: int | None) -> int:
    """The batch of a run whose user gave none: never more than its search may evaluate."""
    return min(DEFAULT_BATCH if preferred is None else preferred, run.search_budget)


def write_picture(result: Result, options: Options) -> Path | None:
    """Write the picture of what a run found; None if it found nothing. Raises UserError if it cannot be written."""
    if result.labels is None:
        return None
    path = picture_path(options.folder, result.space.name, result.row.searcher, result.row.run)
    write_bytes(path, figure_png(result_figure(result)))
    return path


def _t_task(threshold: float | str | None, result: Result, settings: RunSettings, options: Options) -> Estimate | None:
    if threshold is None or result.row.status != "ok":
        return None
    if not isinstance(threshold, str):
        return Estimate(threshold, math.nan, math.nan, 0)
    source = load_source(settings.data, options.data_dir, options.download)
    trainings = RememberedTrainings(options.folder, default_engine(settings, options), options.progress)
    try:
        return task_threshold(trainings, source, settings, settings.confirm)
    finally:
        trainings.close()


def _several(name: str, value: Any) -> Sequence[Any]:
    alone = isinstance(value, str | bytes | os.PathLike) or not isinstance(value, Iterable)
    return [value] if alone else members(name, value, MOST)
