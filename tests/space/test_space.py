"""TaskSpace: what a space is made of, what its identity covers, and what a label vector is worth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tdbench import TaskSpace
from tdbench.base.errors import UserError
from tdbench.base.rng import Stream, replicate_seeds
from tdbench.engine import TrainingBatch, make_engine
from tdbench.engine.protocol import TrainingProtocol, train_masks, validation_size
from tdbench.space.evaluate import Evaluator
from tdbench.space.executor import LocalExecutor, Request
from tdbench.space.image_set import standardize
from tdbench.space.score import generalization_level
from tdbench.space.sources import Source
from tdbench.store.confirmations import tag_of

RNG = np.random.default_rng(0)
MINE = Source("mine", RNG.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 6, tuple("abcdef"))


def small(**changes):
    return TaskSpace(**{"data": MINE, "n": 12, "ratio": 2, "steps": 6, "engine": "batched", "device": "cpu", **changes})


@pytest.fixture(scope="module")
def space():
    return small()


# the image set


@pytest.mark.parametrize(("n", "ratio"), [(12, 2), (10, 4), (18, 5), (20, 1), (60, 5)])
def test_a_set_holds_p_images_of_each_of_r_plus_one_classes(n, ratio):
    space = small(n=n, ratio=ratio)
    assert space.n_positives == n // (ratio + 1)
    assert len(set(space.classes)) == ratio + 1
    assert list(np.bincount(space.class_of)) == [space.n_positives] * (ratio + 1)
    assert len(np.unique(space.pixels.reshape(n, -1), axis=0)) == n


def test_images_are_of_the_class_they_are_said_to_be():
    space = small()
    for pixels, c in zip(space.pixels, space.class_of, strict=True):
        index = int(np.flatnonzero((MINE.images == pixels).all(axis=(1, 2, 3)))[0])
        assert MINE.label_names[MINE.labels[index]] == space.classes[c]


def test_images_are_not_in_class_order():
    orders = [tuple(small(n=60, ratio=5, seed=seed).class_of) for seed in range(3)]
    assert len(set(orders)) == 3
    assert all(np.abs(np.diff(order)).astype(bool).sum() > 20 for order in orders)


def test_the_seed_decides_classes_images_and_order():
    assert small(seed=3).identity == small(seed=3).identity
    assert len({small(seed=seed).identity for seed in range(10)}) == 10
    assert len({frozenset(small(seed=seed).classes) for seed in range(30)}) > 10


def test_named_classes_are_taken_in_their_order():
    space = small(classes=["f", "a", "c"])
    assert space.classes == ("f", "a", "c")
    assert [t.name for t in space.reference_tasks if t.kind == "class"] == ["f", "a", "c"]


def test_class_tasks_label_their_class(space):
    tasks = {t.name: t.labels for t in space.reference_tasks if t.kind == "class"}
    for c, name in enumerate(space.classes):
        np.testing.assert_array_equal(tasks[name], space.class_of == c)


@settings(max_examples=20)
@given(arrays(np.uint8, (3, 32, 32, 3), elements=st.integers(0, 255), fill=st.integers(0, 255)))
def test_pixels_are_standardized_by_channel(pixels):
    images = standardize(pixels)
    assert (images.dtype, images.shape) == (np.float32, (3, 3, 32, 32))
    for channel in range(3):
        values = images[:, channel].astype(np.float64)
        if np.ptp(pixels[..., channel]) == 0:
            assert (values == 0).all()
        else:
            assert abs(values.mean()) < 1e-4
            assert values.std() == pytest.approx(1, abs=1e-4)
            line = np.corrcoef(values.ravel(), pixels[..., channel].ravel().astype(float))[0, 1]
            assert line == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("value", range(0, 256, 15))
def test_a_constant_channel_becomes_exactly_zero(value):
    pixels = RNG.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    pixels[..., 1] = value
    assert (standardize(pixels)[:, 1] == 0).all()


def test_a_space_cannot_be_changed_by_accident(space):
    for array in (space.pixels, space.images, space.class_of):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


# identity


def test_the_default_spaces_identity_stays_what_it_is():
    assert TaskSpace().identity == "b28d80e3ec15"


def test_identity_covers_pixels_sizes_and_protocol():
    changed = MINE.images.copy()
    changed[:, 0, 0, 0] ^= 1
    variants = [
        small(),
        small(data=Source("mine", changed, MINE.labels, MINE.label_names)),
        small(n=15),
        small(n=12, ratio=1),
        small(steps=7),
        small(lr=2e-3),
        small(split="random"),
        small(seed=1),
    ]
    assert len({v.identity for v in variants}) == len(variants)


def test_identity_covers_the_ratio_even_where_the_pixels_are_the_same():
    one = Source("one", MINE.images[:12], np.arange(12) % 2, ("a", "b"))
    two = Source("two", one.images, np.arange(12) % 3, ("a", "b", "c"))
    by_pixels = [TaskSpace(s, n=12, ratio=r) for s, r in ((one, 1), (two, 2))]
    for space in by_pixels:
        space.pixels = one.images
    assert by_pixels[0].identity != by_pixels[1].identity


def test_identity_leaves_out_names_engine_and_number_types():
    renamed = Source("other", MINE.images.copy(), MINE.labels, tuple("uvwxyz"))
    numbers = {"n": np.int64(12), "ratio": np.int32(2), "seed": np.int64(0), "steps": np.int64(6), "lr": 1e-3}
    variants = [small(), small(data=renamed), small(engine="reference"), small(**numbers)]
    assert len({v.identity for v in variants}) == 1
    assert small(lr=1).identity == small(lr=1.0).identity


def test_identity_is_twelve_hex_digits_and_in_the_name(space):
    assert len(space.identity) == 12
    assert int(space.identity, 16) >= 0
    assert space.name == f"mine-n12-r2-s0-{space.identity}"


# errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 52, "ratio": 4}, "the nearest valid n is 50 or 55"),
        ({"n": 7, "ratio": 4}, "the nearest valid n is 10"),
        ({"n": 11, "ratio": 4}, "the nearest valid n is 10 or 15"),
        ({"n": 3, "ratio": 2}, "the smallest valid n is 6"),
        ({"n": 0}, "n must be a positive number"),
        ({"n": -12}, "n must be a positive number"),
        ({"ratio": 0}, "ratio must be at least 1"),
        ({"ratio": -2}, "ratio must be at least 1"),
        ({"seed": -1}, "space seed must be from 0"),
        ({"seed": 2**32}, "space seed must be from 0"),
        ({"n": 14, "ratio": 6}, "needs 7 classes, but mine has 6; the largest ratio here is 5"),
        ({"n": 33}, "the largest n at 1:2 is 30"),
        ({"n": 33, "classes": ["a", "b", "c"]}, "class 'a' of mine has 10 images, 11 are needed"),
        ({"classes": ["a", "b", "x"]}, "no class 'x'"),
        ({"classes": ["a", "b"]}, "3 different classes"),
        ({"classes": ["a", "b", "b"]}, "3 different classes"),
        ({"steps": 4}, "steps must be at least 5"),
        ({"split": "half"}, "split must be one of"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(changes, message):
    with pytest.raises(UserError, match=message) as error:
        small(**changes)
    assert "\n" not in str(error.value)


@settings(max_examples=50)
@given(n=st.integers(1, 200), ratio=st.integers(1, 20))
def test_the_n_an_error_names_is_valid_and_nearest(n, ratio):
    group = ratio + 1
    valid = list(range(2 * group, 260, group))
    if n in valid:
        return
    with pytest.raises(UserError) as error:
        small(n=n, ratio=ratio)
    named = [int(word) for word in str(error.value).partition("valid n is ")[2].split() if word != "or"]
    assert named
    assert set(named) <= set(valid)
    assert min(abs(m - n) for m in named) == min(abs(m - n) for m in valid)


@pytest.mark.parametrize("use", ["taskness", "confirm"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((1, 11)), r"shape \(B, 12\), but it had shape \(1, 11\)"),
        (np.zeros((1, 12)), "exactly P=4 ones"),
        (np.ones((1, 12)), "exactly P=4 ones"),
        (np.array([[2, 2] + [0] * 10]), "exactly P=4 ones"),
        (np.array([[0.5] * 8 + [0] * 4]), "exactly P=4 ones"),
        (np.array([[np.nan] * 12]), "exactly P=4 ones"),
        (np.zeros((1, 1, 12)), r"shape \(B, 12\), but it had shape \(1, 1, 12\)"),
    ],
)
def test_what_is_no_label_vector_is_an_error_that_says_why(space, use, labels, message):
    with pytest.raises(ValueError, match=message):
        getattr(space, use)(labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"noise": "fresch"}, "noise must be one of"), ({"replicates": 0}, "replicates"), ({"run_seed": -1}, "seed must")],
)
def test_settings_of_a_scoring_are_checked(space, settings, message):
    with pytest.raises(UserError, match=message):
        space.taskness(space.random_labelings(1), **settings)


# decode


@given(st.data())
def test_decoding_labels_the_highest_scores(data):
    space = small()
    scores = data.draw(arrays(np.float64, (3, 12), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1)))
    before = scores.copy()
    for row, labels in zip(scores, space.decode(scores), strict=True):
        highest = sorted(range(12), key=lambda i: (-row[i], i))[:4]
        assert sorted(np.flatnonzero(labels)) == sorted(highest)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64, np.float32])
def test_decoding_a_label_vector_gives_it_back_whatever_its_type(space, dtype):
    labels = space.random_labelings(5)
    np.testing.assert_array_equal(space.decode(labels.astype(dtype)), labels)


@pytest.mark.parametrize("shape", [(12,), (2, 11), (1, 2, 12)])
def test_scores_of_another_shape_are_an_error(space, shape):
    with pytest.raises(ValueError, match="expected scores"):
        space.decode(np.zeros(shape))


# scoring


def test_taskness_is_the_mean_over_its_replicates(space):
    labels = space.random_labelings(3)
    seeds = replicate_seeds(Stream.FRESH, 0, 5, [7, 8, 9], 2)
    expected = evaluate([Request(space, labels, seeds)], space.engine)[0].mean(axis=1)
    told = space.taskness(labels, replicates=2, run_seed=5, first_evaluation=7)
    np.testing.assert_array_equal(told, expected)


def test_taskness_does_not_depend_on_the_batch(space):
    labels = space.random_labelings(4)
    together = space.taskness(labels)
    for i in range(4):
        assert space.taskness(labels[i : i + 1], first_evaluation=i)[0] == together[i]


def test_taskness_is_the_definition_put_together(space):
    labels = space.random_labelings(1)
    seeds = space.told_seeds([0], 1, "fresh", 0).ravel()
    mask = train_masks(labels, seeds, "stratified")
    batch = TrainingBatch.checked(space.images, labels, mask, seeds)
    curve = make_engine("batched", "cpu").curves(batch, space.protocol)
    b = independent_baseline(space, (labels * ~mask).sum())
    assert space.taskness(labels)[0] == pytest.approx((b - generalization_level(curve)[0]) / b, rel=1e-6)


def baselines(space, labels, mask):
    """(B,) baselines of trainings with these labels and masks."""
    request = Request(space, labels, np.zeros((len(labels), 1), dtype=np.uint64), mask)
    return Evaluator(LocalExecutor(space.engine)).baselines(request)


def independent_baseline(space, validation_positives):
    """b, from blank images with labels and masks that look otherwise than the library's."""
    n, p, n_validation = space.n, space.n_positives, validation_size(space.n)
    f = (p - validation_positives) / (n - n_validation)
    f = min(max(f, 1 / n), 1 - 1 / n)
    v = validation_positives / n_validation
    informed = -(v * math.log(f) if v else 0) - ((1 - v) * math.log(1 - f) if v < 1 else 0)
    labels = np.zeros(n, dtype=np.uint8)
    labels[-p:] = 1
    mask = np.ones(n, dtype=bool)
    mask[n - validation_positives :] = False
    mask[: n_validation - validation_positives] = False
    seeds = replicate_seeds(Stream.BLIND, 0, 0, [0], 8)[0]
    blank = np.zeros((n, 3, 32, 32), dtype=np.float32)
    batch = TrainingBatch.checked(blank, np.tile(labels, (8, 1)), np.tile(mask, (8, 1)), seeds)
    curves = make_engine("reference", "cpu").curves(batch, TrainingProtocol(space.protocol.steps, space.protocol.lr))
    return (informed + generalization_level(curves).mean()) / 2


