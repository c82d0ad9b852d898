"""Figures of task libraries: each labeling, how alike they are, what they are worth by rank and over evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tdbench.report.charts import Chart, Group, empty_chart, end_labels, set_limits
from tdbench.report.pictures import MOST_IN_STRIP, montage, new_figure, one_line
from tdbench.report.style import CONFIRMED_COLOUR, INK, MARKERS, PALE_INK, SERIES, TOLD_COLOUR, ZERO
from tdbench.store.library import TaskLibrary
from tdbench.store.log import Told
from tdbench.store.worth import confirmed_interval, quality

Pixels = NDArray[np.uint8]
_CURVE_POINTS = 24  # evaluations at which QD is taken


def tasks_figure(library: TaskLibrary, pixels: Pixels, title: str) -> Figure:
    """A row for each labeling, the best confirmed first: its positives, and confirmed taskness with its 95 % interval.

    Args:
        pixels: (N, 32, 32, 3) of the space.
    """
    shown = min(MOST_IN_STRIP, library.positives)
    cell, head, scale, margin = 0.42, 0.55, 2.2, 0.15
    width = 2 * margin + shown * cell + 0.5 + scale
    rows = max(1, len(library))
    height = head + rows * (cell + 0.06) + 0.5
    figure = new_figure(width, height)
    figure.text(margin / width, 1 - 0.1 / height, one_line(title), fontsize=10.5, weight="bold", color=INK, va="top",
                parse_math=False)  # fmt: skip
    figure.text(margin / width, 1 - 0.34 / height, _worth(library), fontsize=8.5, color=INK, va="top")
    for i, labels in enumerate(library.labels):
        bottom = height - head - (i + 1) * (cell + 0.06) + 0.03
        axes = figure.add_axes((margin / width, bottom / height, shown * cell / width, cell / height))
        axes.imshow(montage(pixels[labels.astype(bool)][:shown], shown, 1), interpolation="nearest", aspect="auto")
        axes.set_axis_off()
    axes = figure.add_axes(
        ((margin + shown * cell + 0.45) / width, 0.5 / height, scale / width, rows * (cell + 0.06) / height)
    )
    _draw_intervals(axes, library)
    return figure


def similarity_chart(library: TaskLibrary, width: float = 4.4) -> Chart:
    """How alike the labelings are, in an order in which alike ones are neighbours (average linkage)."""
    similarity = library.similarity()
    order = _clustered(similarity)
    figure, axes = empty_chart(width, width, top=0.45, left=0.5)
    chart = Chart(figure, f"Similarity of {len(library)} labelings, ordered by clustering.")
    limit = max(0.25, float(np.abs(similarity[~np.eye(len(similarity), dtype=bool)]).max(initial=0.0)))
    shown = np.where(np.eye(len(order), dtype=bool), np.nan, similarity[np.ix_(order, order)])
    image = axes.imshow(shown, cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_xticks(range(len(order)), [str(i + 1) for i in order], fontsize=7)
    axes.set_yticks(range(len(order)), [str(i + 1) for i in order], fontsize=7)
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlabel("labeling, by its rank of confirmed taskness", color=INK, fontsize=9)
    bar = figure.colorbar(image, ax=axes, location="top", fraction=0.05, pad=0.03)
    bar.set_label("similarity (0 chance, 1 the same)", color=INK, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return chart


def confirmed_by_rank(groups: Sequence[Group], libraries: dict[str, list[TaskLibrary]], width: float = 6.6) -> Chart:
    """Confirmed taskness of the k-th best labeling over k, a line for each searcher: the mean over its libraries."""
    figure, axes = empty_chart(width, 3.6, top=0.2, right=1.45)
    names = [group.searcher for group in groups if libraries.get(group.searcher)]
    chart = Chart(figure, f"Confirmed taskness of the k-th best labeling of {', '.join(names)}.")
    values: list[float] = []
    ends = []
    for group in groups:
        found = libraries.get(group.searcher, [])
        if not found:
            continue
        places = np.stack([library.by_rank for library in found])
        mean = places.mean(axis=0)
        colour, marker = SERIES[group.colour % len(SERIES)], MARKERS[group.colour // len(SERIES) % len(MARKERS)]
        x = np.arange(1, len(mean) + 1)
        for row in places if len(places) > 1 else ():
            axes.plot(x, row, color=colour, linewidth=0.7, alpha=0.35)
        line = axes.plot(x, mean, color=colour, linewidth=1.8, marker=marker, markersize=4)
        chart.tip(line[0], group.searcher)
        values += mean.tolist()
        ends.append((float(mean[-1]), one_line(group.searcher, 18), colour))
    set_limits(axes.set_ylim, values, 0.0)
    end_labels(axes, ends)
    axes.axhline(0, color=ZERO, linewidth=0.8, zorder=1)
    axes.set_xlabel("k", color=INK, fontsize=9)
    axes.set_ylabel("confirmed taskness of the k-th best", color=INK, fontsize=9)
    return chart


def quality_over_evaluations(
    library: TaskLibrary, labels: Pixels, told: NDArray[np.float64], title: str, width: float = 6.6
) -> Chart:
    """Told QD of the best library so far, and confirmed QD of those labelings of the final one that were evaluated.

    Args:
        labels, told: (n, N) labelings in the order in which they were evaluated, and their (n,) told taskness.
    """
    at = np.unique(np.geomspace(1, max(1, len(told)), _CURVE_POINTS).round().astype(int))[: max(1, len(told))]
    first = [_first_evaluated(labels, own) for own in library.labels]
    by_told = [_told_quality(library, labels[:n], told[:n]) for n in at]
    confirmed = [
        quality([c for c, seen in zip(library.confirmed, first, strict=True) if seen < n], library.tasks) for n in at
    ]
    figure, axes = empty_chart(width, 3.3, top=0.45)
    chart = Chart(figure, f"Told and confirmed QD over evaluations of {title}.")
    axes.text(0, 1.05, one_line(title, 60), fontsize=9.5, color=INK, weight="bold", parse_math=False,
              transform=axes.transAxes)  # fmt: skip
    axes.plot(at, by_told, color=TOLD_COLOUR, linewidth=1.8, marker="o", markersize=3, label="told QD, best so far")
    axes.plot(at, confirmed, color=CONFIRMED_COLOUR, linewidth=1.8, marker="s", markersize=3, drawstyle="steps-post",
              label="confirmed QD of the final labelings evaluated so far")  # fmt: skip
    axes.axhline(library.confirmed_qd, color=CONFIRMED_COLOUR, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    set_limits(axes.set_ylim, [*by_told, *confirmed, library.confirmed_qd], 0.0)
    axes.set_xlabel("evaluations", color=INK, fontsize=9)
    axes.set_ylabel("QD", color=INK, fontsize=9)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK, loc="upper left")
    return chart


def recall_chart(library: TaskLibrary, width: float = 6.6) -> Chart:
    """Positives that each labeling shares with each reference task; a frame marks tasks that were found again."""
    recall = library.recall()
    labels = library.labels.astype(np.int64)
    shared = np.stack([labels @ task.labels.astype(np.int64) for task in library.references])
    figure, axes = empty_chart(width, 0.9 + 0.22 * len(shared), top=0.25, left=1.75)
    chart = Chart(figure, f"Positives shared by {len(library)} labelings and {len(shared)} reference tasks.")
    axes.imshow(shared, cmap="Blues", vmin=0, vmax=library.positives, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(shared):
        dark = value > 0.6 * library.positives
        axes.text(column, row, str(value), ha="center", va="center", fontsize=6.5, color="white" if dark else INK)
    for row, hit in enumerate(recall.hits):
        if hit:
            axes.add_patch(_frame(int(recall.nearest[row]), row))
    axes.set_yticks(range(len(shared)), [one_line(name, 24) for name in recall.names], fontsize=7.5)
    axes.set_xticks(range(len(library)), [str(i + 1) for i in range(len(library))], fontsize=7)
    axes.grid(False)
    axes.set_xlabel("labeling, by its rank of confirmed taskness", color=INK, fontsize=9)
    return chart


def _worth(library: TaskLibrary) -> str:
    return (
        f"{len(library)} of {library.tasks} labelings, confirmed QD {library.confirmed_qd:.2f} ± "
        f"{library.confirmed_qd_se:.2f} (standard error), told QD {library.told_qd:.2f}"
    )


def _draw_intervals(axes: Any, library: TaskLibrary) -> None:
    rows = np.arange(len(library))
    low, high = confirmed_interval(library.confirmed, library.confirmed_se, library.confirm)
    axes.hlines(rows, low, high, color=CONFIRMED_COLOUR, linewidth=1.6, alpha=0.7)
    axes.plot(library.confirmed, rows, "s", color=CONFIRMED_COLOUR, markersize=4.5, label="confirmed")
    axes.plot(library.told, rows, "o", markerfacecolor="none", markeredgecolor=TOLD_COLOUR, markersize=5, label="told")
    axes.set_ylim(len(library) - 0.5, -0.5)
    axes.set_xlim(min(0.0, float(np.nanmin(low, initial=0.0))) - 0.04, 1.04)
    axes.axvline(0, color=ZERO, linewidth=0.8)
    axes.set_yticks(rows, [str(i + 1) for i in rows], fontsize=7.5, color=PALE_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ZERO)
    axes.tick_params(labelsize=7.5, colors=INK)
    axes.set_xlabel("taskness, with 95 % interval", fontsize=8, color=INK)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _frame(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=TOLD_COLOUR, linewidth=1.8)


def _clustered(similarity: NDArray[np.float64]) -> list[int]:
    """An order in which similar labelings are neighbours."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(similarity) < 3:
        return list(range(len(similarity)))
    distance = np.clip(1 - similarity, 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform((distance + distance.T) / 2), "average", optimal_ordering=True)
    return [int(i) for i in leaves_list(tree)]


def _first_evaluated(labels: Pixels, own: Pixels) -> float:
    """Before how many evaluations a labeling was first evaluated; inf where it never was."""
    found = np.flatnonzero((labels == own).all(axis=1))
    return float(found[0]) if len(found) else np.inf


def _told_quality(library: TaskLibrary, labels: Pixels, told: NDArray[np.float64]) -> float:
    """Told QD of the library that greedy choice by mean told taskness makes of these evaluations."""
    so_far = Told.of(labels, told)
    chosen = library.rule.choose(so_far.labels, np.argsort(-so_far.taskness, kind="stable"), library.tasks)
    return quality(so_far.taskness[chosen], library.tasks)
