"""Ablation: how many positives of a class task can be exchanged for negatives before it is no task any more?

400 images of 4 classes (frog against ship, horse and deer if the source has them). The exchange goes from no positive
up to as many as make the labeling random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import optimize, stats

from tdbench.base.errors import UserError
from tdbench.base.rng import Stream, permutation, random_labelings, replicate_seeds
from tdbench.base.stats import Estimate
from tdbench.leaderboard.threshold import FALSE_POSITIVE_RATE
from tdbench.report.style import SERIES
from tdbench.space.executor import Request, study_request
from tdbench.space.image_set import ImageSet
from tdbench.space.labelings import ablate
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
from tdbench.studies._lab import Findings, Lab

ORIGINAL_CLASSES = ("frog", "ship", "horse", "deer")
LARGEST = 400
EXPECTED = 0.20
QUICK = {"n": 48, "ablations": (10, 20, 40), "labelings": 2, "replicates": 4, "steps": 50}


@dataclass(frozen=True)
class Settings(TrainingSettings):
    n: int | None = setting(None, "Images in a set, divisible by the number of classes; 400, or what the source holds.")
    classes: tuple[str, ...] | None = setting(None, "The positive class and the others; frog, ship, horse and deer.")
    ablations: tuple[int, ...] = setting(
        (5, 10, 15, 20, 25, 30, 40, 55), "Percent of positives exchanged; none and a random labeling are always added."
    )
    threshold: float | None = setting(None, "T_task; by default it comes from random labelings of the same sets.")
    labelings: int = setting(3, "Random labelings of each set, from which T_task is computed.")
    false_positive_rate: float = setting(FALSE_POSITIVE_RATE, "Share of random labelings that exceed T_task.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is not None and (len(set(self.classes)) != len(self.classes) or len(self.classes) < 2):
            raise UserError(f"expected at least 2 different classes, got {', '.join(self.classes)}")
        if any(a < 0 for a in self.ablations):
            raise UserError(f"ablations are percentages from 0 up, got {min(self.ablations)}")
        if self.threshold is None and (self.labelings < 1 or self.labelings * self.sets < 2):
            raise UserError("T_task needs at least 1 random labeling a set and 2 in all, or give it as --threshold")
        if not 0 < self.false_positive_rate < 1:
            raise UserError(f"false-positive-rate must be between 0 and 1, got {self.false_positive_rate}")


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes:
        shares: (a,) shares of the positives exchanged, rising from 0 to the share that makes the labeling random.
        taskness: (sets, a, replicates); each replicate has its own exchanges.
        random: (sets, labelings) means over replicates of random labelings; empty if T_task was given.
    """

    shares: NDArray[np.float64]
    taskness: NDArray[np.float64]
    random: NDArray[np.float64]


@dataclass(frozen=True)
class Conclusion:
    """T_task, the tolerance, and the ablation at which half of the class task's taskness remains."""

    threshold: Estimate
    tolerance: Estimate
    half: Estimate


