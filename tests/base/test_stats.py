"""Statistics against published values, against scipy and statsmodels, and, for intervals, against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from tdbench.base import stats
from tdbench.store.rows import CHECKPOINTS

numbers = st.floats(-1, 1).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=1, max_size=9)
few = settings(deadline=None, max_examples=50)  # a bootstrap takes milliseconds, and much longer on a busy machine


def test_interquartile_mean_cuts_a_quarter_at_each_end():
    assert stats.iqm([100, 2, 3, 4, -100, 1, 5, 6]) == pytest.approx(np.mean([2, 3, 4, 5]))
    assert stats.iqm([1, 2, 9]) == pytest.approx(4)  # too few to cut
    assert math.isnan(stats.iqm([]))


@pytest.mark.parametrize("values", [[], [0.3], [0.3, 0.4], [0.1, 0.2, 0.3], [0.2] * 10])
def test_values_that_cannot_carry_an_interval_have_none(values):
    estimate = stats.iqm_interval(values)
    assert not estimate.has_interval
    assert estimate.n == len(values)
    assert math.isnan(estimate.value) == (not values)
    assert not stats.difference(values, values).has_interval


@few
@given(st.lists(numbers, min_size=4, max_size=12))
def test_an_interval_holds_its_value_and_stays_inside_the_data(values):
    estimate = stats.iqm_interval(values)
    if estimate.has_interval:
        assert min(values) - 1e-9 <= estimate.low <= estimate.value + 1e-9
        assert estimate.value - 1e-9 <= estimate.high <= max(values) + 1e-9


def test_an_interval_is_the_same_each_time_and_draws_from_nobodys_generator(random_state_untouched):
    values = np.random.default_rng(0).normal(size=8)
    with random_state_untouched():
        first, second = stats.iqm_interval(values), stats.iqm_interval(values)
    assert first == second


def test_a_difference_of_pairs_that_move_together_is_known_better():
    a = np.array([0.1, 0.3, 0.2, 0.7, 0.5, 0.4, 0.9, 0.6])
    b = a - 0.1 + 0.01 * np.array([1, -1, 1, -1, -1, 1, -1, 1])
    alone, paired = stats.difference(a, b), stats.difference(a, b, paired=True)
    assert alone.value == paired.value == pytest.approx(stats.iqm(a) - stats.iqm(b))
    assert paired.high - paired.low < (alone.high - alone.low) / 2
    with pytest.raises(ValueError, match="equal lengths, got 8 and 7"):
        stats.difference(a, b[:7], paired=True)


# --- coverage: how often the interval holds the true value, by simulation


def normal(rng, n):
    return rng.normal(0.4, 0.1, n)


def skewed(rng, n):
    return rng.beta(2, 5, n)


def one_in_ten_fails(rng, n):
    return np.where(rng.random(n) < 0.1, 0.0, rng.normal(0.4, 0.1, n))


@pytest.mark.parametrize("draw", [normal, skewed, one_in_ten_fails])
@pytest.mark.parametrize(("n", "least"), [(5, 0.89), (10, 0.92)])
def test_a_95_percent_interval_over_seeds_covers_about_that(draw, n, least, monkeypatch):
    # docs/reading-a-leaderboard.md states what a longer simulation measured; this one would notice if that were untrue
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng = np.random.default_rng(1)
    truth = stats.iqm(draw(rng, 1_000_000))
    intervals = [stats.iqm_interval(draw(rng, n), seed=i) for i in range(300)]
    assert least <= np.mean([i.low <= truth <= i.high for i in intervals]) <= 0.995


@pytest.mark.parametrize(("n", "least"), [(5, 0.93), (10, 0.93)])
def test_a_95_percent_interval_of_a_difference_covers_about_that(n, least, monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng = np.random.default_rng(2)
    intervals = [stats.difference(normal(rng, n), normal(rng, n), seed=i) for i in range(300)]
    assert least <= np.mean([i.low <= 0 <= i.high for i in intervals]) <= 0.995


def test_a_95_percent_interval_of_a_mean_over_five_spaces_covers_nearly_that(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng = np.random.default_rng(6)
    intervals = [stats.mean_interval(normal(rng, 5), seed=i) for i in range(300)]
    assert 0.85 <= np.mean([i.low <= 0.4 <= i.high for i in intervals]) <= 0.995


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("n", [5, 10])
def test_a_95_percent_interval_of_the_probability_of_improvement_covers_about_that(shift, n):
    rng = np.random.default_rng(3)
    truth = scipy_stats.norm.cdf(shift / math.sqrt(2))
    intervals = [stats.improvement(rng.normal(shift, 1, n), rng.normal(0, 1, n)) for _ in range(300)]
    assert np.mean([i.low <= truth <= i.high for i in intervals]) >= 0.9


# --- probability of improvement


def test_ties_count_half():
    assert stats.improvement([1, 2], [1, 0]).value == pytest.approx((0.5 + 1 + 1 + 1) / 4)


def test_five_of_five_is_not_certainty():
    estimate = stats.improvement([6, 7, 8, 9, 10], [1, 2, 3, 4, 5])
    assert estimate.value == estimate.high == 1
    assert 0.6 < estimate.low < 0.7


@few
@given(samples, samples)
def test_a_beats_b_as_often_as_b_loses_to_a(a, b):
    there, back = stats.improvement(a, b), stats.improvement(b, a)
    assert there.value + back.value == pytest.approx(1)
    if there.has_interval:
        assert 0 <= there.low <= there.value <= there.high <= 1
        assert (there.low, there.high) == pytest.approx((1 - back.high, 1 - back.low), abs=0.1)


@few
@given(samples, samples)
def test_the_probability_is_mann_whitneys_u_per_pair(a, b):
    u = scipy_stats.mannwhitneyu(a, b, method="asymptotic").statistic
    assert stats.improvement(a, b).value == pytest.approx(u / (len(a) * len(b)))


def test_standard_error_of_hanley_and_mcneils_example():
    # Radiology 143 (1982): area 0.893 for 51 abnormal and 58 normal images, standard error 0.032
    assert stats.auc_standard_error(0.893, 51, 58) == pytest.approx(0.032, abs=1e-3)


# --- tests


def test_p_values_of_few_runs_are_exact():
    assert stats.rank_test([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]).p == pytest.approx(2 / 252)
    assert stats.rank_test([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]).smallest_p == pytest.approx(2 / 252)
    assert stats.paired_test([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]).p == pytest.approx(2 / 32)
    assert stats.paired_test([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]).smallest_p == pytest.approx(2 / 32)


def test_mann_whitney_with_ties_counts_arrangements():
    a, b = [0, 0, 3, 4, 5], [6, 7, 8, 9, 10]
    assert stats.rank_test(a, b).p == pytest.approx(2 / 252)  # only the tied values could change places


@few
@given(samples, samples)
def test_no_p_value_is_below_the_smallest_one(a, b):
    pairs = min(len(a), len(b))
    for test in (stats.rank_test(a, b), stats.paired_test(a[:pairs], b[:pairs])):
        assert math.isnan(test.p) if pairs == 1 else test.smallest_p - 1e-12 <= test.p <= 1


@pytest.mark.parametrize("n", [2, 5, 40])
def test_equal_values_are_no_evidence(n):
    assert stats.rank_test([0.3] * n, [0.3] * n).p == 1
    assert stats.paired_test([0.3] * n, [0.3] * n).p == 1


def test_many_tied_pairs_need_no_warning():
    assert stats.paired_test(np.arange(30) // 2, np.zeros(30)).p < 0.001


def test_holms_correction_of_a_worked_example():
    # Holm (1979) as in R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_holms_correction_leaves_out_what_could_not_be_tested():
    adjusted = stats.holm([0.01, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


def test_holms_correction_agrees_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(4).random(12) ** 3
    np.testing.assert_allclose(stats.holm(p.tolist()), multitest.multipletests(p, method="holm")[1])


# --- the smallest detectable difference


@pytest.mark.parametrize(("d", "n"), [(0.2, 393), (0.5, 64), (0.8, 26), (1.0, 17)])
def test_detectable_difference_inverts_cohens_table(d, n):
    # Cohen (1988), table 2.4.1: n in each group for power 0.80 at two-sided alpha 0.05
    assert stats.detectable_difference(1, n, n) <= d * 1.001
    assert stats.detectable_difference(1, n - 1, n - 1) > d


def test_detectable_difference_of_pairs_inverts_the_published_sample_size():
    assert stats.detectable_difference(1, 34) <= 0.5 < stats.detectable_difference(1, 33)  # 34 pairs for d = 0.5


def test_detectable_difference_agrees_with_statsmodels():
    power = pytest.importorskip("statsmodels.stats.power")
    expected = power.TTestIndPower().solve_power(nobs1=5, ratio=2, alpha=0.01, power=0.8)
    assert stats.detectable_difference(0.1, 5, 10, alpha=0.01) == pytest.approx(0.1 * expected, rel=1e-4)


def test_a_test_that_cannot_reach_the_level_detects_nothing():
    assert stats.detectable_difference(0.1, 5, smallest_p=2 / 32) == math.inf
    assert math.isnan(stats.detectable_difference(math.nan, 1, 1))


def test_pooled_deviation_weighs_groups_by_their_degrees_of_freedom():
    assert stats.pooled_sd([0, 2], [0, 0, 0]) == pytest.approx(math.sqrt(2 / 3))
    assert math.isnan(stats.pooled_sd([1], [2]))


# --- area under the curve, ranks


def test_anytime_is_the_average_over_the_budget_after_the_first_checkpoint():
    assert stats.anytime([0.3] * 4, CHECKPOINTS) == pytest.approx(0.3)
    assert stats.anytime([0.1, 0.2, 0.5, 1.0], CHECKPOINTS) == pytest.approx(0.55)  # taskness = share of the budget
    assert math.isnan(stats.anytime([0.1, math.nan, 0.5, 1.0], CHECKPOINTS))


# Demsar (2006), table 6: AUC of four variants of C4.5 on 14 data sets
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.975, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_demsars_example():
    table = DEMSAR.copy()
    table[12, 2] += 1e-6  # the paper's ranks are of unrounded values: in this row they break the rounded tie
    result = stats.rank_searchers(table)
    assert result.average_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    assert result.critical_difference == pytest.approx(1.25, abs=5e-3)
    # The paper's chi-square, 9.28, and F, 3.69, are not corrected for ties; scipy's are, which makes them larger.
    without_ties = 12 * 14 / (4 * 5) * (np.square(result.average_ranks).sum() - 4 * 25 / 4)
    assert without_ties == pytest.approx(9.28, abs=0.01)
    assert 13 * without_ties / (14 * 3 - without_ties) == pytest.approx(3.69, abs=0.01)
    assert result.friedman_chi2 == pytest.approx(scipy_stats.friedmanchisquare(*(-table).T).statistic)
    assert result.iman_davenport_p < result.friedman_p < 0.05


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)])
def test_critical_values_are_those_of_demsars_table(k, q):
    n = 14
    assert stats.critical_difference(k, n) == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * n)), rel=1e-3)


def test_iman_davenports_f_follows_from_friedmans_chi_square():
    table = np.random.default_rng(5).random((12, 4))
    result = stats.rank_searchers(table)
    f = 11 * result.friedman_chi2 / (12 * 3 - result.friedman_chi2)
    assert result.iman_davenport_f == pytest.approx(f)


def test_few_spaces_or_searchers_have_no_critical_difference():
    assert stats.rank_searchers(np.zeros((4, 3))) is None
    assert stats.rank_searchers(np.zeros((9, 2))) is None


def test_searchers_that_are_alike_share_their_ranks():
    result = stats.rank_searchers(np.ones((6, 3)))
    assert result.average_ranks == (2.0, 2.0, 2.0)
    assert result.friedman_p == 1.0