def test_the_baseline_of_stratified_splits_is_one_value(space):
    labels = space.random_labelings(3)
    mask = train_masks(labels, np.arange(3, dtype=np.uint64), "stratified")
    values = baselines(space, labels, mask)
    np.testing.assert_allclose(values, [independent_baseline(space, 1)] * 3, rtol=1e-5)


def test_the_baseline_of_random_splits_is_each_splits_own():
    space = small(split="random")
    labels = space.random_labelings(12)
    mask = train_masks(labels, np.arange(12, dtype=np.uint64), "random")
    inside = (labels * ~mask).sum(axis=1)
    assert len(set(inside)) > 1
    expected = [independent_baseline(space, int(count)) for count in inside]
    np.testing.assert_allclose(baselines(space, labels, mask), expected, rtol=1e-5)


def test_the_default_baseline_is_close_to_the_entropy():
    space = TaskSpace(n=50, ratio=4)
    labels = space.random_labelings(1)
    assert baselines(space, labels, train_masks(labels, np.zeros(1, np.uint64), "stratified")) == pytest.approx(
        0.5004, abs=0.01
    )


def test_fresh_evaluations_differ_and_frozen_ones_do_not(space):
    labels = np.repeat(space.random_labelings(1), 3, axis=0)
    assert len(set(space.taskness(labels))) == 3
    frozen = space.taskness(labels, noise="frozen")
    assert len(set(frozen)) == 1
    assert space.taskness(labels[:1], noise="frozen", run_seed=9, first_evaluation=4)[0] == frozen[0]


