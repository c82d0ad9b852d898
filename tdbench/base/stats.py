"""The statistics behind leaderboards, comparisons and reports: plain numbers in, plain numbers out.

scipy does the bootstrap and the tests. This module knows nothing of searchers, files or images. It does not use
global random state, and equal input gives equal output.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
RESAMPLES = 10_000
TWO_STAGE_RESAMPLES = 4_000  # fewer, since each draws a whole table of values
MIN_FOR_INTERVAL = 4  # the range from lowest to highest of n values misses their median with probability 2 ** (1 - n)
MIN_SPACES = 5  # with fewer, a critical difference says nothing
_EXACT_UP_TO = 20_000  # arrangements that a permutation test goes through one by one

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with a two-sided interval from `n` values; low and high are NaN if these allow no interval."""

    value: float
    low: float
    high: float
    n: int

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Test:
    """A two-sided test: its name, the p-value, and the smallest p-value that this number of values can give."""

    __test__ = False  # pytest would collect it by its name

    name: str
    p: float
    smallest_p: float


@dataclass(frozen=True)
class RankTest:
    """Searchers ranked over spaces (Demsar 2006).

    Attributes:
        average_ranks: (k,), 1 is best; ties share the mean of their ranks.
        friedman_chi2, friedman_p: Friedman's chi-square over all searchers, and its p-value.
        iman_davenport_f, iman_davenport_p: the less conservative F statistic (Demsar 2006, section 3.2.2).
        critical_difference: average ranks further apart than this differ at the 5 % level (Nemenyi).
        n_spaces: rows of the table.
    """

    average_ranks: tuple[float, ...]
    friedman_chi2: float
    friedman_p: float
    iman_davenport_f: float
    iman_davenport_p: float
    critical_difference: float
    n_spaces: int


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean without the lowest and the highest quarter; NaN for no values.

    A quarter is rounded down: of 4 to 7 values one is left out at each end, of 1 to 3 values none.
    """
    array = _array(values)
    return float(stats.trim_mean(array, 0.25)) if len(array) else math.nan


def iqm_interval(values: ArrayLike, *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """Interquartile mean with its bootstrap interval, see `interval`."""
    return interval(values, _iqm, level=level, seed=seed)


def mean_interval(values: ArrayLike, *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """Mean with its bootstrap interval, see `interval`."""
    return interval(values, _mean, level=level, seed=seed)


def interval(values: ArrayLike, statistic: Callable[..., Any], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """A statistic of one sample with its expanded percentile bootstrap interval.

    The percentile bootstrap is too narrow for few values; its level is raised so that, for a mean of normal values,
    it is as wide as Student's interval (Hesterberg 2015, "What Teachers Should Know About the Bootstrap",
    expanded percentile interval). Fewer than 4 values, or values that are all equal, have no interval: its ends are
    NaN.

    Args:
        values: (n,) numbers; NaN is not allowed.
        statistic: ``statistic(sample, axis=-1)``, vectorized.
    """
    array = _array(values)
    value = float(statistic(array, axis=-1)) if len(array) else math.nan
    if len(array) < MIN_FOR_INTERVAL or np.ptp(array) == 0:
        return Estimate(value, math.nan, math.nan, len(array))
    low, high = _bootstrap((array,), statistic, _expanded_level(level, len(array), len(array) - 1), seed)
    return Estimate(value, low, high, len(array))


def two_stage_interval(
    samples: Sequence[ArrayLike], statistic: Callable[..., Any], *, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """A statistic of values that come in clusters, pooled, with its two-stage bootstrap interval.

    Clusters are drawn first, then values within each of them (Davison and Hinkley 1997, *Bootstrap Methods and their
    Application*, section 3.8), so values of one cluster may depend on each other. The level is raised as in
    `interval`. If there are fewer than 4 clusters, or all draws give the same value, the ends of the interval are NaN.

    Args:
        samples: one or more (clusters, n) arrays of the same clusters in the same order, which are drawn together.
        statistic: ``statistic(*pooled, axis=-1)``, vectorized.
    """
    tables = [np.asarray(sample, dtype=np.float64) for sample in samples]
    clusters, n = len(tables[0]), min(table.size for table in tables)
    value = float(statistic(*(table.ravel() for table in tables), axis=-1))
    if clusters < MIN_FOR_INTERVAL:
        return Estimate(value, math.nan, math.nan, n)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(clusters, size=(TWO_STAGE_RESAMPLES, clusters, 1))
    within = [rng.integers(t.shape[1], size=(TWO_STAGE_RESAMPLES, clusters, t.shape[1])) for t in tables]
    pooled = [t[drawn, w].reshape(TWO_STAGE_RESAMPLES, -1) for t, w in zip(tables, within, strict=True)]
    tail = (1 - _expanded_level(level, clusters, clusters - 1)) / 2
    low, high = np.quantile(statistic(*pooled, axis=-1), [tail, 1 - tail])
    if low == high:
        return Estimate(value, math.nan, math.nan, n)
    return Estimate(value, float(low), float(high), n)


def difference(a: ArrayLike, b: ArrayLike, *, paired: bool = False, level: float = LEVEL, seed: int = 0) -> Estimate:
    """iqm(a) - iqm(b) with its expanded percentile bootstrap interval; paired values are drawn together."""
    a, b = _array(a), _array(b)
    n = min(len(a), len(b))
    if paired and len(a) != len(b):
        raise ValueError(f"paired samples have equal lengths, got {len(a)} and {len(b)}")
    value = iqm(a) - iqm(b)
    constant = np.ptp(a - b) == 0 if paired and n else n and np.ptp(a) == 0 and np.ptp(b) == 0
    if n < MIN_FOR_INTERVAL or constant:
        return Estimate(value, math.nan, math.nan, n)

    def statistic(x: Values, y: Values, axis: int = -1) -> Any:
        return _iqm(x, axis=axis) - _iqm(y, axis=axis)

    expanded = _expanded_level(level, n, n - 1 if paired else len(a) + len(b) - 2)
    low, high = _bootstrap((a, b), statistic, expanded, seed, paired)
    return Estimate(value, low, high, n)


def improvement(a: ArrayLike, b: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Probability that a value of A exceeds one of B, ties counting half: U / (n_a n_b), with its interval.

    The interval is Newcombe's (Statistics in Medicine 25, 2006, part 2, method 5): the probabilities whose
    Hanley-McNeil standard error reaches the observed one. Unlike a bootstrap interval, it is not a single point when
    all of A lies above all of B.
    """
    a, b = _array(a), _array(b)
    if not len(a) or not len(b):
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(np.mean((a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])))
    n = min(len(a), len(b))
    if n < 2:
        return Estimate(value, math.nan, math.nan, n)
    z = stats.norm.ppf(0.5 + level / 2)
    middle = (len(a) + len(b)) / 2  # method 5 puts the mean of the two sizes into the variance

    def beyond(theta: float) -> float:
        return float(abs(value - theta) - z * auc_standard_error(theta, len(a), len(b), middle, middle))

    # At 0 and 1 the standard error is 0, which would be a wrong root. The right one is further inside.
    low = optimize.brentq(beyond, 0, min(value, 1 - 1e-9)) if value > 0 else 0.0
    high = optimize.brentq(beyond, max(value, 1e-9), 1) if value < 1 else 1.0
    return Estimate(value, float(low), float(high), n)


