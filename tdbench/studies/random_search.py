"""Random search: the best of 100 random labelings, told and confirmed. How much of its score is luck?

N = 500 at 1:9, or the largest N that the source allows. Each labeling is trained on one replicate, as in a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.base.stats import Estimate, mean_interval
from tdbench.report.style import CONFIRMED_COLOUR, INK, PALE_INK, TOLD_COLOUR, ZERO
from tdbench.space.executor import Request
from tdbench.space.score import standard_error
from tdbench.space.sources import Source
from tdbench.space.task_space import TaskSpace
from tdbench.studies._common import TrainingSettings, interval_words, label_axes, panels, setting, shown
from tdbench.studies._lab import Findings, Lab

ORIGINAL_N = 500
QUICK = {"n": 50, "replicates": 8, "steps": 40, "labelings": 24}


@dataclass(frozen=True)
class Settings(TrainingSettings):
    n: int | None = setting(None, "Images in a set, divisible by ratio + 1; 500, or what the source allows.")
    ratio: int = setting(9, "Negatives per positive.")
    labelings: int = setting(100, "Random labelings of each set; the best told one is confirmed.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labelings < 2:
            raise UserError(f"labelings must be at least 2, got {self.labelings}")


@dataclass(frozen=True)
class Repeat:
    """One random search: (labelings,) told taskness and the (replicates,) confirmation of the best told."""

    space: TaskSpace
    told: NDArray[np.float64]
    confirmed: NDArray[np.float64]


def study(settings: Settings, lab: Lab) -> Findings:
    """Tell each labeling's taskness once, as a run of the searcher `random` would be told, and confirm the best."""
    source = lab.source(settings.data)
    n = _largest_n(source, settings.ratio) if settings.n is None else settings.n
    spaces = [
        TaskSpace(source, n=n, ratio=settings.ratio, seed=seed, steps=settings.steps, lr=settings.lr)
        for seed in settings.set_seeds
    ]
    labels = [space.random_labelings(settings.labelings, seed=space.seed) for space in spaces]
    seeds = [space.told_seeds(np.arange(settings.labelings), 1, "fresh", run_seed=0) for space in spaces]
    requests = [Request(*parts) for parts in zip(spaces, labels, seeds, strict=True)]
    told = [scores[:, 0] for scores in lab.taskness(requests, "random search")]
    best = [
        Request(space, vectors[[values.argmax()]], space.confirm_seeds(1, settings.replicates))
        for space, vectors, values in zip(spaces, labels, told, strict=True)
    ]
    confirmed = [scores[0] for scores in lab.taskness(best, "confirming the best")]
    repeats = [Repeat(*parts) for parts in zip(spaces, told, confirmed, strict=True)]
    estimates = _estimates(repeats)
    return Findings(
        _table(repeats, estimates), _figure(repeats, estimates), _paragraph(settings, n, source.name, estimates)
    )


