"""Figures of a transfer: gains, curves over few positives, affinities, the tree of tasks, and the taxonomy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram

from tdbench.base.files import write_bytes
from tdbench.report.charts import Chart
from tdbench.report.pictures import figure_bytes, one_line
from tdbench.report.style import INK, MARKERS, PALE_INK, SERIES, ZERO, style_axes
from tdbench.store import csv_file, library_file
from tdbench.transfers.affinity import clustered, tree
from tdbench.transfers.gain import Gain
from tdbench.transfers.result import (
    AFFINITY_COLUMNS,
    COLUMNS,
    FILE_NAME,
    TAXONOMY_COLUMNS,
    Affinities,
    TransferResult,
)
from tdbench.transfers.sources import KINDS
from tdbench.transfers.words import contrast_table, gain_table, page, paragraph, taxonomy_table

_DPI = 150
_LABEL = 22  # characters of a task's name
_SHOWN_B = (1, 2, 4, 8)  # numbers of sources whose taxonomy is drawn


def charts_of(result: TransferResult) -> dict[str, Chart]:
    """Name -> figure, those that the result has data for."""
    found = {"gain": gain_chart(result)}
    if len({gain.shots for gain in result.gains}) > 1:
        found["shots"] = shots_chart(result)
    for mode in result.modes:
        affinities = result.affinities(mode)
        if affinities is not None:
            found[f"affinity-{mode}"] = affinity_chart(affinities, mode)
            found[f"tree-{mode}"] = tree_chart(affinities, mode)
            found[f"taxonomy-{mode}"] = taxonomy_chart(affinities, mode)
    return found


def read_transfer(out: Path) -> TransferResult | None:
    """The transfer in a folder of results, or in its folder ``transfer``; None where there is none."""
    places = (out / "transfer" / FILE_NAME, out / FILE_NAME)
    return next((TransferResult.load(path) for path in places if path.is_file()), None)


def section(result: TransferResult) -> dict[str, Any]:
    """The values that the page's template shows of a transfer."""
    taxonomies = (taxonomy_table(result, mode) for mode in result.modes)
    return {
        "paragraph": paragraph(result),
        "tables": [gain_table(result), contrast_table(result), *(table for table in taxonomies if table is not None)],
        "charts": {
            name: (chart.alt, Markup(chart.svg(f"transfer-{name}"))) for name, chart in charts_of(result).items()
        },
    }


def write_result(result: TransferResult, folder: Path) -> list[Path]:
    """Write transfer.npz, the page .md, tables as CSV, and figures as PNG and SVG; returns their paths.

    Raises:
        UserError: a file cannot be written.
    """
    charts = charts_of(result)
    pictures = [f"transfer-{name}.png" for name in charts]
    contents = {"transfer.md": page(result, pictures).encode(), "transfer.csv": _csv(COLUMNS, result.records())}
    for mode in result.modes:
        found = result.affinities(mode)
        if found is not None:
            contents[f"transfer-affinity-{mode}.csv"] = _csv(AFFINITY_COLUMNS, found.records())
            contents[f"transfer-taxonomy-{mode}.csv"] = _csv(TAXONOMY_COLUMNS, found.taxonomy_records())
    for name, chart in charts.items():
        contents |= {f"transfer-{name}.{kind}": figure_bytes(chart.figure, kind) for kind in ("png", "svg")}
    for name, content in contents.items():
        write_bytes(folder / name, content)
    return [result.save(folder / FILE_NAME), *(folder / name for name in contents)]


def _csv(columns: Sequence[str], records: Sequence[dict[str, Any]]) -> bytes:
    lines = [[library_file.cell(record[column]) for column in columns] for record in records]
    return csv_file.text_of([columns, *lines]).encode()


def gain_chart(result: TransferResult) -> Chart:
    """Gain by kind of source with its interval over sets, a panel for each mode."""
    figure, panels = _panels(len(result.modes), 3.4, 0.9 + 0.34 * len(_kinds(result)))
    chart = Chart(figure, f"Gain over training from scratch by kind of source, in the modes {', '.join(result.modes)}.")
    for axes, mode in zip(panels, result.modes, strict=True):
        gains = [gain for gain in result.gains if gain.mode == mode and gain.shots == result.all_shots]
        gains = sorted(gains, key=lambda gain: KINDS.index(gain.kind), reverse=True)
        for row, one in enumerate(gains):
            colour = _colour(one.kind)
            axes.hlines(row, one.gain.low, one.gain.high, color=colour, linewidth=2, alpha=0.65)
            point = axes.plot(one.gain.value, row, "o", color=colour, markersize=5)
            chart.tip(point[0], f"{one.kind}: {one.gain.value:.3f}")
        axes.set_yticks(range(len(gains)), [one.kind for one in gains])
        axes.set_ylim(-0.6, len(gains) - 0.4)
        axes.axvline(0, color=ZERO, linewidth=0.9, zorder=1)
        _say(axes, "gain in taskness (0: as from scratch)", "", mode)
    return chart


def shots_chart(result: TransferResult) -> Chart:
    """Gain over the number of positives in training, a line for each kind of source."""
    figure, panels = _panels(len(result.modes), 3.6, 3.3)
    chart = Chart(figure, "Gain by kind of source over the number of positives in training.")
    for axes, mode in zip(panels, result.modes, strict=True):
        for kind in _kinds(result):
            line = sorted(
                (gain for gain in result.gains if (gain.kind, gain.mode) == (kind, mode)), key=lambda gain: gain.shots
            )
            if line:
                _draw_shots(axes, line)
        axes.axhline(0, color=ZERO, linewidth=0.9, zorder=1)
        axes.set_xticks(sorted({gain.shots for gain in result.gains}))
        _say(axes, "positives in training", "gain in taskness", mode)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7.5, frameon=False, labelcolor=INK)
    return chart