def study(settings: Settings, lab: Lab) -> Findings:
    """Exchange more and more positives of each image set's class task, and find where it stops being a task.

    Every replicate exchanges other images, so that a point averages over the choice of images. With more ablation, a
    replicate exchanges the same images and some more, on the same split and initialization. So the points of one curve
    differ by the ablation alone.
    """
    source = lab.source(settings.data)
    names = settings.classes or tuple(choose_classes(source, 4, ORIGINAL_CLASSES, settings.seed))
    n = _image_count(settings, source, names)
    exchanged = _exchanged(settings.ablations, n, n // len(names))
    results = _measure(settings, lab, source, names, n, exchanged)
    conclusion = _conclude(settings, results)
    points = [over_sets(results.taskness[:, a]) for a in range(len(exchanged))]
    table = pd.DataFrame(
        {
            "n": n,
            "positives": n // len(names),
            "exchanged": exchanged,
            "ablation": results.shares,
            "taskness": [p.value for p in points],
            "low": [p.low for p in points],
            "high": [p.high for p in points],
            "threshold": conclusion.threshold.value,
            "tolerance": conclusion.tolerance.value,
            "tolerance_low": conclusion.tolerance.low,
            "tolerance_high": conclusion.tolerance.high,
            "half_lost": conclusion.half.value,
            "half_lost_low": conclusion.half.low,
            "half_lost_high": conclusion.half.high,
        }
    )
    paragraph = _paragraph(settings, f"{n} images of {source.name}", names, results, points, conclusion)
    return Findings(table, _figure(results.shares, points, names, conclusion), paragraph)


def crossing(shares: NDArray[np.float64], taskness: NDArray[np.float64], threshold: float) -> float:
    """The largest share at which a falling curve through (a,) taskness lies above the threshold.

    The curve is the least-squares non-increasing fit (pool adjacent violators), linear between the measured shares.

    Returns:
        The first share if no point lies above the threshold, the last if all do.
    """
    falling = optimize.isotonic_regression(taskness, increasing=False).x
    above = np.flatnonzero(falling > threshold)
    if len(above) == 0:
        return float(shares[0])
    last = above[-1]
    if last == len(shares) - 1:
        return float(shares[-1])
    share_of_step = (falling[last] - threshold) / (falling[last] - falling[last + 1])
    return float(shares[last] + share_of_step * (shares[last + 1] - shares[last]))


def _image_count(settings: Settings, source: Source, names: Sequence[str]) -> int:
    """N: the setting, or by default the largest up to 400 for which the classes have enough images."""
    k = len(names)
    if settings.n is not None:
        if settings.n % k or settings.n < 2 * k:
            valid = max(2, round(settings.n / k)) * k
            raise UserError(f"n must be divisible by the {k} classes, got {settings.n}; the nearest valid n is {valid}")
        return settings.n
    per_class = min(LARGEST // k, *(class_size(source, name) for name in names))
    if per_class < 2:
        raise UserError(f"{source.name} has fewer than 2 images of a class; a class task needs at least 2 positives")
    return per_class * k


def _exchanged(percents: Sequence[int], n: int, n_positives: int) -> list[int]:
    """Numbers of positives to exchange, rising from 0 to the number that makes the labeling random."""
    random = (n - n_positives) / n
    if (most := max(percents, default=0)) > 100 * random:
        raise UserError(f"ablations go up to {100 * random:.3g} %, where the labeling is random; got {most} %")
    return sorted({round(n_positives * share) for share in (0, random, *(a / 100 for a in percents))})


def _measure(
    settings: Settings, lab: Lab, source: Source, names: Sequence[str], n: int, exchanged: Sequence[int]
) -> Results:
    positives = n // len(names)
    ablated, random = [], []
    for seed in settings.set_seeds:
        image_set, labels = one_against_rest(
            source, names[0], names[1:], positives, n - positives, seed, settings.protocol
        )
        ablated.append(_ablated_request(image_set, labels, exchanged, seed, settings.replicates))
        if settings.threshold is None:
            labelings = random_labelings(settings.labelings, n, positives, seed)
            random.append(study_request(image_set, labelings, seed, settings.replicates))
    scores = lab.taskness([*ablated, *random], "ablations")
    shape = (settings.sets, len(exchanged), settings.replicates)
    return Results(
        np.array(exchanged) / positives,
        np.stack(scores[: settings.sets]).reshape(shape),
        np.array([means.mean(axis=1) for means in scores[settings.sets :]]),
    )


def _ablated_request(
    image_set: ImageSet, labels: NDArray[np.uint8], exchanged: Sequence[int], seed: int, replicates: int
) -> Request:
    """A label vector for each ablation and replicate, each trained once, with the seed of its replicate."""
    keys = (np.full(replicates, seed, dtype=np.int64), np.arange(replicates, dtype=np.int64))
    order = permutation(image_set.n, Stream.EXCHANGES, keys)
    ablated = np.concatenate([ablate(labels, count, order) for count in exchanged])
    seeds = replicate_seeds(Stream.STUDY, seed, 0, [0], replicates)
    return Request(image_set, image_set.checked_labels(ablated), np.tile(seeds, len(exchanged)).reshape(-1, 1))


def _conclude(settings: Settings, results: Results) -> Conclusion:
    """Threshold, tolerance and half-loss. The bootstrap over image sets computes them from the curves each time."""
    curves = results.taskness.mean(axis=2)

    def threshold(sets: NDArray[np.int64]) -> float:
        given = settings.threshold
        return _passed_by(results.random[sets].ravel(), settings.false_positive_rate) if given is None else given

    def tolerance(sets: NDArray[np.int64]) -> float:
        return crossing(results.shares, curves[sets].mean(axis=0), threshold(sets))

    def half(sets: NDArray[np.int64]) -> float:
        curve = curves[sets].mean(axis=0)
        return crossing(results.shares, curve, curve[0] / 2)

    estimates = [over_resampled_sets(settings.sets, f) for f in (threshold, tolerance, half)]
    if settings.threshold is not None:
        estimates[0] = Estimate(settings.threshold, math.nan, math.nan, settings.sets)
    return Conclusion(*estimates)


def _passed_by(values: NDArray[np.float64], share: float) -> float:
    """The value that this share of normal values exceeds. Means of replicates are nearly normal, and they are few."""
    return float(values.mean() + stats.norm.isf(share) * values.std(ddof=1))


def _figure(
    shares: NDArray[np.float64], points: Sequence[Estimate], names: Sequence[str], conclusion: Conclusion
) -> Figure:
    figure, grid = panels(height=4.0)
    axes = grid[0, 0]
    title = f"{names[0]} against {', '.join(names[1:])}, positives exchanged at random"
    label_axes(axes, "ablation (% of the positives exchanged)", "taskness (0 noise, 1 perfect)", title)
    draw_estimates(axes, list(100 * shares), points, SERIES[0], "mean over sets")
    axes.axhline(
        conclusion.threshold.value,
        color=SERIES[1],
        linestyle="--",
        linewidth=1.2,
        label=f"T_task {shown(conclusion.threshold)}",
    )
    tolerance = conclusion.tolerance
    axes.axvline(
        100 * tolerance.value, color=SERIES[2], linestyle=":", linewidth=1.6, label=f"tolerance {_percent(tolerance)}"
    )
    if tolerance.has_interval:
        axes.axvspan(100 * tolerance.low, 100 * tolerance.high, color=SERIES[2], alpha=0.12, linewidth=0)
    legend_below(axes)
    return figure


def _paragraph(
    settings: Settings, images: str, names: Sequence[str], results: Results, points: Sequence[Estimate], c: Conclusion
) -> str:
    return (
        f"{images}, {names[0]} against {', '.join(names[1:])}, {settings.sets} image sets of {settings.replicates} "
        "replicates, each replicate with exchanges of its own: taskness falls from "
        f"{shown(points[0])} for the class task to {shown(points[-1])} with {100 * results.shares[-1]:.0f} % of the "
        f"positives exchanged, where the labeling is random (mean over sets{interval_words(points)}). "
        f"{_threshold_words(settings, results, c)} {_tolerance_words(results, c)} "
        f"Half of the class task's taskness is lost at {_percent(c.half)}. Expected: a tolerance of about "
        f"{100 * EXPECTED:.0f} %{_verdict(c.tolerance)}."
    )


def _threshold_words(settings: Settings, results: Results, c: Conclusion) -> str:
    if settings.threshold is not None:
        return f"T_task is {shown(c.threshold)}, as given."
    return (
        f"T_task is {shown(c.threshold)}: {100 * settings.false_positive_rate:.3g} % of random labelings of the same "
        f"sets would exceed it, by mean and deviation of {results.random.size} of them, each scored by its mean over "
        f"{settings.replicates} replicates."
    )


def _tolerance_words(results: Results, c: Conclusion) -> str:
    first, last = results.shares[0], results.shares[-1]
    if c.tolerance.value == first:
        return "Not even the class task exceeds it, so there is no tolerance."
    if c.tolerance.value == last:
        return "Every measured ablation exceeds it, so T_task is too low for a tolerance."
    found = f"The tolerance, the largest ablation whose mean taskness exceeds it, is {_percent(c.tolerance)}"
    if not c.tolerance.has_interval:
        return f"{found}."
    end = ", up to the end of the range" if c.tolerance.high == last else ""
    made = "its own curve and T_task" if c.threshold.has_interval else "its own curve"
    return f"{found}{end} (by a falling curve through the means; each resample of the sets has {made})."


def _verdict(tolerance: Estimate) -> str:
    if not tolerance.has_interval:
        return "; without an interval this can be neither confirmed nor denied"
    if tolerance.low <= EXPECTED <= tolerance.high:
        return ", which lies within the interval"
    return f", which lies {'below' if tolerance.low > EXPECTED else 'above'} the interval"


def _percent(share: Estimate) -> str:
    hundredfold = Estimate(100 * share.value, 100 * share.low, 100 * share.high, share.n)
    return f"{shown(hundredfold, 0)} %"
