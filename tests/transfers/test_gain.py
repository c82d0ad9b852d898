"""Gains, contrasts and rank correlations where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tdbench.transfers.gain import Measured, contrast, detectable_before, gains, of_sets, rank_correlation

RNG = np.random.default_rng(0)
SCRATCH = RNG.normal(0.3, 0.2, (10, 40))


def pairs(kind: str, gain: float, sources: int = 3, confirmed=lambda i: math.nan) -> list[Measured]:
    """Sources of each of ten sets, which add this gain and a little noise to one target."""
    return [
        Measured(
            number, number, f"{kind} {i}", kind, confirmed(i), "t", "fine-tune", 8,
            SCRATCH[number] + gain + RNG.normal(0, 0.05, 40), SCRATCH[number],
        )
        for number in range(10)
        for i in range(sources)
    ]  # fmt: skip


def test_a_gain_is_found_with_its_interval_and_nothing_where_there_is_none():
    some, none = gains([*pairs("found", 0.1), *pairs("random", 0.0)])
    assert (some.kind, some.mode, some.shots, some.pairs) == ("found", "fine-tune", 8, 30)
    assert some.gain.low < 0.1 < some.gain.high and some.gain.low > 0.08
    assert none.gain.low < 0 < none.gain.high
    assert some.win_rate.value > 0.9 and none.win_rate.value == pytest.approx(0.5, abs=0.05)


def test_intervals_are_over_sets_not_over_pairs():
    of_set = [0.0, 0.2, 0.4, 0.6]
    zero = np.zeros(5)
    rows = [
        Measured(s, s, f"x{i}", "x", 1, "t", "frozen", 8, zero + g, zero)
        for s, g in enumerate(of_set)
        for i in range(9)
    ]
    (found,) = gains(rows)
    assert found.gain.n == 4 and found.gain.high - found.gain.low > 0.4
    assert list(of_sets(rows).values()) == pytest.approx(of_set)


def test_ties_count_half_in_a_win_rate():
    one = Measured(0, 0, "a", "x", 1, "t", "frozen", 8, np.array([0.5, 0.1, 0.3, 0.3]), np.full(4, 0.3))
    assert one.win_rate == pytest.approx(0.5) and one.gain == pytest.approx(0.0)


def test_kinds_are_compared_set_by_set():
    found = contrast(pairs("found", 0.08), pairs("random", 0.03), ("found", "random"))
    assert found is not None
    assert found.difference.low < 0.05 < found.difference.high and found.difference.low > 0
    assert 0 < found.detectable < 0.05
    assert contrast([], pairs("random", 0), ("found", "random")) is None


def test_what_confirms_higher_and_gains_more_is_correlated():
    rising = [one for i in range(5) for one in pairs(f"s{i}", 0.1 * i, 1, lambda _, i=i: float(i))]
    assert rank_correlation(rising).value == pytest.approx(1.0)
    assert math.isnan(rank_correlation(pairs("class", 0.1)).value)  # never confirmed


def test_the_detectable_gain_falls_with_sets_and_is_that_of_the_t_test():
    assert detectable_before(4) > detectable_before(8) > detectable_before(64)
    # Cohen (1988): n = 34 pairs detect half a standard deviation with 80 % power at alpha 5 %.
    assert detectable_before(34, sd=1.0) == pytest.approx(0.5, abs=0.01)
    assert math.isnan(detectable_before(1))