def test_run_seeds_draw_other_replicates(space):
    labels = space.random_labelings(1)
    assert space.taskness(labels)[0] != space.taskness(labels, run_seed=1)[0]


def test_told_frozen_and_confirmation_replicates_are_never_the_same(space):
    told = space.told_seeds(range(500), 3, "fresh", 0)
    frozen, confirmation = space.told_seeds([0], 100, "frozen", 0), space.confirm_seeds(1, 100)
    assert len(np.unique(np.concatenate([s.ravel() for s in (told, frozen, confirmation)]))) == 1700


def test_confirmation_is_the_same_for_one_labeling_and_for_many(space):
    labels = space.random_labelings(3)
    together = space.confirm(labels, replicates=4)
    assert together.shape == (3, 4)
    for row, y in zip(together, labels, strict=True):
        np.testing.assert_array_equal(space.confirm(y, replicates=4), row)
    np.testing.assert_array_equal(space.confirm(labels[0], replicates=2), together[0, :2])


def test_spaces_scored_together_are_scored_as_if_alone():
    spaces = [small(seed=0), small(seed=1), small(n=15), small(split="random"), small(steps=8)]
    requests = [Request(s, s.random_labelings(2), s.confirm_seeds(2, 2)) for s in spaces]
    requests.insert(2, Request(spaces[0], spaces[0].random_labelings(0), spaces[0].confirm_seeds(0, 2)))
    together = evaluate(requests, spaces[0].engine)
    for request, values in zip(requests, together, strict=True):
        np.testing.assert_array_equal(evaluate([request], spaces[0].engine)[0], values)


