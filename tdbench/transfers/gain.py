"""Gain: what training on a source first adds to the taskness of a target, and how certain that is.

Everything is over image sets: a set's value is the mean of all its pairs of source and target, and intervals resample
sets. Numbers in, numbers out; nothing is trained here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tdbench.base.stats import ALPHA, MIN_FOR_INTERVAL, POWER, Estimate, detectable_difference, mean_interval

EXPECTED_SD = 0.08  # of the gains of image sets, assumed before a run: in small trials it was 0.05 to 0.12
LEAST_RANKED = 3  # sources that a rank correlation needs

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """One source on one target.

    Attributes:
        source_set, set: which image set the source is of; which one the value counts for. With one source set, that is
            the target's set.
        source, kind: the source's name, and what it is (`sources.KINDS`).
        confirmed: taskness that the source labeling confirmed at; NaN where it was not confirmed.
        target: the target's name.
        mode: ``fine-tune`` or ``frozen``.
        shots: positives on the training side.
        taskness, scratch: (R,) taskness on the target after the source, and from scratch, on the same replicates.
    """

    source_set: int
    set: int
    source: str
    kind: str
    confirmed: float
    target: str
    mode: str
    shots: int
    taskness: Values
    scratch: Values

    @property
    def gain(self) -> float:
        return float((self.taskness - self.scratch).mean())

    @property
    def win_rate(self) -> float:
        """Share of replicates that are better than from scratch, ties counting 1/2."""
        return float(((self.taskness > self.scratch) + 0.5 * (self.taskness == self.scratch)).mean())


@dataclass(frozen=True)
class Gain:
    """The gain of a kind of source in one mode.

    Attributes:
        gain: mean over sets, with its 95 % interval.
        detectable: the smallest true gain that this run could have detected, by the deviation of its sets.
        win_rate: share of replicates that are better than from scratch, a mean over sets.
        pairs: pairs of source and target.
    """

    kind: str
    mode: str
    shots: int
    gain: Estimate
    detectable: float
    win_rate: Estimate
    pairs: int


@dataclass(frozen=True)
class Contrast:
    """How much more one kind of source gains than another, set by set.

    Attributes:
        difference: mean over sets of the difference of their gains, with its 95 % interval.
        detectable: the smallest true difference that this run could have detected.
    """

    better: str
    worse: str
    difference: Estimate
    detectable: float


def gains(measured: Iterable[Measured]) -> list[Gain]:
    """A `Gain` for each kind, mode and number of shots, in the order in which they first occur."""
    groups: dict[tuple[str, str, int], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.kind, one.mode, one.shots), []).append(one)
    return [
        Gain(
            *key,
            mean_interval(list(of_sets(members).values())),
            _detectable(list(of_sets(members).values())),
            mean_interval(list(of_sets(members, lambda one: one.win_rate).values())),
            len(members),
        )
        for key, members in groups.items()
    ]


def of_sets(
    measured: Iterable[Measured], value: Callable[[Measured], float] = lambda one: one.gain
) -> dict[int, float]:
    """Set -> the mean of its pairs' values, in the order of the sets."""
    found: dict[int, list[float]] = {}
    for one in measured:
        found.setdefault(one.set, []).append(value(one))
    return {number: float(np.mean(found[number])) for number in sorted(found)}


def contrast(better: Sequence[Measured], worse: Sequence[Measured], names: tuple[str, str]) -> Contrast | None:
    """Whether some pairs gain more than others, on the sets that both have; None where there is no such set."""
    ours, theirs = of_sets(better), of_sets(worse)
    differences = [ours[number] - theirs[number] for number in ours if number in theirs]
    if not differences:
        return None
    return Contrast(*names, mean_interval(differences), _detectable(differences))


def rank_correlation(measured: Sequence[Measured]) -> Estimate:
    """Spearman's correlation of sources' confirmed taskness and gain, a mean over sets with its interval.

    Within a set, a source's gain is its mean over targets. Sets with fewer than 3 confirmed sources are left out.
    """
    of_each = []
    for number in sorted({one.set for one in measured}):
        sources: dict[tuple[float, str], list[float]] = {}
        for one in measured:
            if one.set == number and math.isfinite(one.confirmed):
                sources.setdefault((one.confirmed, one.source), []).append(one.gain)
        confirmed = [confirmed for confirmed, _ in sources]
        means = [float(np.mean(values)) for values in sources.values()]
        if len(sources) >= LEAST_RANKED and np.ptp(confirmed) > 0 and np.ptp(means) > 0:
            of_each.append(float(stats.spearmanr(confirmed, means).statistic))
    return mean_interval(of_each) if of_each else Estimate(math.nan, math.nan, math.nan, 0)


def detectable_before(sets: int, sd: float = EXPECTED_SD) -> float:
    """The smallest true gain that a run over so many sets can be expected to detect, before anything is trained.

    Solves P(|T| > t_crit) = power for T noncentral t with sets - 1 degrees of freedom and noncentrality
    gain sqrt(sets) / sd, at alpha 5 % and power 80 % (`base.stats.detectable_difference`).

    Args:
        sd: expected standard deviation of the gains of sets.

    Returns:
        NaN for fewer than 4 sets, which allow no interval.
    """
    return detectable_difference(sd, sets, alpha=ALPHA, power=POWER) if sets >= MIN_FOR_INTERVAL else math.nan


def _detectable(values: Sequence[float]) -> float:
    """The same, by the standard deviation that was found."""
    return detectable_before(len(values), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan)
