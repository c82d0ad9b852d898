"""What is trained: replicates, starts, few positives, memory; and what training from scratch must come to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tdbench import TaskSpace
from tdbench.base.rng import Stream, replicate_seeds
from tdbench.engine import TrainingBatch, make_engine
from tdbench.engine.networks import with_new_last_layer
from tdbench.engine.protocol import train_masks
from tdbench.space.executor import Request
from tdbench.space.score import generalization_level, taskness
from tdbench.space.sources import load_source
from tdbench.store.curves import RememberedTrainings
from tdbench.tasks.scoring import score
from tdbench.transfers.protocol import all_shots, few_shots, measure
from tdbench.transfers.settings import TransferSettings
from tdbench.transfers.sources import ALL, OWN, RANDOM, plan

DIGITS = load_source("digits")
ENGINE = make_engine()
SPACE = TaskSpace(DIGITS, n=20, steps=10, engine=ENGINE)
SMALL = TransferSettings(sets=1, target_n=20, replicates=2, controls=1, shots=(2,))


@pytest.fixture
def trainings(tmp_path):
    kept = RememberedTrainings(tmp_path, ENGINE)
    yield kept
    kept.close()


@pytest.fixture
def made(trainings):
    return plan(SPACE, DIGITS, None, SMALL, trainings)


def test_from_scratch_is_an_ordinary_training_on_the_replicate(made, trainings):
    target = made.targets[0].space
    measured = measure(made, SMALL, trainings)
    full = [one for one in measured if one.shots == 3 and one.target == target.classes[0]]
    seeds = replicate_seeds(Stream.TRANSFER, SMALL.seed, 0, [0], SMALL.replicates)[0]
    labels = made.targets[0].labels[:1]
    (expected,) = trainings.taskness([Request(target, labels, seeds[None])])
    for one in full:
        np.testing.assert_allclose(one.scratch, expected[0], atol=1e-6)


def test_a_pair_is_pretraining_on_all_images_then_training_with_a_new_last_layer(made, trainings):
    source = next(one for one in made.sources if one.kind == RANDOM)
    target = made.targets[0]
    measured = measure(made, SMALL, trainings)
    one = next(m for m in measured if (m.kind, m.mode, m.shots, m.target) == (RANDOM, "frozen", 3, target.names[0]))
    seeds = replicate_seeds(Stream.TRANSFER, SMALL.seed, 0, [0], SMALL.replicates)[0]
    everything = np.ones((2, 20), dtype=bool)
    first = TrainingBatch.checked(SPACE.images, np.repeat(source.labels, 2, axis=0), everything, seeds)
    start = with_new_last_layer(ENGINE.train(first, SPACE.protocol).weights, seeds)
    labels = np.repeat(target.labels[:1], 2, axis=0)
    mask = train_masks(labels, seeds, "stratified")
    then = TrainingBatch.checked(target.space.images, labels, mask, weights=start, frozen=True)
    curves = ENGINE.curves(then, target.space.protocol)
    baselines = trainings.evaluator.baselines(Request(target.space, labels[:1], seeds[None]))
    np.testing.assert_allclose(one.taskness, taskness(generalization_level(curves), baselines), atol=1e-6)


def test_a_second_call_trains_nothing_and_finds_the_same(made, trainings, monkeypatch):
    first = measure(made, SMALL, trainings)
    for name in ("curves", "train"):
        monkeypatch.setattr(type(ENGINE), name, lambda *_: pytest.fail("trained again"))
    again = measure(made, SMALL, trainings)
    assert [one.taskness.tolist() for one in again] == [one.taskness.tolist() for one in first]


def test_small_blocks_of_memory_change_nothing(made, trainings, tmp_path, monkeypatch):
    whole = measure(made, SMALL, trainings)
    monkeypatch.setattr("tdbench.transfers.protocol.MOST_NETWORKS", 1)
    other = RememberedTrainings(tmp_path / "other", ENGINE)
    blocks = measure(made, SMALL, other)
    other.close()
    assert [one.taskness.tolist() for one in blocks] == [one.taskness.tolist() for one in whole]


def test_more_replicates_begin_with_the_same_ones(made, trainings):
    two = measure(made, SMALL, trainings)
    three = measure(made, replace(SMALL, replicates=3), trainings)
    for a, b in zip(two, three, strict=True):
        np.testing.assert_array_equal(a.taskness, b.taskness[:2])


def test_another_source_or_pretraining_is_another_training(made, trainings):
    longer = plan(SPACE, DIGITS, None, replace(SMALL, pretrain_steps=15), trainings)
    a, b = (next(m for m in measure(p, SMALL, trainings) if m.kind == RANDOM and m.shots == 3) for p in (made, longer))
    assert (a.taskness != b.taskness).any() and (a.scratch == b.scratch).all()


def test_fewer_positives_keep_the_validation_side_and_are_a_part_of_more():
    labels = (np.arange(50) < 10).astype(np.uint8)
    seed = np.uint64(5)
    full = train_masks(labels[None], np.array([seed]), "stratified")[0]
    validation = set(np.flatnonzero(~full))
    kept = {}
    for shots in (2, 4, 8):
        index, mask = few_shots(labels, seed, shots)
        assert set(index[~mask]) == validation
        assert labels[index[mask]].sum() == shots and (labels[index[mask]] == 0).sum() == 4 * shots
        kept[shots] = set(index[mask])
    assert kept[2] < kept[4] < kept[8] == set(np.flatnonzero(full))


def test_a_library_at_once_is_one_network_for_all_its_tasks(trainings):
    library = score(SPACE, np.stack([task.labels for task in SPACE.reference_tasks[:2]]), confirm=2)
    settings = replace(SMALL, modes=("fine-tune",), shots=(), members=1)
    made = plan(SPACE, DIGITS, library, settings, trainings)
    together = next(one for one in made.sources if one.kind == ALL)
    assert together.labels.shape == (2, 20)
    only = replace(made, sources=(together,))
    assert {one.kind for one in measure(only, settings, trainings)} == {ALL}
    assert all_shots(made.targets[0]) == 3


def test_the_targets_own_classes_on_other_images_help_and_noise_does_not_beat_them(trainings, cifar10_sample):
    source = load_source(str(cifar10_sample))
    space = TaskSpace(source, n=400, engine=ENGINE)
    settings = TransferSettings(sets=2, replicates=3, pretrain_steps=50, controls=1, shots=())
    made = plan(space, source, None, settings, trainings)
    known = replace(made, sources=tuple(one for one in made.sources if one.kind in (OWN, RANDOM)))
    measured = measure(known, settings, trainings)
    own, noise = (np.mean([one.gain for one in measured if one.kind == kind]) for kind in (OWN, RANDOM))
    assert own > 0.02
    assert noise < own - 0.05