def test_no_label_vectors_have_no_taskness(space):
    assert space.taskness(np.zeros((0, 12))).shape == (0,)


def test_a_learning_rate_that_diverges_scores_minus_one():
    space = small(lr=1e8)
    np.testing.assert_array_equal(space.taskness(space.random_labelings(3)), [-1.0] * 3)


def test_scoring_touches_neither_arrays_nor_global_generators(space, random_state_untouched):
    labels = space.random_labelings(2)
    before = labels.copy()
    with random_state_untouched():
        space.taskness(labels)
        space.confirm(labels, replicates=1)
    np.testing.assert_array_equal(labels, before)
    assert labels.flags.writeable


def test_an_engine_already_made_is_used():
    engine = make_engine("reference", "cpu", 1)
    assert small(engine=engine).engine is engine
    assert tag_of(engine) == "reference cpu"


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_random_labelings_need_a_seed_in_range(space, seed):
    with pytest.raises(UserError, match="seed must be from 0"):
        space.random_labelings(1, seed=seed)


def test_a_real_task_stands_out_from_random_labelings(cifar10_sample):
    space = TaskSpace(str(cifar10_sample), n=20, ratio=1, steps=60)
    known = np.stack([task.labels for task in space.reference_tasks])
    values = space.confirm(np.concatenate([known, space.random_labelings(4)]), replicates=8).mean(axis=1)
    assert values[: len(known)].max() > values[len(known) :].max() + 0.1
