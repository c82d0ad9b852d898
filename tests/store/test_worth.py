"""What a library is worth, against values computed by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdbench.base.rng import random_labelings
from tdbench.space.references import ReferenceTask
from tdbench.space.similarity import Dissimilar
from tdbench.store import worth


def labeling(n: int, *ones: int) -> np.ndarray:
    labels = np.zeros(n, dtype=np.uint8)
    labels[list(ones)] = 1
    return labels


def test_quality_counts_negative_unknown_and_empty_places_as_0():
    assert worth.quality([0.8, -0.5, math.nan, 0.4], tasks=8) == pytest.approx(1.2 / 8)
    assert worth.quality([], tasks=3) == 0


def test_the_standard_error_of_quality_is_that_of_sums_over_members_that_count():
    values = np.array([[0.5, 0.7, 0.6], [0.2, 0.0, 0.4], [-0.3, -0.1, -0.2]])
    # sums of the first two: 0.7, 0.7, 1.0; deviation sqrt(0.03), divided by sqrt(3) and K = 4
    assert worth.quality_se(values, tasks=4) == pytest.approx(math.sqrt(0.03) / math.sqrt(3) / 4)


def test_tasks_are_members_whose_interval_lies_above_the_threshold():
    # Student's quantile for 4 replicates is 3.182446: lower ends 0.4182, 0.1818, NaN
    low, high = worth.confirmed_interval([0.5, 0.5, math.nan], [0.025703, 0.1, math.nan], 4)
    np.testing.assert_allclose(low, [0.418201, 0.181755, math.nan], atol=1e-5)
    np.testing.assert_allclose(high, [0.581799, 0.818245, math.nan], atol=1e-5)
    assert worth.tasks_above([0.5, 0.5, math.nan], [0.025703, 0.1, math.nan], 4, threshold=0.4) == 1
    assert worth.tasks_above([0.5, 0.5], [0.0, 0.0], 4, threshold=0.5) == 0


def test_the_best_confirmed_come_first_and_unknown_ones_last():
    assert worth.best_first([0.1, math.nan, 0.5, 0.1]).tolist() == [2, 0, 3, 1]


def test_the_effective_number_of_known_matrices():
    assert worth.effective_number(np.eye(5)) == pytest.approx(5)
    assert worth.effective_number(np.ones((5, 5))) == pytest.approx(1)
    assert worth.effective_number(np.empty((0, 0))) == 0
    # two members at kappa 0.6: eigenvalues / m are 0.8 and 0.2
    expected = math.exp(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)))
    assert worth.effective_number([[1, 0.6], [0.6, 1]]) == pytest.approx(expected)


def test_a_labeling_and_its_complement_are_one_task_at_half():
    labels = random_labelings(1, 10, 5, seed=0)
    both = np.concatenate([labels, 1 - labels])
    assert worth.effective_number(Dissimilar(10, 5).similarity(both, both)) == pytest.approx(1)


@given(st.sampled_from([(12, 4), (10, 5), (50, 10)]), st.integers(1, 20))
def test_the_chance_of_an_overlap_is_that_of_the_best_of_independent_labelings(size, m):
    n, p = size
    count = [math.comb(p, j) * math.comb(n - p, p - j) for j in range(p + 1)]
    if 2 * p == n:
        tails = [sum(c for j, c in enumerate(count) if max(j, p - j) >= o) for o in range(p + 1)]
    else:
        tails = [sum(count[o:]) for o in range(p + 1)]
    expected = [float(1 - (1 - Fraction(tail, math.comb(n, p))) ** m) for tail in tails]
    np.testing.assert_allclose(worth.chance_of_overlap(n, p, m), expected, rtol=1e-9, atol=1e-15)


def test_recall_of_a_task_that_is_in_the_library_and_of_one_that_is_not():
    found, other = labeling(50, *range(10)), labeling(50, *range(40, 50))
    noise = labeling(50, *range(20, 30))
    references = [
        ReferenceTask("cat", "class", labeling(50, *range(1, 11))),  # shares 9
        ReferenceTask("dog", "class", labeling(50, *range(30, 40))),  # shares none
        ReferenceTask("random 0", "random", noise),
    ]
    result = worth.recall(np.stack([other, found]), references)
    assert result.names == ("cat", "dog") and result.overlap.tolist() == [9, 0]
    assert result.hits.tolist() == [True, False] and result.recalled == 1 and result.nearest[0] == 1
    one = Fraction(10 * 40 + 1, math.comb(50, 10))
    assert result.chance[0] == pytest.approx(float(1 - (1 - one) ** 2)) and result.chance[1] == 1
    # of 2 random labelings, the least overlap that counts is 6: it has chance 0.0037, 5 has 0.029
    tail = Fraction(sum(math.comb(10, j) * math.comb(40, 10 - j) for j in range(6, 11)), math.comb(50, 10))
    assert result.expected == pytest.approx(2 * float(1 - (1 - tail) ** 2)) and result.expected < 0.01


def test_the_complement_of_a_class_is_found_again_at_half():
    reference = ReferenceTask("even", "class", labeling(20, *range(10)))
    result = worth.recall(1 - reference.labels[None], [reference])
    assert result.overlap.tolist() == [10] and result.recalled == 1


def test_recall_without_members_or_references_is_nothing():
    reference = ReferenceTask("even", "class", labeling(20, *range(10)))
    empty = worth.recall(np.empty((0, 20), dtype=np.uint8), [reference])
    assert (empty.recalled, empty.expected, empty.chance.tolist()) == (0, 0, [1])
    assert worth.recall(reference.labels[None], []).recalled == 0


def test_small_sets_can_have_no_hits():
    reference = ReferenceTask("a", "class", labeling(10, 0, 1))  # one in 45 labelings is the same
    result = worth.recall(reference.labels[None], [reference])
    assert result.recalled == 0 and result.expected == 0