def affinity_chart(found: Affinities, mode: str) -> Chart:
    """Sources against targets before and after normalization, both ordered by clustering of the affinities."""
    rows, columns = clustered(found.affinity), clustered(found.affinity.T)
    width, height = 2.6 + 0.3 * len(columns), 1.5 + 0.19 * len(rows)
    figure, panels = _panels(2, max(3.4, width), height)
    chart = Chart(figure, f"Gains and affinities of {len(rows)} sources and {len(columns)} targets, {mode}.")
    limit = float(np.abs(found.gain).max()) or 1.0
    kept = np.ix_(rows, columns)
    drawn = (
        (found.gain[kept], "PuOr_r", -limit, limit, f"before: gain, {mode}"),
        (found.affinity[kept], "Blues", 0.0, float(found.affinity.max()), "after: affinity"),
    )
    for i, (axes, (matrix, colours, low, high, title)) in enumerate(zip(panels, drawn, strict=True)):
        image = axes.imshow(matrix, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
        names = [_name(found.sources[r]) for r in rows] if i == 0 else []
        axes.set_yticks(range(len(names)), names, fontsize=6.5)
        axes.set_xticks(range(len(columns)), [_name(found.targets[c]) for c in columns], rotation=90)
        axes.tick_params(axis="x", labelsize=6.5)
        axes.grid(False)
        figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)
        _say(axes, "", "", title)
    return chart


def tree_chart(found: Affinities, mode: str) -> Chart:
    """The similarity tree: tasks are near each other that serve the same targets."""
    figure, (axes,) = _panels(1, 5.4, 0.9 + 0.19 * len(found.sources))
    chart = Chart(figure, f"Similarity tree of {len(found.sources)} sources by the targets that they serve, {mode}.")
    names = [_name(name) for name in found.sources]
    dendrogram(tree(found.affinity), labels=names, orientation="right", ax=axes, color_threshold=0,
               above_threshold_color=SERIES[0], leaf_font_size=6.5)  # fmt: skip
    axes.grid(False)
    colours = dict(zip(names, map(_colour, found.kinds), strict=True))
    for label in axes.get_yticklabels():
        label.set_color(colours[label.get_text()])
    _say(axes, "distance of affinities", "", f"tree of sources, {mode}")
    return chart


def taxonomy_chart(found: Affinities, mode: str) -> Chart:
    """The best b sources and the targets that each serves, as graphs with sources on the left."""
    shown = [b for b in _SHOWN_B if b <= len(found.taxonomy)]
    figure, panels = _panels(len(shown), 2.6, 1.0 + 0.2 * len(found.targets))
    chart = Chart(figure, f"Taxonomy, {mode}: which sources serve which of {len(found.targets)} targets.")
    for axes, b in zip(panels, shown, strict=True):
        _draw_graph(axes, found, found.taxonomy[b - 1].serves)
        _say(axes, "", "", f"b = {b}, {mode}")
    return chart


def _draw_graph(axes: Axes, found: Affinities, serves: NDArray[np.int64]) -> None:
    targets = np.argsort(serves, kind="stable")  # so that lines do not cross
    chosen = np.unique(serves)
    right = {int(target): float(row) for row, target in enumerate(targets)}
    left = {int(source): float(np.mean([right[t] for t in right if serves[t] == source])) for source in chosen}
    for target, row in right.items():
        axes.plot([0, 1], [left[int(serves[target])], row], color=_colour(found.kinds[serves[target]]), linewidth=1)
        axes.text(1.05, row, _name(found.targets[target]), fontsize=6.5, va="center", color=INK)
    for source, row in left.items():
        axes.text(-0.05, row, _name(found.sources[source]), fontsize=6.5, va="center", ha="right", color=INK)
    axes.set_xlim(-1.3, 2.3)
    axes.set_ylim(len(right) - 0.5, -0.5)
    axes.set_axis_off()


def _draw_shots(axes: Axes, line: Sequence[Gain]) -> None:
    colour, x = _colour(line[0].kind), [one.shots for one in line]
    place = KINDS.index(line[0].kind)
    axes.plot(x, [one.gain.value for one in line], color=colour, linewidth=1.6, markersize=4, label=line[0].kind,
              marker=MARKERS[place % len(MARKERS)])  # fmt: skip
    axes.vlines(x, [one.gain.low for one in line], [one.gain.high for one in line], color=colour, alpha=0.4)


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side, each of that width in inches."""
    figure = Figure(figsize=(count * width + 0.6, height), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    for axes in panels:
        style_axes(axes)
    return figure, panels


def _say(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, parse_math=False)


def _name(text: str) -> str:
    """A short name in which nothing is read as a formula."""
    return one_line(text, _LABEL).replace("$", r"\$")


def _kinds(result: TransferResult) -> list[str]:
    measured = {gain.kind for gain in result.gains}
    return [kind for kind in KINDS if kind in measured]


def _colour(kind: str) -> str:
    place = KINDS.index(kind)
    return SERIES[place] if place < len(SERIES) else PALE_INK
