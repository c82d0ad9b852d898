"""Reference tasks: labelings of an image set that are known to mean something, never told to a searcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.rng import random_labelings
from tdbench.space.labelings import decode

RANDOM_TASKS = 8
CHOICES = ("auto", "all", "few", "none")
FEW_CLASSES, FEW_STATISTICS, FEW_RANDOM = 5, ("brightest", "reddest minus bluest"), 2
Pixels = Any  # (N, 32, 32, 3) float64 in 0..255


@dataclass(frozen=True)
class ReferenceTask:
    """A named label vector: ``kind`` is ``class``, ``pixel`` or ``random``."""

    name: str
    kind: str
    labels: NDArray[np.uint8]


def class_tasks(class_of: NDArray[np.int64], classes: Sequence[str]) -> tuple[ReferenceTask, ...]:
    """One class against the rest, for each class of the set."""
    return tuple(ReferenceTask(name, "class", (class_of == c).astype(np.uint8)) for c, name in enumerate(classes))


def pixel_tasks(pixels: NDArray[np.uint8], n_positives: int) -> tuple[ReferenceTask, ...]:
    """The P images highest in each simple pixel statistic; a statistic that is constant on the set is dropped."""
    tasks = []
    for name, statistic in STATISTICS.items():
        values = np.asarray(statistic(pixels.astype(np.float64)), dtype=np.float64)
        values = values.round(9)  # the last bit of a sum must not decide between equal values
        if np.ptp(values) == 0:
            continue
        tasks.append(ReferenceTask(name, "pixel", decode(values[None], n_positives)[0]))
    return tuple(tasks)


def random_tasks(n_images: int, n_positives: int) -> tuple[ReferenceTask, ...]:
    """Random labelings, the same for every space of that size: their confirmed taskness is that of noise."""
    labelings = random_labelings(RANDOM_TASKS, n_images, n_positives, seed=0, lane=1)
    return tuple(ReferenceTask(f"random {i}", "random", labels) for i, labels in enumerate(labelings))


def all_tasks(pixels: NDArray[np.uint8], class_of: NDArray[np.int64], classes: Sequence[str]) -> list[ReferenceTask]:
    """Class tasks, pixel-statistic labelings and random labelings of an image set."""
    n_positives = len(class_of) // len(classes)
    return [
        *class_tasks(class_of, classes),
        *pixel_tasks(pixels, n_positives),
        *random_tasks(len(class_of), n_positives),
    ]


def chosen(tasks: Sequence[ReferenceTask], choice: str, confirm: int, searched: int) -> list[ReferenceTask]:
    """Those of all reference tasks of a space that are to be confirmed (definitions, section 2).

    Args:
        choice: one of `CHOICES`. ``auto`` is ``all`` where they cost at most as many trainings as the search, else
            ``few``: the first 5 class tasks, 2 pixel statistics and 2 random labelings.
        confirm: trainings of one reference task.
        searched: trainings of the evaluations of all runs on the space.
    """
    if choice == "auto":
        choice = "all" if len(tasks) * confirm <= searched else "few"
    if choice == "all":
        return list(tasks)
    if choice == "none":
        return []
    kinds = {kind: [task for task in tasks if task.kind == kind] for kind in ("class", "pixel", "random")}
    statistics = [task for task in kinds["pixel"] if task.name in FEW_STATISTICS]
    return [*kinds["class"][:FEW_CLASSES], *statistics, *kinds["random"][:FEW_RANDOM]]


def _brightness(p: Pixels) -> Pixels:
    return p.mean(axis=(1, 2, 3))


def _contrast(p: Pixels) -> Pixels:
    return p.mean(axis=3).std(axis=(1, 2))


def _sharpness(p: Pixels) -> Pixels:
    grey = p.mean(axis=3)
    return np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))


def _saturation(p: Pixels) -> Pixels:
    return (p.max(axis=3) - p.min(axis=3)).mean(axis=(1, 2))


def _red_minus_blue(p: Pixels) -> Pixels:
    return (p[..., 0] - p[..., 2]).mean(axis=(1, 2))


def _green_minus_rest(p: Pixels) -> Pixels:
    return (p[..., 1] - (p[..., 0] + p[..., 2]) / 2).mean(axis=(1, 2))


def _top_minus_bottom(p: Pixels) -> Pixels:
    half = p.shape[1] // 2
    return p[:, :half].mean(axis=(1, 2, 3)) - p[:, half:].mean(axis=(1, 2, 3))


def _centre_minus_border(p: Pixels) -> Pixels:
    quarter = p.shape[1] // 4
    centre = p[:, quarter:-quarter, quarter:-quarter].mean(axis=(1, 2, 3))
    return centre - p.mean(axis=(1, 2, 3))


STATISTICS: dict[str, Callable[[Pixels], Pixels]] = {
    "brightest": _brightness,
    "darkest": lambda p: -_brightness(p),
    "most contrast": _contrast,
    "sharpest": _sharpness,
    "most saturated": _saturation,
    "reddest minus bluest": _red_minus_blue,
    "greenest": _green_minus_rest,
    "bright top": _top_minus_bottom,
    "bright centre": _centre_minus_border,
}
