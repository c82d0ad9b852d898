"""`run`, `discover` and `bench` in Python, as the commands of these names: settings in, results out."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from tdbench.arena.campaign import default_engine, run_all
from tdbench.base.arguments import members, whole
from tdbench.base.errors import UserError, echo, nearest
from tdbench.base.files import write_bytes
from tdbench.base.stats import Estimate
from tdbench.keywords import BenchKeywords, DiscoverKeywords, RunKeywords
from tdbench.leaderboard.threshold import checked_threshold, task_threshold
from tdbench.report.folder import ResultsFolder
from tdbench.report.notebook import result_figure
from tdbench.report.pictures import figure_png
from tdbench.searchers.catalogue import find_plugins
from tdbench.searchers.reduction import IDENTITY
from tdbench.settings import DEFAULT_OUT, MOST, MOST_TASKS, ONE_LABELING, Options, RunSettings
from tdbench.space.sources import load_source
from tdbench.store.curves import RememberedTrainings
from tdbench.store.result import Result, picture_path

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


def _one_run(settings: dict[str, Any], threshold: float | str | None) -> Result:
    threshold = None if threshold is None else checked_threshold(threshold)
    run_settings, options = split_settings(settings)
    plugins = find_plugins(options.plugins, searchers=[run_settings.searcher], extra_must_load=True)
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
        settings: any other field of `RunSettings` and `Options` by name.

    Returns:
        One result for each run. A run that is finished already is not run again unless ``again=True``.

    Raises:
        UserError: settings that cannot be run, or interrupted runs without ``resume=True``.
        Stopped: as `run`; it stops all runs.
    """
    for one, several in (("searcher", "searchers"), ("reduction", "reductions"), ("seed", "seeds")):
        if one in settings:
            raise UserError(f"bench takes {several}, not {one}")
    if "threshold" in settings:
        raise UserError("bench takes no threshold, only run does")
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
    if any(run.reduction == IDENTITY for run in runs):
        runs = [run for run in runs if run.reduction == IDENTITY or plugins.searcher(run.searcher)[0].reducible]
    return run_all(list(dict.fromkeys(runs)), options, plugins)


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
    return RunSettings(**{**of_runs, "sealed": options.seal}), options  # users give the key file, results its seal


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
