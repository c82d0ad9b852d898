"""Search: repeated runs of TwoPointsDE, told and confirmed, beside the reference tasks of the same image sets.

Each run has an image set of its own. The runs are those of `tdbench bench` with --out OUT/search: finished runs are
read, interrupted ones continue.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tdbench.api import write_picture
from tdbench.arena.campaign import run_all
from tdbench.base.errors import UserError
from tdbench.base.stats import Estimate, mean_interval
from tdbench.report.pictures import montage
from tdbench.report.style import CONFIRMED_COLOUR, PALE_INK, SERIES, TOLD_COLOUR, ZERO
from tdbench.settings import RunSettings
from tdbench.space.settings import check_seed
from tdbench.store.confirmations import ReferenceScore
from tdbench.store.result import Result
from tdbench.studies._common import label_axes, panels, setting, shown
from tdbench.studies._lab import Findings, Lab

FOLDER = "search"
EXPECTED_TOLD = (0.26, 0.62)
MOST_POSITIVES = 12  # images of a run in the figure
QUICK = {"runs": 4, "n": 20, "budget": 96, "steps": 20, "confirm": 4}


@dataclass(frozen=True)
class Settings:
    """Raises UserError for settings that no run can have."""

    data: str = setting("digits", "digits, cifar10, cifar100 or the path of an .npz.")
    runs: int = setting(10, "Runs, each on an image set of its own.")
    searcher: str = setting("twopointsde", "As `tdbench searchers` lists it.")
    n: int = setting(50, "Images in a set, divisible by ratio + 1.")
    ratio: int = setting(4, "Negatives per positive.")
    seed: int = setting(0, "Seed of the first image set; the others follow. The run seed is 0.")
    budget: int = setting(4000, "Evaluations in a run.")
    batch: int = setting(32, "Labelings that the searcher is asked for at a time.")
    noise: str = setting("fresh", "Replicates: new each time (fresh), or the same ones (frozen).")
    recommend: str = setting("searcher", "What is confirmed: searcher, best or race:F, as for `tdbench run`.")
    confirm: int = setting(32, "Fresh replicates that score a result.")
    steps: int = setting(100, "Adam steps of a training.")
    lr: float = setting(1e-3, "Adam's learning rate.")

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise UserError(f"runs must be at least 1, got {self.runs}")
        check_seed("seed + runs - 1", self.seed + self.runs - 1)
        self.run_settings("auto", "auto")

    def run_settings(self, engine: str, device: str) -> list[RunSettings]:
        """The settings of the runs, as `tdbench bench` would make them."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("runs", "seed")}
        seeds = range(self.seed, self.seed + self.runs)
        return [RunSettings(**given, space_seed=seed, seed=0, engine=engine, device=device) for seed in seeds]


def study(settings: Settings, lab: Lab) -> Findings:
    """Run what is not finished, in lockstep, and compare what the runs found with the reference tasks."""
    options = lab.run_options(FOLDER)
    results = run_all(settings.run_settings(*lab.engine_words), options, lab.plugins())
    if all(result.row.status != "ok" for result in results):
        raise UserError(f"no run of {settings.searcher} ended well; the first: {results[0].row.error}")
    results = [dataclasses.replace(result, picture=write_picture(result, options)) for result in results]
    table = pd.DataFrame([_row(result, lab) for result in results])
    return Findings(table, _figure(results, table), _paragraph(settings, results[0].space.source, table))


def _row(result: Result, lab: Lab) -> dict[str, Any]:
    row = result.row
    best_class, best_pixel = (_best(result.reference(kind)) for kind in ("class", "pixel"))
    known = result.reference("class") + result.reference("pixel")
    return {
        "space_seed": row.space_seed,
        "space": row.space,
        "searcher": row.searcher,
        "status": row.status,
        "told": row.told,
        "confirmed": row.confirmed,
        "confirmed_se": row.confirmed_se,
        "optimism": row.optimism,
        "best_class_task": best_class.task.name if best_class else "",
        "class_confirmed": best_class.mean if best_class else np.nan,
        "best_pixel_statistic": best_pixel.task.name if best_pixel else "",
        "pixel_confirmed": best_pixel.mean if best_pixel else np.nan,
        "random_confirmed": np.mean([score.mean for score in result.reference("random")]),
        "references": len(known),
        "references_above": sum(score.mean > row.confirmed for score in known) if row.status == "ok" else np.nan,
        "evaluations": row.evaluations,
        "distinct": row.distinct,
        "picture": os.path.relpath(result.picture, lab.folder) if result.picture else "",
    }


def _best(scores: Sequence[ReferenceScore]) -> ReferenceScore | None:
    return max(scores, key=lambda score: score.mean, default=None)


