"""How the report's figures are drawn, both for the page (inline SVG in its colours) and for PNG files."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tdbench.base.stats import Estimate
from tdbench.report.pictures import best_so_far, figure_png, new_figure, one_line
from tdbench.report.style import (
    CONFIRMED_COLOUR,
    GRID,
    INK,
    MARKERS,
    PALE_INK,
    SERIES,
    TOLD_COLOUR,
    ZERO,
    style_axes,
)

# In the page every colour becomes a CSS variable, so that one figure fits the light and the dark page.
_VARIABLES = {
    TOLD_COLOUR: "told",
    CONFIRMED_COLOUR: "confirmed",
    INK: "ink",
    PALE_INK: "pale",
    GRID: "grid",
    ZERO: "zero",
    **{colour: f"series-{i}" for i, colour in enumerate(SERIES)},
}
_CURVE_POINTS = 80


@dataclass(frozen=True)
class Line:
    """A line for a reference task or a group of them."""

    name: str
    value: float


@dataclass(frozen=True)
class Member:
    """One run, or all runs of a searcher in one space; `told_curve` may be empty if the log does not have it."""

    name: str
    told: float
    confirmed: float
    checkpoints: Mapping[int, float]  # evaluations -> confirmed taskness
    told_curve: NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """One searcher: its runs in a space, or its results in several spaces, and estimates over them."""

    searcher: str
    colour: int  # position among the searchers of the whole report
    members: Sequence[Member]
    checkpoints: Mapping[int, Estimate]  # evaluations -> confirmed
    told: Mapping[int, Estimate]  # evaluations -> best told


@dataclass
class Chart:
    """A figure, a description in words, and texts that appear when the pointer is on parts of it."""

    figure: Figure
    alt: str
    tips: list[str] = field(default_factory=list)

    def tip(self, artist: Artist, text: str) -> None:
        artist.set_gid(f"tip-{len(self.tips)}")
        self.tips.append(text)

    def png(self) -> bytes:
        return figure_png(self.figure)

    def svg(self, salt: str) -> str:
        """An `<svg>` element for an HTML page; `salt` makes its ids differ from those of the page's other figures."""
        out = io.StringIO()
        # The SVG backend takes these two from global settings only; both are restored after it.
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            metadata = {"Creator": None, "Date": None, "Format": None, "Type": None}
            self.figure.savefig(out, format="svg", transparent=True, metadata=metadata)
        return self._for_page(out.getvalue())

    def _for_page(self, text: str) -> str:
        body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
        body = body[body.index("<svg") :]
        body = re.sub(r"^<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", self._opening, body, count=1, flags=re.S)
        body = re.sub(r'<g id="tip-(\d+)">', lambda m: f"<g>{_title(self.tips[int(m[1])])}", body)
        used = set(
            re.findall(r"(?:href=\"#|url\(#)([^\")]+)", body)
        )  # other ids, such as figure_1, are the same in every figure
        body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
        body = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", body)
        for colour, name in _VARIABLES.items():
            body = body.replace(colour, f"var(--{name})")
        return re.sub(r"\n\s*", "\n", body)

    def _opening(self, match: re.Match[str]) -> str:
        width = self.figure.get_figwidth() * 96
        label = html.escape(self.alt, quote=True)
        return f'<svg role="img" aria-label="{label}" viewBox="{match[1]}" style="max-width:{width:.0f}px">'


def told_against_confirmed(groups: Sequence[Group], lines: Sequence[Line], each: str, width: float = 6.6) -> Chart:
    """A bar from confirmed to told for `each` run or space of every searcher; a longer bar means more optimism."""
    heights = [0.34 + 0.085 * max(len(group.members), 2) for group in groups]
    figure, axes = empty_chart(width, sum(heights) + 1.4, top=0.8, left=0.12)
    chart = Chart(figure, f"Told against confirmed taskness of every {each} of {_names(groups)}.")
    y = 0.0
    for group, height in zip(groups, heights, strict=True):
        axes.axhline(y, color=GRID, linewidth=0.8)
        label = one_line(group.searcher, 40) + ("" if group.members else " (every run failed)")
        axes.text(0.006, y + 0.04, label, **_AT_LEFT, transform=axes.get_yaxis_transform())
        runs = sorted(group.members, key=lambda member: np.nan_to_num(member.confirmed, nan=-9), reverse=True)
        for i, member in enumerate(runs):
            _dumbbell(chart, axes, member, group.searcher, y + 0.3 + 0.085 * i)
        y += height
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.scatter([], [], s=22, color=CONFIRMED_COLOUR, label="confirmed")
    axes.scatter([], [], s=22, facecolors="none", edgecolors=TOLD_COLOUR, label="told")
    axes.plot([], [], color=PALE_INK, linewidth=1.2, label="optimism")
    values = [v for group in groups for member in group.members for v in (member.told, member.confirmed)]
    set_limits(axes.set_xlim, [*values, *(line.value for line in lines)], 0.0)
    _reference_lines(axes, lines)
    axes.set_xlabel("taskness (0 noise, 1 perfect)", color=INK, fontsize=9)
    figure.legend(loc="upper left", fontsize=9, frameon=False, labelcolor=INK, ncols=3, borderaxespad=0.4)
    return chart