def auc_standard_error(
    theta: float, n_a: int, n_b: int, effective_a: float | None = None, effective_b: float | None = None
) -> float:
    """Hanley and McNeil's (1982) standard error of U / (n_a n_b) if its expectation is theta."""
    m_a = n_a if effective_a is None else effective_a
    m_b = n_b if effective_b is None else effective_b
    q_a, q_b = theta / (2 - theta), 2 * theta**2 / (1 + theta)
    variance = theta * (1 - theta) + (m_a - 1) * (q_a - theta**2) + (m_b - 1) * (q_b - theta**2)
    return math.sqrt(max(variance, 0.0) / (n_a * n_b))


def rank_test(a: ArrayLike, b: ArrayLike) -> Test:
    """Mann-Whitney U test of two independent samples, exact for few values; p is NaN if one has fewer than 2 values."""
    a, b = _array(a), _array(b)
    name = "Mann-Whitney"
    if min(len(a), len(b)) < 2:
        return Test(name, math.nan, 1.0)
    arrangements = math.comb(len(a) + len(b), len(a))
    smallest = 2 / arrangements
    pooled = np.concatenate([a, b])
    if np.ptp(pooled) == 0:
        return Test(name, 1.0, smallest)
    ties = len(np.unique(pooled)) < len(pooled)
    exact = stats.PermutationMethod(n_resamples=_EXACT_UP_TO) if ties and arrangements <= _EXACT_UP_TO else "auto"
    return Test(name, min(1.0, float(stats.mannwhitneyu(a, b, method=exact).pvalue)), smallest)


