"""Similarity of labelings, and the rule of task libraries, against definitions computed one pair at a time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from tdbench import UserError
from tdbench.base.rng import random_labelings
from tdbench.space.similarity import Dissimilar, kappa, overlap

SIZES = [(6, 3), (10, 2), (10, 5), (12, 4), (50, 10), (50, 25)]
sizes = st.sampled_from(SIZES)
similarities = st.sampled_from([0, 0.1, 0.125, 0.2, 0.25, 1 / 3, 0.375, 0.5, 0.7, 1]) | st.floats(0, 1)
seeds = st.integers(0, 1000)


def exact_similarity(a, b) -> Fraction:
    n, p, shared = len(a), int(a.sum()), int((a & b).sum())
    value = Fraction(shared * n - p * p, p * n - p * p)
    return value**2 if 2 * p == n else value


def test_kappa_is_cohens_kappa_of_each_pair():
    for n, p in SIZES:
        a, b = random_labelings(4, n, p, seed=1), random_labelings(3, n, p, seed=2)
        expected = [[cohen_kappa_score(x, y) for y in b] for x in a]
        np.testing.assert_allclose(kappa(a, b), expected, atol=1e-12)


def test_the_same_labeling_has_similarity_1_and_so_has_its_complement_at_half():
    labels = random_labelings(5, 20, 10, seed=3)
    rule = Dissimilar(20, 10)
    np.testing.assert_allclose(np.diag(rule.similarity(labels, labels)), 1)
    np.testing.assert_allclose(np.diag(rule.similarity(labels, 1 - labels)), 1)
    assert (np.diag(kappa(labels, 1 - labels)) == -1).all()


@pytest.mark.parametrize(
    ("n", "positives", "similarity", "expected"),
    [(50, 10, 0.25, 4), (50, 10, 0, 2), (50, 10, 0.125, 3), (50, 10, 0.375, 5), (50, 10, 1, 9), (50, 25, 0.25, 18)],
)
def test_max_overlap_of_known_cases(n, positives, similarity, expected):
    assert Dissimilar(n, positives, similarity).max_overlap == expected


@given(sizes, similarities, seeds)
@settings(max_examples=100, deadline=None)
def test_a_labeling_is_allowed_when_its_similarity_to_every_member_is_small_enough(size, similarity, seed):
    n, p = size
    labels, members = random_labelings(30, n, p, seed=seed), random_labelings(3, n, p, seed=seed + 1)
    labels = np.concatenate([labels, members[:1]])
    rule = Dissimilar(n, p, similarity)
    within = Fraction(similarity) + Fraction(1, 10**12)  # 0.2 is not exact in binary
    expected = [all(exact_similarity(x, y) <= within and exact_similarity(x, y) < 1 for y in members) for x in labels]
    assert rule.allowed(labels, members).tolist() == expected


@given(sizes, similarities, seeds)
@settings(max_examples=100, deadline=None)
def test_choose_takes_the_best_that_are_dissimilar(size, similarity, seed):
    n, p = size
    rule = Dissimilar(n, p, similarity)
    labels = random_labelings(40, n, p, seed=seed)[np.arange(50) % 40]  # some twice
    members = random_labelings(2, n, p, seed=seed + 1)
    order = np.random.default_rng(seed).permutation(50)
    expected = []
    for i in order:
        before = [*members, *labels[expected]]
        if len(expected) < 6 and rule.allowed(labels[[i]], np.array(before))[0]:
            expected.append(i)
    assert rule.choose(labels, order, 6, members).tolist() == expected


@given(sizes, seeds)
@settings(max_examples=50, deadline=None)
def test_members_of_a_library_are_pairwise_within_the_rule(size, seed):
    n, p = size
    rule = Dissimilar(n, p, 0.25)
    labels = random_labelings(200, n, p, seed=seed)
    chosen = labels[rule.choose(labels, np.arange(200), 200)]
    similarity = rule.similarity(chosen, chosen)
    np.fill_diagonal(similarity, -1)
    assert similarity.max() <= 0.25 + 1e-12


def test_nearest_is_the_largest_similarity_to_a_member():
    labels, members = random_labelings(5, 50, 10, seed=0), random_labelings(4, 50, 10, seed=1)
    rule = Dissimilar(50, 10)
    expected = [max(float(exact_similarity(x, y)) for y in members) for x in labels]
    np.testing.assert_allclose(rule.nearest(labels, members), expected, atol=1e-12)


def test_without_members_everything_is_allowed():
    labels, none = random_labelings(3, 10, 2, seed=0), np.empty((0, 10), dtype=np.uint8)
    rule = Dissimilar(10, 2, 0)
    assert rule.allowed(labels, none).all() and (rule.nearest(labels, none) == -np.inf).all()
    assert rule.choose(none, [], 3).shape == (0,)


def test_what_is_avoided_holds_complements_at_half_only():
    labels = random_labelings(3, 10, 5, seed=0)
    np.testing.assert_array_equal(Dissimilar(10, 5).avoid(labels), np.concatenate([labels, 1 - labels]))
    labels = random_labelings(3, 10, 2, seed=0)
    np.testing.assert_array_equal(Dissimilar(10, 2).avoid(labels), labels)


def test_overlap_counts_shared_positives():
    a, b = random_labelings(6, 50, 25, seed=0), random_labelings(7, 50, 25, seed=1)
    assert overlap(a, b).tolist() == [[int((x & y).sum()) for y in b] for x in a]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "0.25", None, True])
def test_a_similarity_out_of_range_is_refused(value):
    with pytest.raises(UserError, match=r"max.similarity must be a number from 0"):
        Dissimilar(50, 10, value)