def confirmed_over_evaluations(groups: Sequence[Group], lines: Sequence[Line], over: str, width: float = 6.6) -> Chart:
    """Confirmed taskness of the recommendation after parts of the budget, a line per searcher, with intervals."""
    figure, axes = empty_chart(width, 3.9, top=0.2, right=1.45)
    chart = Chart(figure, f"Confirmed taskness over evaluations, with intervals over {over}, of {_names(groups)}.")
    values, ends = [line.value for line in lines], []
    spread = 0.006 * max((max(g.checkpoints, default=1) for g in groups), default=1)
    for i, group in enumerate(groups):
        if not group.checkpoints:
            continue
        colour, marker = SERIES[group.colour % len(SERIES)], MARKERS[group.colour // len(SERIES) % len(MARKERS)]
        x = np.array(list(group.checkpoints)) + spread * (i - (len(groups) - 1) / 2)
        points = list(group.checkpoints.values())
        y = [p.value for p in points]
        chart.tip(axes.plot(x, y, color=colour, linewidth=1.8, marker=marker, markersize=5)[0], group.searcher)
        axes.vlines(x, [p.low for p in points], [p.high for p in points], color=colour, linewidth=1.4, alpha=0.65)
        values += [v for p in points for v in (p.low, p.high, p.value)]
        ends.append((y[-1], one_line(group.searcher, 18), colour))
    axes.set_xlim(left=0)
    set_limits(axes.set_ylim, values, 0.0)
    end_labels(axes, ends)
    for line in lines:
        axes.axhline(line.value, color=PALE_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(line.name, (1, line.value), **_ABOVE_RIGHT, xycoords=axes.get_yaxis_transform())
    axes.set_xlabel("evaluations", color=INK, fontsize=9)
    axes.set_ylabel("confirmed taskness", color=INK, fontsize=9)
    return chart


def told_and_confirmed_curves(group: Group, limits: tuple[float, float], width: float = 3.3) -> Chart:
    """Best told of every run of one searcher, and the confirmed taskness of its recommendations at the checkpoints."""
    figure, axes = empty_chart(width, 2.5, top=0.42)
    chart = Chart(figure, f"Best told taskness and confirmed checkpoints over evaluations of {group.searcher}.")
    for member in group.members:
        if len(member.told_curve):
            x = np.unique(np.linspace(1, len(member.told_curve), _CURVE_POINTS).round().astype(int))
            curve = axes.plot(x, best_so_far(member.told_curve)[x - 1], color=TOLD_COLOUR, linewidth=0.8, alpha=0.4)
            chart.tip(curve[0], f"{member.name}: told {member.told:.2f}")
        dots = axes.plot(
            list(member.checkpoints),
            list(member.checkpoints.values()),
            "o",
            markersize=3,
            color=CONFIRMED_COLOUR,
            alpha=0.4,
        )
        chart.tip(dots[0], f"{member.name}: confirmed {member.confirmed:.2f}")
    told = list(group.told.values())
    axes.fill_between(
        list(group.told), [e.low for e in told], [e.high for e in told], color=TOLD_COLOUR, alpha=0.16, linewidth=0
    )
    axes.plot(list(group.told), [e.value for e in told], color=TOLD_COLOUR, linewidth=1.8)
    at, points = list(group.checkpoints), list(group.checkpoints.values())
    axes.plot(at, [p.value for p in points], color=CONFIRMED_COLOUR, linewidth=1.8)
    axes.vlines(at, [p.low for p in points], [p.high for p in points], color=CONFIRMED_COLOUR, linewidth=2.4, alpha=0.7)
    axes.set_ylim(*limits)
    axes.set_xlim(left=0)
    axes.text(0, 1.06, one_line(group.searcher, 32), **_BOLD, transform=axes.transAxes)
    axes.set_xlabel("evaluations", color=INK, fontsize=9)
    if at:
        axes.set_xticks([0, at[-1] / 2, at[-1]])
    return chart


def critical_difference(
    names: Sequence[str], ranks: Sequence[float], difference: float, n_spaces: int, width: float = 6.6
) -> Chart:
    """Average ranks over spaces; searchers joined by a bar do not differ by more than the critical difference."""
    order = np.argsort(ranks)
    sorted_ranks = [float(ranks[i]) for i in order]
    bars = _cliques(sorted_ranks, difference)
    figure, axes = empty_chart(width, 1.2 + 0.24 * len(names) + 0.1 * len(bars), top=0.75, left=0.2)
    listed = ", ".join(f"{names[i]} {ranks[i]:.2f}" for i in order)
    chart = Chart(figure, f"Average ranks over {n_spaces} spaces, critical difference {difference:.2f}: {listed}.")
    first = 0.35 + 0.16 * len(bars)
    for k, i in enumerate(order):
        y = first + 0.3 * k
        axes.plot([ranks[i], ranks[i]], [0, y], color=INK, linewidth=0.9)
        right = ranks[i] <= (1 + len(names)) / 2
        text = f"{one_line(names[i], 30)}  {ranks[i]:.2f}"
        axes.annotate(
            text, (ranks[i], y), xytext=(4 if right else -4, 0), textcoords="offset points", fontsize=9, color=INK,
            ha="left" if right else "right", va="center", parse_math=False,
        )  # fmt: skip
    for k, (a, b) in enumerate(bars):
        axes.plot([a - 0.03, b + 0.03], [0.2 + 0.16 * k] * 2, color=CONFIRMED_COLOUR, linewidth=4, alpha=0.8)
    axes.set_xlim(0.9, len(names) + 0.1)
    axes.set_ylim(first + 0.3 * len(names), 0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xticks(range(1, len(names) + 1))
    axes.set_xlabel(f"average rank over {n_spaces} spaces (1 is best)", color=INK, fontsize=9)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)
    return chart


def taskness_limits(groups: Sequence[Group]) -> tuple[float, float]:
    """Ends of a taskness axis that fits the told and the confirmed values of all these searchers."""
    values = [v for g in groups for s in g.members for v in (s.told, s.confirmed, *s.checkpoints.values())]
    finite = [v for v in values if np.isfinite(v)]
    return max(min([0.0, *finite]), -0.75) - 0.06, min(max([0.2, *finite]), 1.0) + 0.06


_AT_LEFT: dict[str, Any] = {
    "fontsize": 9,
    "color": INK,
    "va": "top",
    "ha": "left",
    "parse_math": False,
    "weight": "bold",
}
_BOLD: dict[str, Any] = {"fontsize": 9.5, "color": INK, "weight": "bold", "parse_math": False}
_ABOVE_RIGHT: dict[str, Any] = {
    "xytext": (-2, 2), "textcoords": "offset points", "fontsize": 7.5, "color": PALE_INK, "ha": "right",
    "parse_math": False,
}  # fmt: skip


def empty_chart(
    width: float, height: float, *, top: float, right: float = 0.12, left: float = 0.55
) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, with margins in inches."""
    figure = new_figure(width, height)
    bottom = 0.5
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    )
    axes.set_facecolor("none")
    style_axes(axes)
    return figure, axes


def _dumbbell(chart: Chart, axes: Axes, member: Member, searcher: str, y: float) -> None:
    axes.plot([member.confirmed, member.told], [y, y], color=PALE_INK, linewidth=1.2, alpha=0.7, zorder=2)
    axes.scatter([member.told], [y], s=20, facecolors="none", edgecolors=TOLD_COLOUR, linewidths=1.2, zorder=3)
    point = axes.scatter([member.confirmed], [y], s=22, color=CONFIRMED_COLOUR, zorder=3, linewidths=0)
    chart.tip(point, f"{searcher}, {member.name}: told {member.told:.2f}, confirmed {member.confirmed:.2f}")


def _reference_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Vertical lines with their names above the axes, at two heights if lines are close together."""
    previous, level = -np.inf, 0
    low, high = axes.get_xlim()
    for line in sorted(lines, key=lambda reference: reference.value):
        axes.axvline(line.value, color=PALE_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        level = 1 - level if (line.value - previous) / (high - low) < 0.3 else 0
        previous = line.value
        side = "right" if (line.value - low) / (high - low) > 0.75 else "left"
        axes.annotate(
            f"{line.name} {line.value:.2f}".replace("-0.00", "0.00"),
            (line.value, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3 + 10 * level),
            textcoords="offset points",
            fontsize=7.5,
            color=PALE_INK,
            ha=side,
            parse_math=False,
        )


def end_labels(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Names of the lines at their right ends, moved apart if they would overlap."""
    low, high = axes.get_ylim()
    least = 0.055 * (high - low)
    place = -np.inf
    placed = []
    for value, name, colour in sorted(ends):
        place = max(value, place + least)
        placed.append((place, value, name, colour))
    shift = max(0.0, placed[-1][0] - high) if placed else 0.0
    for y, value, name, colour in placed:
        axes.annotate(
            name, (1, value), xytext=(1.02, y - shift), xycoords=axes.get_yaxis_transform(), va="center", fontsize=9,
            textcoords=axes.get_yaxis_transform(), color=colour, parse_math=False, annotation_clip=False,
        )  # fmt: skip


def _cliques(ranks: Sequence[float], difference: float) -> list[tuple[float, float]]:
    """First and last rank of each longest sequence of sorted ranks that spans at most the difference."""
    bars: list[tuple[float, float]] = []
    for rank in ranks:
        last = max(other for other in ranks if other <= rank + difference)
        if last > rank and (not bars or last > bars[-1][1]):
            bars.append((rank, last))
    return bars


def _names(groups: Sequence[Group]) -> str:
    return ", ".join(group.searcher for group in groups)


def set_limits(setter: Callable[[float, float], object], values: Sequence[float], always: float) -> None:
    """Ends of an axis that fit these values and `always`."""
    finite = [v for v in values if np.isfinite(v)]
    low, high = min([always, *finite]), max([always + 0.2, *finite])
    low = max(low, -1.0)
    setter(low - 0.04 * (high - low), high + 0.04 * (high - low))


def _title(text: str) -> str:
    return f"<title>{html.escape(text)}</title>"