def _largest_n(source: Source, ratio: int) -> int:
    """The original N, or the largest below it for which the source has ratio + 1 classes of enough images."""
    counts = np.sort(np.bincount(source.labels))[::-1]
    if ratio < 1 or len(counts) <= ratio:
        return 2 * (ratio + 1)  # making the space then raises an error that says what is wrong
    return (ratio + 1) * min(max(2, ORIGINAL_N // (ratio + 1)), int(counts[ratio]))


def _estimates(repeats: Sequence[Repeat]) -> dict[str, Estimate]:
    """Means over repeats, by their names in the table."""
    told = np.array([repeat.told.max() for repeat in repeats])
    confirmed = np.array([repeat.confirmed.mean() for repeat in repeats])
    average = np.array([repeat.told.mean() for repeat in repeats])
    return {
        "told": mean_interval(told),
        "confirmed": mean_interval(confirmed),
        "average_told": mean_interval(average),
        "optimism": mean_interval(told - confirmed),
        "gain": mean_interval(confirmed - average),
    }


def _table(repeats: Sequence[Repeat], estimates: dict[str, Estimate]) -> pd.DataFrame:
    """A row for each repeat. The means over repeats, with their intervals, are in every row."""
    columns = {
        f"mean_{name}{suffix}": value
        for name, e in estimates.items()
        for suffix, value in (("", e.value), ("_low", e.low), ("_high", e.high))
    }
    return pd.DataFrame(
        [
            {
                "space_seed": repeat.space.seed,
                "n": repeat.space.n,
                "ratio": repeat.space.ratio,
                "labelings": len(repeat.told),
                "told": repeat.told.max(),
                "confirmed": repeat.confirmed.mean(),
                "confirmed_se": standard_error(repeat.confirmed),
                "optimism": repeat.told.max() - repeat.confirmed.mean(),
                "average_told": repeat.told.mean(),
                "sd_told": repeat.told.std(ddof=1),
                "gain": repeat.confirmed.mean() - repeat.told.mean(),
                **columns,
            }
            for repeat in repeats
        ]
    )


def _figure(repeats: Sequence[Repeat], estimates: dict[str, Estimate]) -> Figure:
    figure, grid = panels(1, 2, width=8.0, height=3.8, gridspec_kw={"width_ratios": [2.2, 1]}, sharey=True)
    axes, means = grid[0]
    label_axes(axes, "image set (space seed)", "taskness (0 noise, 1 perfect)", "each repeat")
    for place, repeat in enumerate(repeats):
        spread = ((np.arange(len(repeat.told)) * 0.618) % 1 - 0.5) * 0.5
        axes.scatter(place + spread, repeat.told, s=7, color=PALE_INK, alpha=0.35, linewidths=0)
        axes.hlines(repeat.told.mean(), place - 0.32, place + 0.32, color=INK, linewidth=1.4)
        axes.plot(place, repeat.told.max(), "o", markersize=6, markerfacecolor="none", color=TOLD_COLOUR)
        axes.plot(place, repeat.confirmed.mean(), "o", markersize=6, color=CONFIRMED_COLOUR)
    axes.set_xticks(range(len(repeats)), [str(repeat.space.seed) for repeat in repeats])
    axes.plot([], [], "o", markersize=3, color=PALE_INK, label="told, each labeling")
    axes.plot([], [], color=INK, label="their mean")
    axes.plot([], [], "o", markerfacecolor="none", color=TOLD_COLOUR, label="best told")
    axes.plot([], [], "o", color=CONFIRMED_COLOUR, label="best told, confirmed")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    label_axes(means, "", "", "mean over repeats")
    shades = {"average_told": INK, "told": TOLD_COLOUR, "confirmed": CONFIRMED_COLOUR}
    for place, (name, colour) in enumerate(shades.items()):
        e = estimates[name]
        means.plot(place, e.value, "o", color=colour, markerfacecolor="none" if name == "told" else colour)
        means.vlines(place, e.low, e.high, color=colour, linewidth=2, alpha=0.65)
        means.annotate(f"{e.value:.2f}", (place, e.value), xytext=(7, -3), textcoords="offset points", fontsize=8)
    means.set_xticks(range(3), ["average\ntold", "best\ntold", "best\nconfirmed"])
    means.set_xlim(-0.5, 2.7)
    for part in (axes, means):
        part.axhline(0, color=ZERO, linewidth=0.8, zorder=1)
    return figure


def _paragraph(settings: Settings, n: int, source: str, e: dict[str, Estimate]) -> str:
    lead = e["told"].value - e["average_told"].value
    luck = f", {e['optimism'].value / lead:.0%} of its lead over the average".replace("%", " %") if lead > 0 else ""
    left = e["gain"]
    if not left.has_interval:
        verdict = "whether it is better than an average random labeling cannot be told without an interval"
    elif left.low > 0:
        verdict = "better than an average random labeling by this amount"
    else:
        verdict = "not distinguishable from an average random labeling"
    return (
        f"N = {n} images of {source} at 1:{settings.ratio}, {settings.sets} repeats on image sets of their own: the "
        f"best of {settings.labelings} random labelings was told {shown(e['told'])} (one replicate each) and confirms "
        f"at {shown(e['confirmed'])} (mean of {settings.replicates} fresh replicates); the average random labeling was "
        f"told {shown(e['average_told'])} (means over repeats{interval_words(e.values())}). Luck is "
        f"{shown(e['optimism'])}{luck}; what remains above the average is {shown(left)}: {verdict}. Expected: once "
        "confirmed, the best of them is noise."
    )
