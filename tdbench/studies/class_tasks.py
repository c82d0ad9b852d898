"""Class tasks: does the network generalize on each class against the others? Validation curves with both baselines.

200 images of 4 classes (ship, horse, deer and frog if the source has them), each class against the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tdbench.base.stats import Estimate
from tdbench.engine.protocol import validation_counts, validation_size
from tdbench.report.style import SERIES
from tdbench.space.executor import study_request
from tdbench.space.score import informed_baseline
from tdbench.space.task_space import TaskSpace
from tdbench.studies._common import (
    TrainingSettings,
    choose_classes,
    interval_words,
    label_axes,
    over_sets,
    panels,
    setting,
    shown,
)
from tdbench.studies._lab import Findings, Lab

ORIGINAL_CLASSES = ("ship", "horse", "deer", "frog")
QUICK = {"n": 40, "replicates": 4, "steps": 60}


@dataclass(frozen=True)
class Settings(TrainingSettings):
    n: int = setting(200, "Images in a set, divisible by the number of classes.")
    classes: tuple[str, ...] | None = setting(None, "Class names; by default the original four if the source has them.")


def study(settings: Settings, lab: Lab) -> Findings:
    """Train every class task of every image set; average curves over replicates, then over sets."""
    source = lab.source(settings.data)
    names = settings.classes or choose_classes(source, len(ORIGINAL_CLASSES), ORIGINAL_CLASSES, settings.seed)
    spaces = [
        TaskSpace(
            source, n=settings.n, ratio=len(names) - 1, seed=seed, classes=names, steps=settings.steps, lr=settings.lr
        )
        for seed in settings.set_seeds
    ]
    requests = [
        study_request(space, np.eye(len(names))[:, space.class_of], space.seed, settings.replicates) for space in spaces
    ]
    every_curve = lab.curves(requests, "class tasks")
    curves = np.stack(every_curve).mean(axis=2)  # (sets, classes, steps)
    of_trainings = np.stack(lab.evaluator.score(requests, every_curve))  # (sets, classes, replicates)
    taskness = {name: over_sets(of_trainings[:, c]) for c, name in enumerate(names)}
    validation_positives = validation_counts(settings.n, spaces[0].n_positives)[0]
    baselines = Baselines(
        informed_baseline(spaces[0].n, spaces[0].n_positives, validation_size(spaces[0].n), validation_positives),
        lab.evaluator.blind_baseline(spaces[0], validation_positives),
    )
    table = pd.concat([_rows(name, curves[:, c], taskness[name], baselines) for c, name in enumerate(names)])
    return Findings(table, _figure(table, taskness, baselines), _paragraph(settings, source.name, taskness))


@dataclass(frozen=True)
class Baselines:
    """Losses in nats without seeing images: of the class frequencies, and of networks trained on blank images."""

    informed: float
    blind: float


def _rows(name: str, curves: NDArray[np.float32], taskness: Estimate, baselines: Baselines) -> pd.DataFrame:
    """A row for each step of one class: (sets, steps) curves as means with intervals over sets."""
    points = [over_sets(step) for step in curves.T]
    return pd.DataFrame(
        {
            "class": name,
            "step": np.arange(1, len(points) + 1),
            "validation_loss": [p.value for p in points],
            "low": [p.low for p in points],
            "high": [p.high for p in points],
            "informed_baseline": baselines.informed,
            "blind_baseline": baselines.blind,
            "taskness": taskness.value,
            "taskness_low": taskness.low,
            "taskness_high": taskness.high,
        }
    )


def _figure(table: pd.DataFrame, estimates: dict[str, Estimate], baselines: Baselines) -> Figure:
    names = list(estimates)
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure, grid = panels(rows, columns, height=0.4 + 2.4 * rows, sharex=True, sharey=True)
    for axes, name in zip(grid.flat, names, strict=False):
        curve = table[table["class"] == name]
        label_axes(axes, "step", "validation loss (nats)", f"{name}: taskness {shown(estimates[name])}")
        axes.plot(curve["step"], curve["validation_loss"], color=SERIES[0], linewidth=1.8, label="mean over sets")
        axes.fill_between(curve["step"], curve["low"], curve["high"], color=SERIES[0], alpha=0.18, linewidth=0)
        axes.axhline(baselines.informed, color=SERIES[1], linestyle="--", linewidth=1.2, label="informed baseline")
        axes.axhline(baselines.blind, color=SERIES[2], linestyle=":", linewidth=1.6, label="blind baseline")
        axes.tick_params(labelbottom=True, labelleft=True)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    grid[0, 0].legend(fontsize=8, frameon=False)
    return figure


def _paragraph(settings: Settings, source: str, taskness: dict[str, Estimate]) -> str:
    parts = [f"{name} {shown(e)}" for name, e in sorted(taskness.items(), key=lambda item: -item[1].value)]
    clear = [name for name, e in taskness.items() if e.low > 0]
    return (
        f"{settings.n} images of {source}, {settings.sets} image sets of {settings.replicates} replicates: taskness of "
        f"each class against the others is {', '.join(parts)} (mean over sets"
        f"{interval_words(taskness.values())}). "
        f"{len(clear)} of {len(taskness)} classes have an interval above 0. Expected, for ship, horse, deer and frog: "
        "three that generalize clearly and one that is hard."
    )