def paired_test(a: ArrayLike, b: ArrayLike) -> Test:
    """Wilcoxon signed-rank test of pairs, exact for few pairs; p is NaN for fewer than 2 pairs.

    Five pairs cannot give a p-value below 0.0625.
    """
    a, b = _array(a), _array(b)
    name = "Wilcoxon"
    if len(a) != len(b):
        raise ValueError(f"paired samples have equal lengths, got {len(a)} and {len(b)}")
    if len(a) < 2:
        return Test(name, math.nan, 1.0)
    smallest = 2.0 ** (1 - len(a))
    change = a - b
    if not change.any():
        return Test(name, 1.0, smallest)
    sizes = np.abs(change)
    ties = len(np.unique(sizes)) < len(sizes) or bool((sizes == 0).any())
    few = 2 ** len(a) <= _EXACT_UP_TO
    exact = stats.PermutationMethod(n_resamples=_EXACT_UP_TO) if ties and few else "auto"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns that it uses the normal approximation for many tied pairs
        return Test(name, min(1.0, float(stats.wilcoxon(change, method=exact).pvalue)), smallest)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values in the given order. NaN stays NaN and is not counted."""
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    running = 0.0
    for step, (p, i) in enumerate(order):
        running = max(running, min(1.0, p * (len(order) - step)))
        adjusted[i] = running
    return adjusted


def detectable_difference(
    sd: float, n_a: int, n_b: int | None = None, *, alpha: float = ALPHA, power: float = POWER, smallest_p: float = 0.0
) -> float:
    """The smallest true difference of means that a two-sided t-test finds with this power, in the unit of `sd`.

    Solves P(|T| > t_crit) = power for T noncentral t with noncentrality difference / (sd sqrt(1/n_a + 1/n_b)), or
    difference / (sd / sqrt(n_a)) for pairs (Cohen 1988, chapter 2). The rank tests used here have 96 % of the t-test's
    efficiency for normal values, so the result is slightly too small for them.

    Args:
        sd: standard deviation within a group (pooled), or of the pairs' differences.
        n_a, n_b: values in each group; without n_b, n_a pairs.
        smallest_p: the smallest p-value that the test can give; if it is above alpha, no difference can be detected.

    Returns:
        inf if no difference can be detected, NaN if there are too few values for a standard deviation.
    """
    if smallest_p > alpha:
        return math.inf
    degrees = n_a - 1 if n_b is None else n_a + n_b - 2
    if degrees < 1 or math.isnan(sd):
        return math.nan
    error = 1 / math.sqrt(n_a) if n_b is None else math.sqrt(1 / n_a + 1 / n_b)
    critical = stats.t.ppf(1 - alpha / 2, degrees)

    def shortfall(shift: float) -> float:
        return float(stats.nct.sf(critical, degrees, shift) + stats.nct.cdf(-critical, degrees, shift) - power)

    highest = 2 * critical
    while shortfall(highest) < 0:
        highest *= 2
    return float(optimize.brentq(shortfall, 0, highest)) * error * sd


def pooled_sd(a: ArrayLike, b: ArrayLike) -> float:
    """Standard deviation within two groups, NaN if neither has 2 values."""
    groups = [x for x in (_array(a), _array(b)) if len(x) > 1]
    degrees = sum(len(x) - 1 for x in groups)
    squares = sum(float(((x - x.mean()) ** 2).sum()) for x in groups)
    return math.sqrt(squares / degrees) if degrees else math.nan


def anytime(checkpoints: Sequence[float], shares: Sequence[float]) -> float:
    """Area under the confirmed checkpoints over the budget, per unit of budget: an average confirmed taskness.

    Trapezoids between the shares of the budget, divided by the width from the first share to the last, so that a
    constant c gives c. The time before the first checkpoint does not count. NaN if a checkpoint is missing.
    """
    values = _array(checkpoints)
    return float(np.trapezoid(values, np.array(shares))) / (shares[-1] - shares[0])


def average_ranks(scores: ArrayLike) -> Values:
    """(k,) mean over spaces of the rank within each; (spaces, k) scores, higher is better, rank 1 is best."""
    ranks: Values = stats.rankdata(-np.asarray(scores, dtype=np.float64), axis=1).mean(axis=0)
    return ranks


def rank_searchers(scores: ArrayLike, *, min_spaces: int = MIN_SPACES) -> RankTest | None:
    """Average ranks, Friedman's test and Nemenyi's critical difference; (spaces, k) scores, higher is better.

    Returns:
        None for fewer than 3 searchers or fewer than `min_spaces` spaces. The chi-square and F approximations are
        good only with more (Demsar: about 10 spaces and 5 searchers).
    """
    table = np.asarray(scores, dtype=np.float64)
    n, k = table.shape
    if k < 3 or n < min_spaces:
        return None
    ranks = average_ranks(table)
    if (np.ptp(table, axis=1) == 0).all():
        chi2, p = 0.0, 1.0
    else:
        chi2, p = (float(x) for x in stats.friedmanchisquare(*(-table).T))
    remaining = n * (k - 1) - chi2
    f = (n - 1) * chi2 / remaining if remaining > 1e-12 else math.inf
    f_p = float(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))
    return RankTest(tuple(ranks.tolist()), chi2, p, f, f_p, critical_difference(k, n), n)


def critical_difference(k: int, n: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of average ranks: q_alpha sqrt(k (k + 1) / (6 n)) (Demsar 2006, section 3.2.2)."""
    q = stats.studentized_range.ppf(1 - alpha, k, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(k * (k + 1) / (6 * n)))


def _array(values: ArrayLike) -> Values:
    return np.asarray(values, dtype=np.float64).ravel()


def _iqm(values: Values, axis: int = -1) -> Any:
    return stats.trim_mean(values, 0.25, axis=axis)


def _mean(values: Values, axis: int = -1) -> Any:
    return np.mean(values, axis=axis)


def _expanded_level(level: float, n: int, degrees: int) -> float:
    reach = math.sqrt(n / (n - 1)) * stats.t.ppf(0.5 + level / 2, degrees)
    return float(1 - 2 * stats.norm.sf(reach))


def _bootstrap(
    samples: tuple[Values, ...], statistic: Callable[..., Any], level: float, seed: int, paired: bool = False
) -> tuple[float, float]:
    result = stats.bootstrap(
        samples,
        statistic,
        paired=paired,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=RESAMPLES,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(result.low), float(result.high)
