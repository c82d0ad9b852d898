"""The score by its definition, written out naively."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tdbench.space.score import generalization_level, informed_baseline, standard_error, taskness

LOSS = st.floats(0, 1e30) | st.sampled_from([math.nan, math.inf, -math.inf])


def level_by_definition(curve):
    best = math.inf
    for start in range(len(curve) - 4):
        window = [x if math.isfinite(x) else math.inf for x in curve[start : start + 5]]
        best = min(best, statistics.median(window))
    return best


@given(arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(5, 14)), elements=LOSS))
@example(np.array([[1, 1, math.nan, math.nan, math.nan]]))
@example(np.array([[1, 2, 3, math.nan, math.inf]]))
def test_level_is_the_least_rolling_median(curves):
    np.testing.assert_array_equal(generalization_level(curves), [level_by_definition(list(c)) for c in curves])


def test_one_lucky_dip_does_not_set_the_level():
    assert generalization_level(np.array([[0.7, 0.7, 0.0, 0.7, 0.7, 0.7]])) == 0.7


@pytest.mark.parametrize("shape", [(3, 4), (7,), (2, 3, 7)])
def test_curves_that_no_window_fits_are_an_error(shape):
    with pytest.raises(ValueError, match="expected curves"):
        generalization_level(np.zeros(shape))


def test_scoring_leaves_the_curves_as_they_were():
    curves = np.array([[3, np.nan, 1, np.inf, 2.0]])
    before = curves.copy()
    generalization_level(curves)
    np.testing.assert_array_equal(curves, before)


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6))
def test_taskness_is_the_share_of_the_baseline_that_was_gained(level, baseline):
    value = taskness(np.array([level]), np.array([baseline]))[0]
    assert value == (baseline - level) / baseline
    assert value <= 1


@pytest.mark.parametrize("level", [math.inf, math.nan])
def test_a_training_without_a_level_has_taskness_minus_one(level):
    np.testing.assert_array_equal(taskness(np.array([0.0, level]), np.array([0.5, 0.5])), [1.0, -1.0])


@pytest.mark.parametrize("baseline", [math.inf, math.nan])
def test_no_taskness_is_ever_nan_even_without_a_baseline(baseline):
    assert taskness(np.array([0.4]), np.array([baseline])) == -1.0


@given(n=st.integers(4, 200), data=st.data())
def test_informed_baseline_is_the_loss_of_the_training_frequencies(n, data):
    n_validation = data.draw(st.integers(1, n - 1))
    positives = data.draw(st.integers(0, n))
    inside = data.draw(st.integers(max(0, positives - (n - n_validation)), min(positives, n_validation)))
    frequency = (positives - inside) / (n - n_validation)
    frequency = min(max(frequency, 1 / n), 1 - 1 / n)
    losses = [-math.log(frequency)] * inside + [-math.log(1 - frequency)] * (n_validation - inside)
    assert informed_baseline(n, positives, n_validation, inside) == pytest.approx(statistics.fmean(losses))


def test_one_positive_in_five_costs_the_entropy():
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert informed_baseline(50, 10, 10, 2) == pytest.approx(entropy)
    assert round(entropy, 4) == 0.5004


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30))
def test_standard_error_of_the_mean(values):
    assert standard_error(np.array(values)) == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)))


@pytest.mark.parametrize("values", [[], [0.5]])
def test_fewer_than_two_replicates_have_no_standard_error(values):
    assert math.isnan(standard_error(np.array(values)))
