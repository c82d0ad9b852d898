"""Affinity against numbers worked out by hand, and what must hold for any replicates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdbench.transfers.affinity import affinities, affinity, clustered, tree, win_rates

# Three sources on four replicates.
TASKNESS = np.array([[0.9, 0.8, 0.5, 0.5], [0.1, 0.9, 0.2, 0.5], [0.0, 0.0, 0.0, 0.0]])


def test_win_rates_are_those_counted_by_hand():
    # The first beats the second in replicates 1 and 3 and ties in 4: 2.5 of 4. Both always beat the third.
    expected = [[1, 0.625, 1], [0.375, 1, 1], [0, 0, 1]]
    np.testing.assert_allclose(win_rates(TASKNESS), expected)


def test_affinity_is_the_eigenvector_worked_out_by_hand():
    # Two sources with win rates w and 1 - w: [[1, r], [1/r, 1]] with r = w / (1 - w) has the eigenvector (r, 1).
    assert affinity(np.array([[1, 0.75], [0.25, 1]])).tolist() == pytest.approx([0.75, 0.25])
    # A consistent matrix a_ij = p_i / p_j has the eigenvector p: here p = 4 : 2 : 1.
    rates = np.array([[1, 2 / 3, 4 / 5], [1 / 3, 1, 2 / 3], [1 / 5, 1 / 3, 1]])
    assert affinity(rates).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def test_affinity_of_the_three_sources_by_power_iteration():
    rates = np.clip([[1, 0.625, 1], [0.375, 1, 1], [0, 0, 1]], 0.001, 0.999)
    ratio, vector = rates / rates.T, np.ones(3)
    np.testing.assert_allclose(ratio[0], [1, 0.625 / 0.375, 999])
    for _ in range(200):
        vector = ratio @ vector / (ratio @ vector).sum()
    np.testing.assert_allclose(affinity(win_rates(TASKNESS)), vector, atol=1e-9)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_affinities_are_positive_and_sum_to_one_for_each_target(sources, replicates, seed):
    taskness = np.random.default_rng(seed).integers(0, 4, (sources, 3, replicates)) / 4
    found = affinities(taskness)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(axis=0), 1)


def test_a_source_that_always_wins_has_the_most_affinity():
    taskness = np.random.default_rng(0).random((5, 1, 10))
    taskness[3] += 2
    assert affinities(taskness)[:, 0].argmax() == 3


def test_alike_sources_are_neighbours():
    features = np.array([[0.0, 0.0], [5.0, 5.0], [0.1, 0.0], [5.0, 5.1]])
    order = clustered(features)
    assert abs(order.index(0) - order.index(2)) == abs(order.index(1) - order.index(3)) == 1
    assert tree(features).shape == (3, 4)
    assert clustered(features[:2]) == [0, 1]
