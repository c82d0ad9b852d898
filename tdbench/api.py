"""What users call, as the commands do: `run` and `bench`. Settings in, results out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

from tdbench.arena.campaign import default_engine, run_all
from tdbench.base.errors import UserError, nearest
from tdbench.base.stats import Estimate
from tdbench.leaderboard.threshold import checked_threshold, task_threshold
from tdbench.report.pictures import write_run_picture
from tdbench.searchers.reduction import IDENTITY
from tdbench.searchers.registry import load_plugins
from tdbench.settings import Options, RunSettings
from tdbench.space.sources import load_source
from tdbench.store.curves import RememberedTrainings
from tdbench.store.result import Result, picture_path

RUN_FIELDS = tuple(field.name for field in dataclasses.fields(RunSettings))
OPTION_FIELDS = tuple(field.name for field in dataclasses.fields(Options))


def run(searcher: str = "twopointsde", *, threshold: float | str | None = None, **settings: Any) -> Result:
    """Run one searcher on one space, as `tdbench run` does.

    Args:
        searcher: its name, as `tdbench searchers` lists it.
        threshold: T_task, above which what was found counts as a task: a number from -1 to 1, or ``auto`` to calibrate
            it on random labelings of the run's setting; None does not say. It changes nothing else.
        settings: any field of `RunSettings` and `Options` by name.

    Raises:
        UserError: settings that cannot be run, an interrupted run without ``resume=True``, or a finished one
            without ``resume=True`` (returns its result) or ``again=True`` (runs it once more).
    """
    threshold = None if threshold is None else checked_threshold(threshold)
    run_settings, options = split_settings({"searcher": searcher, **settings})
    result = run_all(
        [run_settings], options, load_plugins(options.plugins, extra_must_load=True), finished_is_error=True
    )[0]
    result = replace(result, picture=write_picture(result, options))
    return replace(result, threshold=_t_task(threshold, result, run_settings, options))


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
    if "threshold" in settings:
        raise UserError("bench takes no threshold, only run does")
    base, options = split_settings(settings)
    all_seeds = range(int(seeds)) if isinstance(seeds, Integral) else seeds
    axes = [_several(axis) for axis in (data, n, ratio, space_seeds, searchers, reductions, all_seeds)]
    names = ("data", "n", "ratio", "space_seed", "searcher", "reduction", "seed")
    if any(len(axis) == 0 for axis in axes):
        raise UserError("bench needs at least one searcher, one seed, one space and one reduction")
    runs = [replace(base, **dict(zip(names, point, strict=True))) for point in itertools.product(*axes)]
    plugins = load_plugins(options.plugins, extra_must_load=True)
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


def write_picture(result: Result, options: Options) -> Path | None:
    """Write the picture of what a run found; None where it found nothing. Raises UserError where it cannot."""
    if result.labels is None:
        return None
    row = result.row
    path = picture_path(options.folder, result.space.name, row.searcher, row.run)
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


def _several(value: Any) -> Sequence[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
