"""Discovery: how many different tasks there are on a set of images, and whether the classes are among them.

Runs of `tdbench bench --tasks` with --out OUT/discovery: finished runs are read, interrupted ones continue. The first
searcher is run at every similarity, the others at the first one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tdbench.arena.campaign import run_all
from tdbench.base.errors import UserError
from tdbench.base.stats import Estimate, mean_interval
from tdbench.report.style import PALE_INK, SERIES, ZERO
from tdbench.settings import RunSettings
from tdbench.space.references import ReferenceTask
from tdbench.space.settings import check_seed
from tdbench.space.similarity import Dissimilar
from tdbench.store.library import TaskLibrary
from tdbench.store.result import Result
from tdbench.store.worth import Recall, hit_by_chance, recall
from tdbench.studies._common import draw_estimates, label_axes, panels, setting, shown
from tdbench.studies._lab import Findings, Lab

FOLDER = "discovery"
CLEAR = 0.5  # confirmed taskness of a clear task
QUICK = {
    "searchers": "hunch,random",
    "sets": 2,
    "n": 20,
    "tasks": 4,
    "budget": 96,
    "steps": 20,
    "confirm": 4,
    "similarities": "0.25,0.375",
}


@dataclass(frozen=True)
class Settings:
    """Raises UserError for settings that no run can have."""

    data: str = setting("digits", "digits, cifar10, cifar100 or the path of an .npz.")
    searchers: str = setting("hunch,ntk-loo,umda,random", "Separated by commas; the first one at all similarities.")
    sets: int = setting(5, "Image sets, drawn independently. Intervals are over sets.")
    seed: int = setting(0, "Seed of the first image set; the others follow. The run seed is 0.")
    n: int = setting(50, "Images in a set, divisible by ratio + 1.")
    ratio: int = setting(4, "Negatives per positive.")
    tasks: int = setting(16, "Labelings that a run looks for.")
    similarities: str = setting("0.25,0,0.125,0.375", "How alike they may be, separated by commas.")
    budget: int = setting(1000, "Evaluations in a run.")
    batch: int = setting(32, "Labelings that a searcher is asked for at a time.")
    confirm: int = setting(32, "Fresh replicates that score each labeling.")
    steps: int = setting(100, "Adam steps of a training.")
    lr: float = setting(1e-3, "Adam's learning rate.")

    def __post_init__(self) -> None:
        if self.sets < 1:
            raise UserError(f"sets must be at least 1, got {self.sets}")
        if not self.names:
            raise UserError("searchers must be names separated by commas")
        check_seed("seed + sets - 1", self.seed + self.sets - 1)
        self.run_settings("auto", "auto")

    @property
    def names(self) -> list[str]:
        return [name.strip() for name in self.searchers.split(",") if name.strip()]

    @property
    def positives(self) -> int:
        """P."""
        return self.n // (self.ratio + 1)

    @property
    def limits(self) -> list[float]:
        """The similarities. Raises UserError for what is no number."""
        try:
            return [float(part) for part in self.similarities.split(",")]
        except ValueError:
            raise UserError(f"similarities must be numbers separated by commas, got {self.similarities!r}") from None

    def run_settings(self, engine: str, device: str) -> list[RunSettings]:
        """The settings of the runs, as `tdbench bench` would make them."""
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("data", "n", "ratio", "tasks", "budget", "batch", "confirm", "steps", "lr")
        }
        cases = [(name, self.limits[0]) for name in self.names] + [(self.names[0], s) for s in self.limits[1:]]
        return [
            RunSettings(
                **given, searcher=name, max_similarity=similarity, space_seed=seed, engine=engine, device=device
            )
            for name, similarity in cases
            for seed in range(self.seed, self.seed + self.sets)
        ]


def study(settings: Settings, lab: Lab) -> Findings:
    """Run what is not finished, in lockstep, and count the tasks that were found."""
    results = run_all(settings.run_settings(*lab.engine_words), lab.run_options(FOLDER), lab.plugins())
    failed = [result for result in results if result.library is None]
    if len(failed) == len(results):
        raise UserError(f"no run ended well; the first: {failed[0].row.error}")
    table = pd.DataFrame([row for result in results for row in _rows(result)])
    return Findings(table, _figure(settings, results), _paragraph(settings, results, len(failed)))


def _rows(result: Result) -> Iterator[dict[str, Any]]:
    """A row for each labeling of the run's library, the best confirmed first."""
    library = result.library
    if library is None:
        return
    for k in range(1, len(library) + 1):
        found = _class_recall(library, k)
        yield {
            "space_seed": result.row.space_seed,
            "space": result.row.space,
            "searcher": result.row.searcher,
            "max_similarity": result.row.max_similarity,
            "k": k,
            "confirmed": library.confirmed[k - 1],
            "confirmed_se": library.confirmed_se[k - 1],
            "told": library.told[k - 1],
            "classes_found": found.recalled,
            "classes": len(found.names),
            "classes_by_chance": found.expected,
            "confirmed_qd": result.row.confirmed,
            "told_qd": result.row.told,
        }


def _classes(library: TaskLibrary) -> list[ReferenceTask]:
    return [task for task in library.references if task.kind == "class"]


