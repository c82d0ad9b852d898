"""Features: does a labeling generalize on features of random residual networks, or only on pixels?

200 images of 4 classes, the first against the rest; pixels, and 3x8x8 and 3x4x4 features of 6 random networks, on the
same replicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.base.stats import Estimate
from tdbench.report.style import PALE_INK, SERIES
from tdbench.space.executor import study_request
from tdbench.space.image_set import ImageSet, standardize
from tdbench.space.sources import Source
from tdbench.space.task_space import TaskSpace
from tdbench.studies._common import (
    TrainingSettings,
    choose_classes,
    class_size,
    draw_estimates,
    interval_words,
    label_axes,
    over_sets,
    panels,
    setting,
    shown,
)
from tdbench.studies._lab import Findings, Lab
from tdbench.studies.class_tasks import ORIGINAL_CLASSES
from tdbench.toolkit.random_features import features, resized

SIDES = (8, 4)
ORIGINAL_N = 200
QUICK = {"n": 40, "replicates": 2, "steps": 40, "networks": 3}


@dataclass(frozen=True)
class Settings(TrainingSettings):
    n: int | None = setting(
        None, "Images in a set, divisible by the number of classes; 200, or what the source allows."
    )
    classes: tuple[str, ...] | None = setting(
        None, "Class names, the first against the others; ship, horse, deer and frog if the source has them."
    )
    networks: int = setting(6, "Random residual networks, the same for every set.")
    depth: int = setting(3, "n of the 6n + 2 layers of a residual network.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("networks", "depth"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Representation:
    """The input in place of images: features, 3 x side x side, of a random network with this number; or pixels."""

    network: int = 0
    side: int = 32

    @property
    def name(self) -> str:
        return f"network {self.network}, 3x{self.side}x{self.side}" if self.network else "pixels"


def study(settings: Settings, lab: Lab) -> Findings:
    """Train one class against the rest on every representation of every image set, on the same replicates."""
    spaces = _spaces(settings, lab.source(settings.data))
    kinds = [Representation()]
    kinds += [Representation(net, side) for side in SIDES for net in range(1, settings.networks + 1)]
    image_sets = _image_sets(settings, spaces, kinds, lab)
    requests = [
        study_request(image_set, (space.class_of == 0)[None], space.seed, settings.replicates)
        for space, of_space in zip(spaces, image_sets, strict=True)
        for image_set in of_space
    ]
    of_trainings = np.stack(lab.taskness(requests, "features and pixels"))
    taskness = of_trainings.reshape(len(spaces), len(kinds), -1).mean(axis=2)  # (sets, representations)
    table = _table(taskness, kinds)
    return Findings(table, _figure(table, settings), _paragraph(table, settings, spaces[0]))


def _spaces(settings: Settings, source: Source) -> list[TaskSpace]:
    names = settings.classes or choose_classes(source, len(ORIGINAL_CLASSES), ORIGINAL_CLASSES, settings.seed)
    n = settings.n
    if n is None:
        n = min(ORIGINAL_N // len(names), *(class_size(source, name) for name in names)) * len(names)
    return [
        TaskSpace(source, n=n, ratio=len(names) - 1, seed=seed, classes=names, steps=settings.steps, lr=settings.lr)
        for seed in settings.set_seeds
    ]


def _image_sets(
    settings: Settings, spaces: Sequence[TaskSpace], kinds: Sequence[Representation], lab: Lab
) -> list[list[ImageSet]]:
    """The representations of each space. Features are remembered, so a second call does not compute them."""
    image_sets = []
    with lab.counting("features", len(spaces) * settings.networks) as advance:
        for space in spaces:
            maps: dict[int, NDArray[np.float64]] = {}
            for network in range(1, settings.networks + 1):
                arguments = (settings.depth, settings.seed, network)
                key = f"features {arguments} of {space.fingerprint.hex()}, torch {torch.__version__}"
                maps[network] = lab.remembered(key, lambda a=arguments, s=space: features(s.images, *a))  # type: ignore[misc]
                advance(1)
            image_sets.append([_represented(space, maps, kind) for kind in kinds])
    return image_sets


def _represented(space: TaskSpace, maps: dict[int, NDArray[np.float64]], kind: Representation) -> ImageSet:
    if not kind.network:
        return space
    images = resized(maps[kind.network], kind.side)
    return ImageSet(standardize(np.moveaxis(images, 1, -1)), space.n_positives, space.protocol)


def _table(taskness: NDArray[np.float64], kinds: Sequence[Representation]) -> pd.DataFrame:
    """A row for each representation, and one for all networks of a size; from (sets, representations) taskness."""
    columns = {kind: taskness[:, i] for i, kind in enumerate(kinds)}
    rows = [_row(kind.name, kind.network, kind.side, columns[kind], taskness[:, 0]) for kind in kinds]
    for side in SIDES:
        mean = np.mean([column for kind, column in columns.items() if kind.network and kind.side == side], axis=0)
        rows.append(_row(f"all networks, 3x{side}x{side}", 0, side, mean, taskness[:, 0]))
    return pd.DataFrame(rows)


def _row(
    name: str, network: int, side: int, of_sets: NDArray[np.float64], pixels: NDArray[np.float64]
) -> dict[str, object]:
    taskness, difference = over_sets(of_sets), over_sets(of_sets - pixels)
    is_pixels = name == "pixels"
    return {
        "representation": name,
        "network": network or None,
        "side": side,
        "taskness": taskness.value,
        "low": taskness.low,
        "high": taskness.high,
        "lowest_set": of_sets.min(),
        "highest_set": of_sets.max(),
        "minus_pixels": None if is_pixels else difference.value,
        "minus_pixels_low": None if is_pixels else difference.low,
        "minus_pixels_high": None if is_pixels else difference.high,
        "sets": len(of_sets),
    }


def _taskness(row: pd.Series) -> Estimate:
    return Estimate(row["taskness"], row["low"], row["high"], int(row["sets"]))


def _difference(row: pd.Series) -> Estimate:
    return Estimate(row["minus_pixels"], row["minus_pixels_low"], row["minus_pixels_high"], int(row["sets"]))


def _figure(table: pd.DataFrame, settings: Settings) -> Figure:
    figure, grid = panels(1, 2, width=9.0, height=3.9)
    of_pixels = _taskness(table.iloc[0])
    left, right = grid[0]
    left.axhline(of_pixels.value, color=SERIES[0], linewidth=1.6, label="pixels")
    if of_pixels.has_interval:
        left.axhspan(of_pixels.low, of_pixels.high, color=SERIES[0], alpha=0.15, linewidth=0)
    for s, side in enumerate(SIDES):
        networks = _networks(table, side)
        where = [row["network"] + (s - 0.5) * 0.24 for row in networks]
        style = {"linestyle": "none"}
        draw_estimates(
            left, where, [_taskness(r) for r in networks], SERIES[s + 1], f"features 3x{side}x{side}", **style
        )
        draw_estimates(right, where, [_difference(r) for r in networks], SERIES[s + 1], f"3x{side}x{side}", **style)
    label_axes(left, "random network", "taskness (0 noise, 1 perfect)")
    label_axes(right, "random network", "taskness minus that of pixels, same replicates")
    for axes in (left, right):
        axes.axhline(0, color=PALE_INK, linestyle=":", linewidth=1.2)
        axes.set_xticks(range(1, settings.networks + 1))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def _paragraph(table: pd.DataFrame, settings: Settings, space: TaskSpace) -> str:
    of_pixels = _taskness(table.iloc[0])
    words = interval_words(_taskness(row) for _, row in table.iterrows())
    return (
        f"{space.n} images of {space.source}, {space.classes[0]} against {', '.join(space.classes[1:])}, "
        f"{settings.sets} image sets of {settings.replicates} replicates: taskness on pixels is {shown(of_pixels)} "
        f"(mean over sets{words}). {' '.join(_of_side(table, side) for side in SIDES)} {_verdict(table)}"
    )


def _of_side(table: pd.DataFrame, side: int) -> str:
    networks = _networks(table, side)
    together = table[table["representation"] == f"all networks, 3x{side}x{side}"].iloc[0]
    means = [row["taskness"] for row in networks]
    lowest, highest = min(row["lowest_set"] for row in networks), max(row["highest_set"] for row in networks)
    return (
        f"On 3x{side}x{side} features of {len(networks)} random networks it is {shown(_taskness(together))}, a "
        f"difference of {shown(_difference(together))} to pixels on the same replicates; the networks' means go from "
        f"{min(means):.2f} to {max(means):.2f}, single sets from {lowest:.2f} to {highest:.2f}."
    )


def _verdict(table: pd.DataFrame) -> str:
    coarse = _networks(table, SIDES[-1])
    useful = sum(row["low"] > 0 for row in coarse)
    every = [row for side in SIDES for row in _networks(table, side)]
    worse = sum(row["minus_pixels_high"] < 0 for row in every)
    better = sum(row["minus_pixels_low"] > 0 for row in every)
    return (
        "Expected: volatile at 3x8x8, useless at 3x4x4, pixels better than all. Found: at 3x4x4 "
        f"{useful} of {len(coarse)} networks have an interval above 0, so that is {'not ' if useful else ''}useless; "
        f"of all {len(every)} networks and sizes {worse} are worse than pixels by more than their interval, {better} "
        "are better."
    )


def _networks(table: pd.DataFrame, side: int) -> list[pd.Series]:
    return [row for _, row in table[(table["side"] == side) & table["network"].notna()].iterrows()]