def _figure(results: Sequence[Result], table: pd.DataFrame) -> Figure:
    positives = results[0].space.n_positives
    columns = min(positives, MOST_POSITIVES)
    pitch, left = 0.42, 4.4  # inches: a run's row, and the width of the part with the scores
    images = pitch * 0.9 * columns
    figure, grid = panels(
        1, 2, width=left + images, height=1.3 + pitch * len(results), sharey=True,
        gridspec_kw={"width_ratios": [left - 0.6, images]},
    )  # fmt: skip
    scores, pictures = grid[0]
    _draw_scores(scores, table)
    number = f"{positives} positives" if columns == positives else f"{columns} of {positives} positives"
    label_axes(pictures, "", "", f"the {number} found")
    for place, result in enumerate(results):
        if result.labels is not None:
            found = result.space.pixels[result.labels.astype(bool)][:columns]
            extent = (0, columns, place + 0.45, place - 0.45)
            pictures.imshow(montage(found, columns, 1), extent=extent, interpolation="nearest", aspect="auto")
    pictures.set_axis_off()
    pictures.set_xlim(0, columns)
    scores.set_ylim(len(results) - 0.4, -0.6)
    handles, names = scores.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=3, fontsize=8, frameon=False, markerscale=0.7)
    return figure


def _draw_scores(axes: Axes, table: pd.DataFrame) -> None:
    label_axes(axes, "taskness (0 noise, 1 perfect)", "run on image set (space seed)")
    y = np.arange(len(table))
    axes.hlines(y, table["confirmed"], table["told"], color=PALE_INK, linewidth=1.2, alpha=0.7)
    reach = 2 * table["confirmed_se"]
    axes.hlines(
        y, table["confirmed"] - reach, table["confirmed"] + reach, color=CONFIRMED_COLOUR, linewidth=3, alpha=0.4
    )
    axes.plot(table["told"], y, "o", color=TOLD_COLOUR, markerfacecolor="white", label="told")
    axes.plot(table["confirmed"], y, "o", color=CONFIRMED_COLOUR, label="confirmed (± 2 se)")
    ticks: dict[str, Any] = {"marker": "|", "markersize": 13, "markeredgewidth": 2, "linestyle": "none"}
    axes.plot(table["class_confirmed"], y, color=SERIES[2], label="best class task", **ticks)
    axes.plot(table["pixel_confirmed"], y, color=SERIES[3], label="best pixel statistic", **ticks)
    axes.plot(table["random_confirmed"], y, color=PALE_INK, label="random labelings, mean", **ticks)
    axes.axvline(0, color=ZERO, linewidth=0.8, zorder=1)
    axes.set_yticks(y, [str(seed) for seed in table["space_seed"]])


def _over_runs(table: pd.DataFrame, column: str) -> Estimate:
    return mean_interval(table[column].dropna().to_numpy())


def _paragraph(settings: Settings, source: str, table: pd.DataFrame) -> str:
    ended = table[table["status"] == "ok"]
    names = ("told", "confirmed", "optimism", "class_confirmed", "pixel_confirmed", "random_confirmed")
    e = {name: _over_runs(ended, name) for name in names}
    intervals = "95 % bootstrap intervals over runs" if e["confirmed"].has_interval else "too few runs for intervals"
    failed = (
        f" {len(table) - len(ended)} of {len(table)} runs failed and are left out." if len(ended) < len(table) else ""
    )
    above_class = int((ended["confirmed"] > ended["class_confirmed"]).sum())
    above_pixel = int((ended["confirmed"] > ended["pixel_confirmed"]).sum())
    low, high = EXPECTED_TOLD
    within = int(ended["told"].between(low, high).sum())
    expected = (
        f" Expected: runs told {low} to {high}, whose positives look similar. {within} of {len(ended)} were told that; "
        "the figure shows whether the positives look similar."
        if settings.searcher == Settings.searcher
        else ""
    )
    return (
        f"{len(ended)} runs of {settings.searcher} with {settings.budget} evaluations, each on {settings.n} images of "
        f"{source} at 1:{settings.ratio}: told {shown(e['told'])}, confirmed {shown(e['confirmed'])} on "
        f"{settings.confirm} fresh replicates, optimism {shown(e['optimism'])} (means; {intervals}).{failed} On the "
        f"same sets the best class task confirms at {shown(e['class_confirmed'])}, the best pixel statistic at "
        f"{shown(e['pixel_confirmed'])}, random labelings at {shown(e['random_confirmed'])}; what was found confirms "
        f"above the best class task in {above_class} and above the best pixel statistic in {above_pixel} of "
        f"{len(ended)} runs.{expected}"
    )
