"""Splits: how many of each class go to validation, and that nothing but the seed decides which."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tdbench.base.errors import UserError
from tdbench.base.rng import random_labelings
from tdbench.engine.protocol import TrainingProtocol, train_masks, validation_counts, validation_size

SEED = st.integers(0, 2**64 - 1)
SIZES = st.tuples(st.integers(2, 30), st.integers(1, 39)).map(lambda pr: (pr[0] * (pr[1] + 1), pr[0]))  # (N, P)


def seeds(values):
    return np.array(values, dtype=np.uint64)


@given(SIZES)
def test_validation_counts_follow_the_formula_in_exact_arithmetic(size):
    n, p = size
    positives = max(1, math.floor(Fraction(p, 5) + Fraction(1, 2)))
    assert validation_counts(n, p) == (positives, round(Fraction(n, 5)) - positives)


@pytest.mark.parametrize(
    ("n", "p", "expected"),
    [(50, 10, (2, 8)), (20, 4, (1, 3)), (4, 2, (1, 0)), (6, 3, (1, 0)), (16, 8, (2, 1)), (26, 13, (3, 2)),
     (33, 3, (1, 6)), (500, 50, (10, 90)), (400, 10, (2, 78))],
)  # fmt: skip
def test_validation_counts_of_known_sizes(n, p, expected):
    assert validation_counts(n, p) == expected


@given(SIZES)
def test_both_classes_train_and_both_sides_hold_images(size):
    n, p = size
    positives, negatives = validation_counts(n, p)
    assert 0 < positives < p
    assert 0 <= negatives < n - p


@given(SIZES, st.lists(SEED, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_stratified_masks_hold_the_counts(size, values, seed):
    n, p = size
    labels = random_labelings(len(values), n, p, seed)
    validation = ~train_masks(labels, seeds(values), "stratified")
    positives, negatives = validation_counts(n, p)
    assert ((labels * validation).sum(axis=1) == positives).all()
    assert (validation.sum(axis=1) == positives + negatives).all()


@given(SIZES, st.lists(SEED, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_random_masks_hold_a_fifth_whatever_the_labels(size, values, seed):
    n, p = size
    labels = random_labelings(len(values), n, p, seed)
    mask = train_masks(labels, seeds(values), "random")
    assert ((~mask).sum(axis=1) == validation_size(n)).all()
    np.testing.assert_array_equal(mask, train_masks(labels[:, ::-1], seeds(values), "random"))


@given(SEED, st.lists(SEED, max_size=4), st.sampled_from(["stratified", "random"]))
def test_a_split_does_not_depend_on_its_neighbours(seed, others, split):
    labels = random_labelings(len(others) + 1, 15, 5, seed=1)
    together = train_masks(labels, seeds([*others, seed]), split)
    np.testing.assert_array_equal(train_masks(labels[-1:], seeds([seed]), split)[0], together[-1])


@given(SEED)
def test_one_order_of_images_serves_every_labeling(seed):
    """Validation positives are the first positives of the seed's order, whichever images are positive."""
    n, p = 12, 4
    labels = random_labelings(40, n, p, seed=2)
    validation = ~train_masks(labels, seeds([seed] * 40), "stratified")
    first_positive = [int(np.flatnonzero(row & (y == 1))[0]) for row, y in zip(validation, labels, strict=True)]
    for y, first in zip(labels, first_positive, strict=True):
        for other, other_first in zip(labels, first_positive, strict=True):
            if y[other_first] and other[first]:  # each could have been chosen for the other
                assert first == other_first


def test_other_seeds_split_otherwise():
    labels = np.repeat(random_labelings(1, 50, 10, 0), 50, axis=0)
    masks = train_masks(labels, seeds(range(50)), "stratified")
    assert len(np.unique(masks, axis=0)) == 50


def test_every_positive_is_validated_equally_often():
    labels = np.repeat(random_labelings(1, 20, 5, 0), 5000, axis=0)
    validation = ~train_masks(labels, seeds(range(5000)), "stratified")
    assert stats.chisquare(validation.sum(axis=0)[labels[0] == 1]).pvalue > 1e-4
    assert stats.chisquare(validation.sum(axis=0)[labels[0] == 0]).pvalue > 1e-4


@pytest.mark.parametrize("split", ["stratified", "random"])
def test_no_trainings_have_no_masks(split):
    assert train_masks(np.zeros((0, 10), dtype=np.uint8), seeds([]), split).shape == (0, 10)


def test_splitting_leaves_labels_and_global_generators_alone(random_state_untouched):
    labels = random_labelings(2, 10, 5, 0)
    before = labels.copy()
    with random_state_untouched():
        train_masks(labels, seeds([1, 2]), "stratified")
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 4}, "steps must be at least 5"),
        ({"lr": 0.0}, "lr must be a positive number"),
        ({"lr": -1e-3}, "lr must be a positive number"),
        ({"lr": math.nan}, "lr must be a positive number"),
        ({"lr": math.inf}, "lr must be a positive number"),
        ({"split": "stratifed"}, "split must be one of stratified, random"),
    ],
)
def test_a_protocol_that_cannot_train_is_an_error(settings, message):
    with pytest.raises(UserError, match=message):
        TrainingProtocol(**settings)


def test_numbers_of_any_type_make_one_protocol():
    assert TrainingProtocol(np.int64(7), np.float64(1)) == TrainingProtocol(7, 1)
    assert str(TrainingProtocol(np.int64(7), np.float64(1))) == str(TrainingProtocol(7, 1))
