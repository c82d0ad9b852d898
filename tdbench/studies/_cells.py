"""Cells: one class against others at a number of images N and a ratio 1:R, for the studies `ratio` and `positives`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.base.stats import Estimate
from tdbench.report.style import MARKERS, SERIES, ZERO
from tdbench.space.executor import study_request
from tdbench.space.sources import Source
from tdbench.studies._common import (
    TrainingSettings,
    choose_classes,
    class_size,
    draw_estimates,
    interval_words,
    label_axes,
    legend_below,
    one_against_rest,
    over_resampled_sets,
    over_sets,
    panels,
    setting,
    shown,
)
from tdbench.studies._lab import Lab

# Five other classes: so few that the smallest cell has each of them, so many that a sample can fill the largest cell.
CLASSES = ("frog", "ship", "horse", "deer", "airplane", "truck")


@dataclass(frozen=True)
class CellSettings(TrainingSettings):
    """Settings of the studies `ratio` and `positives`."""

    ratios: tuple[int, ...] = setting((1, 4, 9, 19, 39), "Negatives per positive.")
    classes: tuple[str, ...] | None = setting(
        None,
        "The positive class and the others, the same in every cell. By default six; frog is the first if it exists.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes("ratios", self.ratios)
        if self.classes is not None and (len(set(self.classes)) != len(self.classes) or len(self.classes) < 2):
            raise UserError(f"expected at least 2 different classes, got {', '.join(self.classes)}")

    def chosen_classes(self, source: Source) -> tuple[str, ...]:
        """The positive class, then the others. Raises UserError for a class that the source does not have."""
        if self.classes is None:
            wanted = min(len(CLASSES), len(np.unique(source.labels)))
            return tuple(choose_classes(source, wanted, CLASSES, self.seed))
        for name in self.classes:
            class_size(source, name)  # raises for an unknown class
        return self.classes


@dataclass(frozen=True, order=True)
class Cell:
    """N images: `positives` of class A, and `ratio` negatives for each of them."""

    n: int
    ratio: int

    @property
    def positives(self) -> int:
        return self.n // (self.ratio + 1)


@dataclass(frozen=True)
class Measured:
    """Results of cells, in the order of the request.

    Attributes:
        cells: those that were trained.
        taskness: (sets, cells) means over replicates.
        skipped: the other cells, each with the reason.
        classes: the positive class, then the others.
        source: name of the source.
    """

    cells: tuple[Cell, ...]
    taskness: NDArray[np.float64]
    skipped: Mapping[Cell, str]
    classes: tuple[str, ...]
    source: str

    def estimate(self, cell: Cell) -> Estimate:
        """Mean taskness of a cell, with its interval over sets."""
        return over_sets(self.taskness[:, self.cells.index(cell)])


@dataclass(frozen=True)
class Explained:
    """How well a least-squares fit on log2 P, on log2 R and on both explains the taskness of the cells.

    Attributes:
        by_positives, by_ratio, by_both: R^2, the share of the variance over cells that is explained.
        advantage: by_positives - by_ratio.
        positives_slope, ratio_slope: change of taskness when P or R doubles and the other is fixed, in the fit on both.
    """

    by_positives: Estimate
    by_ratio: Estimate
    by_both: Estimate
    advantage: Estimate
    positives_slope: Estimate
    ratio_slope: Estimate


def check_sizes(what: str, values: Sequence[int], least: int = 1) -> None:
    """Raises UserError if there are no values, equal values, or one below `least`."""
    if not values or min(values) < least or len(set(values)) < len(values):
        raise UserError(f"{what} must be different whole numbers from {least} up, got {', '.join(map(str, values))}")


def measure(cells: Sequence[Cell], settings: CellSettings, lab: Lab, skipped: Mapping[Cell, str]) -> Measured:
    """Train the class task of every cell that the source can fill, on every image set.

    The images of a class in a small cell are the first of those in a large one.

    Args:
        skipped: cells that are not trained, each with the reason.

    Raises:
        UserError: a class is unknown, or no cell is left.
    """
    source = lab.source(settings.data)
    classes = settings.chosen_classes(source)
    reasons = {cell: skipped.get(cell) or _unfillable(cell, source, classes) for cell in cells}
    filled = tuple(cell for cell in cells if not reasons[cell])
    if not filled:
        raise UserError(f"no cell can be measured: {'; '.join(dict.fromkeys(map(str, reasons.values())))}")
    requests = []
    for cell in filled:
        for seed in settings.set_seeds:
            image_set, labels = one_against_rest(
                source, classes[0], classes[1:], cell.positives, cell.n - cell.positives, seed, settings.protocol
            )
            requests.append(study_request(image_set, labels[None], seed, settings.replicates))
    scores = np.stack(lab.taskness(requests, "cells"))[:, 0].mean(axis=1)
    taskness = scores.reshape(len(filled), settings.sets).T
    return Measured(filled, taskness, {c: r for c, r in reasons.items() if r}, classes, source.name)


def explain(measured: Measured) -> Explained | None:
    """What explains taskness better, the number of positives or the ratio; None if the cells cannot show it.

    R^2 of least squares over the cells' means over sets; bootstrapped over sets.
    """
    log_p = np.log2([cell.positives for cell in measured.cells])
    log_r = np.log2([cell.ratio for cell in measured.cells])
    one = np.ones(len(log_p))
    both = np.stack([one, log_p, log_r], axis=1)
    if len(measured.cells) < 5 or np.linalg.matrix_rank(both) < 3:
        return None

    def r_squared(design: NDArray[np.float64], sets: NDArray[np.int64]) -> float:
        values = measured.taskness[sets].mean(axis=0)
        residuals = values - design @ np.linalg.lstsq(design, values)[0]
        variance = values.var()
        return float(1 - residuals.var() / variance) if variance > 0 else 0.0

    def slope(position: int, sets: NDArray[np.int64]) -> float:
        return float(np.linalg.lstsq(both, measured.taskness[sets].mean(axis=0))[0][position])

    sets = len(measured.taskness)
    p, r = both[:, :2], both[:, [0, 2]]
    return Explained(
        over_resampled_sets(sets, lambda s: r_squared(p, s)),
        over_resampled_sets(sets, lambda s: r_squared(r, s)),
        over_resampled_sets(sets, lambda s: r_squared(both, s)),
        over_resampled_sets(sets, lambda s: r_squared(p, s) - r_squared(r, s)),
        over_resampled_sets(sets, lambda s: slope(1, s)),
        over_resampled_sets(sets, lambda s: slope(2, s)),
    )


def cell_table(measured: Measured, explained: Explained | None) -> pd.DataFrame:
    """A row for each cell, with the reason if it was skipped, then a row for each number of the regression."""
    rows = [
        {"n": c.n, "ratio": c.ratio, "positives": c.positives, **_values("taskness", measured.estimate(c))}
        for c in measured.cells
    ]
    rows += [
        {"n": c.n, "ratio": c.ratio, "positives": c.positives, "quantity": "taskness", "skipped": reason}
        for c, reason in measured.skipped.items()
    ]
    if explained is not None:
        rows += [_values(quantity, estimate) for quantity, estimate in vars(explained).items()]
    columns = ["quantity", "n", "ratio", "positives", "value", "low", "high", "skipped"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("n", "ratio", "positives"), "Int64"))


def cell_figure(measured: Measured, over_ratio: tuple[str, str], over_positives: tuple[str, str]) -> Figure:
    """Taskness of all cells over the ratio, and in a second panel over the number of positives.

    Args:
        over_ratio, over_positives: the attribute that all cells of a line share, and the format of the line's name.
    """
    figure, grid = panels(1, 2, width=9.2, height=4.0, sharey=True)
    left, right = grid[0]
    title = f"{measured.classes[0]} against {len(measured.classes) - 1} other classes of {measured.source}"
    label_axes(left, "ratio (negatives per positive)", "taskness (0 noise, 1 perfect)", title)
    label_axes(right, "positives P (images)", "", "the same cells over the number of positives")
    _draw(left, measured, "ratio", "1:{}", *over_ratio)
    _draw(right, measured, "positives", "{}", *over_positives)
    return figure


def _draw(axes: Axes, measured: Measured, x: str, ticks: str, by: str, names: str) -> None:
    axes.set_xscale("log", base=2)
    axes.axhline(0, color=ZERO, linewidth=1)
    lines = sorted({getattr(cell, by) for cell in measured.cells})
    for i, value in enumerate(lines):
        cells = sorted((c for c in measured.cells if getattr(c, by) == value), key=lambda c: getattr(c, x))
        aside = 1.04 ** (i - (len(lines) - 1) / 2)  # moved aside, so that no interval hides another
        points = [measured.estimate(cell) for cell in cells]
        colour = SERIES[i % len(SERIES)]
        draw_estimates(axes, [getattr(c, x) * aside for c in cells], points, colour, names.format(value))
        axes.lines[-1].set_marker(MARKERS[i % len(MARKERS)])
    places = sorted({getattr(cell, x) for cell in measured.cells})
    axes.set_xticks(places, [ticks.format(place) for place in places])
    axes.minorticks_off()
    legend_below(axes)


def skipped_words(measured: Measured) -> str:
    """A sentence that lists the skipped cells by reason; empty if there are none."""
    if not measured.skipped:
        return ""
    cells: dict[str, list[str]] = {}
    for cell, reason in measured.skipped.items():
        cells.setdefault(reason, []).append(f"N = {cell.n} at 1:{cell.ratio}")
    parts = [f"{', '.join(which)} ({reason})" for reason, which in cells.items()]
    return f" Skipped: {'; '.join(parts)}."


def opening_words(measured: Measured, settings: CellSettings) -> str:
    """What was measured: classes, source, sizes and how the means were made."""
    estimates = [measured.estimate(cell) for cell in measured.cells]
    return (
        f"{measured.classes[0]} against {', '.join(measured.classes[1:])} of {measured.source}, {settings.sets} image "
        f"sets of {settings.replicates} replicates (mean over sets{interval_words(estimates)})"
    )


def explained_words(explained: Explained | None, cells: int) -> str:
    """One or two sentences: the results of the regression, and which of the two explains more."""
    if explained is None:
        return "These cells are too few, or too similar, to separate the number of positives from the ratio."
    e = explained
    return (
        f"Over {cells} cells, log P alone explains {_share(e.by_positives)} of the variance of taskness, log R alone "
        f"{_share(e.by_ratio)}, both {_share(e.by_both)} (R^2 of least squares; bootstrap over sets); with both, a "
        f"doubling of P changes taskness by {_signed(e.positives_slope)}, a doubling of R by {_signed(e.ratio_slope)}. "
        f"So {_better_words(e.advantage)}."
    )


def _better_words(advantage: Estimate) -> str:
    which = "the number of positives" if advantage.value > 0 else "the ratio"
    if not advantage.has_interval:
        return f"{which} explains more here, but without an interval it is open how certain that is"
    sure = advantage.low > 0 or advantage.high < 0
    return f"{which} explains more" if sure else f"{which} explains more here, but that may be chance"


def _unfillable(cell: Cell, source: Source, classes: Sequence[str]) -> str:
    """The reason why the source cannot fill a cell; empty if it can."""
    if cell.n % (cell.ratio + 1):
        return f"N is not divisible by {cell.ratio + 1}"
    if cell.positives < 2:
        return "fewer than 2 positives, so that training or validation has none"
    negatives, others = cell.n - cell.positives, len(classes) - 1
    if negatives < others:
        return f"fewer negatives than the {others} other classes"
    share, over = divmod(negatives, others)
    needed = {classes[0]: cell.positives, **{name: share + (i < over) for i, name in enumerate(classes[1:])}}
    for name, count in needed.items():
        if (held := class_size(source, name)) < count:
            return f"{source.name} has {held} images of {name}"
    return ""


def _values(quantity: str, estimate: Estimate) -> dict[str, object]:
    return {"quantity": quantity, "value": estimate.value, "low": estimate.low, "high": estimate.high, "skipped": ""}


def _share(estimate: Estimate) -> str:
    hundredfold = Estimate(100 * estimate.value, 100 * estimate.low, 100 * estimate.high, estimate.n)
    return f"{shown(hundredfold, 0)} %"


def _signed(estimate: Estimate) -> str:
    interval = f" [{estimate.low:+.3f}, {estimate.high:+.3f}]" if estimate.has_interval else ""
    return f"{estimate.value:+.3f}{interval}"