def _class_recall(library: TaskLibrary, k: int) -> Recall:
    """Which class tasks the k best labelings have found again."""
    return recall(library.labels[:k], _classes(library))


def _of(results: Sequence[Result], searcher: str, similarity: float) -> list[TaskLibrary]:
    return [
        result.library
        for result in results
        if result.library is not None and (result.row.searcher, result.row.max_similarity) == (searcher, similarity)
    ]


def _over_sets(values: Sequence[float]) -> Estimate:
    return mean_interval(np.array(values, dtype=np.float64))


def _clear(libraries: Sequence[TaskLibrary]) -> list[float]:
    return [float((library.confirmed >= CLEAR).sum()) for library in libraries]


def _figure(settings: Settings, results: Sequence[Result]) -> Figure:
    figure, grid = panels(1, 3, width=11.0, height=3.7)
    by_rank, classes, counts = grid[0]
    first = settings.limits[0]
    ks = list(range(1, settings.tasks + 1))
    label_axes(by_rank, "k", "confirmed taskness of the k-th best", f"similarity at most {first:g}")
    label_axes(classes, "k best labelings", "class tasks found again")
    for i, name in enumerate(settings.names):
        libraries = _of(results, name, first)
        if not libraries:
            continue
        colour = SERIES[i % len(SERIES)]
        points = [_over_sets(column.tolist()) for column in np.stack([library.by_rank for library in libraries]).T]
        draw_estimates(by_rank, ks, points, colour, name)
        found = [_over_sets([_class_recall(library, k).recalled for library in libraries]) for k in ks]
        draw_estimates(classes, ks, found, colour, name)
    for axes in (by_rank, classes):
        axes.xaxis.get_major_locator().set_params(integer=True)
    by_rank.axhline(0, color=ZERO, linewidth=0.8)
    by_rank.legend(fontsize=8, frameon=False)
    chance = [len(_known_classes(results)) * hit_by_chance(settings.n, settings.positives, k) for k in ks]
    classes.plot(ks, chance, color=PALE_INK, linestyle="--", linewidth=1, label="chance")
    classes.legend(fontsize=8, frameon=False)
    _draw_counts(counts, settings, results)
    return figure


def _known_classes(results: Sequence[Result]) -> list[ReferenceTask]:
    return next(_classes(result.library) for result in results if result.library is not None)


def _draw_counts(axes: Axes, settings: Settings, results: Sequence[Result]) -> None:
    name, limits = settings.names[0], sorted(settings.limits)
    label_axes(axes, "similarity at most", f"labelings of at least {CLEAR:g}", name)
    kept = [(limit, _of(results, name, limit)) for limit in limits]
    points = [(limit, _over_sets(_clear(libraries))) for limit, libraries in kept if libraries]
    draw_estimates(axes, [limit for limit, _ in points], [p for _, p in points], SERIES[0], name)
    axes.axhline(settings.tasks, color=PALE_INK, linestyle="--", linewidth=1)
    axes.annotate("wanted", (1, settings.tasks), xycoords=axes.get_yaxis_transform(), xytext=(-2, 2),
                  textcoords="offset points", ha="right", fontsize=7.5, color=PALE_INK)  # fmt: skip
    axes.set_xticks(limits)
    axes.set_ylim(0, settings.tasks * 1.12)


def _paragraph(settings: Settings, results: Sequence[Result], failed: int) -> str:
    first = settings.limits[0]
    source = results[0].space.source
    parts = []
    for name in settings.names:
        libraries = _of(results, name, first)
        if libraries:
            quality = _over_sets([library.confirmed_qd for library in libraries])
            found = _over_sets([_class_recall(library, len(library)).recalled for library in libraries])
            parts.append(
                f"{name}: confirmed QD {shown(quality)}, {shown(_over_sets(_clear(libraries)), 1)} of {settings.tasks} "
                f"labelings of at least {CLEAR:g}, {shown(found, 1)} class tasks found again"
            )
    counts = [
        f"{shown(_over_sets(_clear(libraries)), 1)} at {limit:g} (at most {_ceiling(settings, limit)} can exist)"
        for limit in sorted(settings.limits)
        if (libraries := _of(results, settings.names[0], limit))
    ]
    classes = len(_known_classes(results))
    chance = classes * hit_by_chance(settings.n, settings.positives, settings.tasks)
    return (
        f"{settings.tasks} labelings with {settings.budget} evaluations on each of {settings.sets} image sets of "
        f"{source} (N = {settings.n}, 1:{settings.ratio}), each confirmed on {settings.confirm} replicates; means over "
        f"sets with 95 % intervals where there are at least 4. At a similarity of at most {first:g}: "
        f"{'; '.join(parts)}. Of {classes} class tasks, chance would hit {chance:.2f}. {settings.names[0]} found "
        f"labelings of at least {CLEAR:g} by similarity: {'; '.join(counts)}."
        + (f" {failed} of {len(results)} runs failed and are left out." if failed else "")
    )


def _ceiling(settings: Settings, limit: float) -> str:
    most = Dissimilar(settings.n, settings.positives, limit).most_labelings
    return f"{most:,}" if np.isfinite(most) else "very many"
