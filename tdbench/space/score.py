"""From validation curves to taskness (definitions, section 4). Plain numpy; no training happens here."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import wrong_shape
from tdbench.engine.protocol import ROLLING_WINDOW

BLIND_SEEDS = 8  # trainings on blank images; a blind baseline is their mean


def generalization_level(curves: NDArray[np.floating]) -> NDArray[np.float64]:
    """(B,) minimum of the rolling median of (B, steps) validation losses, in nats; lower generalizes better.

    Window 5, windows inside the curve; a non-finite entry counts as +inf, so the result is +inf if no window has
    three finite entries.

    Raises:
        ValueError: the curves are shorter than the window.
    """
    curves = np.asarray(curves, dtype=np.float64)
    if curves.ndim != 2 or curves.shape[1] < ROLLING_WINDOW:
        raise ValueError(wrong_shape("curves", ("B", f"at least {ROLLING_WINDOW}"), curves.shape))
    finite = np.where(np.isfinite(curves), curves, np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(finite, ROLLING_WINDOW, axis=1)
    medians = np.sort(windows, axis=-1)[..., ROLLING_WINDOW // 2]
    level: NDArray[np.float64] = medians.min(axis=1)
    return level


def informed_baseline(n_images: int, n_positives: int, n_validation: int, validation_positives: int) -> float:
    """Validation loss, in nats, of always predicting the training side's class frequencies.

    Frequencies are clipped to [1/N, 1 - 1/N]; only those of a random split can lie outside.
    """
    frequency = (n_positives - validation_positives) / (n_images - n_validation)
    frequency = min(max(frequency, 1 / n_images), 1 - 1 / n_images)
    share = validation_positives / n_validation
    return -(share * math.log(frequency) + (1 - share) * math.log(1 - frequency))


def baseline(informed: float, blind: float) -> float:
    """b in nats: the mean of the statistically informed and the blind baseline (definitions, section 4, Baseline)."""
    return (informed + blind) / 2


def taskness(level: NDArray[np.float64], baseline: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B,) taskness (b - g) / b: at most 1, near 0 for noise, negative if the loss is above the baseline.

    Taskness is -1 if the generalization level or the baseline is not finite.
    """
    level, baseline = np.asarray(level, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    finite = np.isfinite(level) & np.isfinite(baseline)
    level, baseline = np.where(finite, level, 0.0), np.where(finite, baseline, 1.0)
    return np.where(finite, (baseline - level) / baseline, -1.0)


def standard_error(values: NDArray[np.float64]) -> float:
    """Standard error of the mean of independent replicates; NaN for fewer than two."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
