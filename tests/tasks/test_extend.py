"""Extending tasks to unseen images, against a computation network by network, image by image."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from tdbench import TaskSpace, UserError
from tdbench.engine import TrainingBatch, make_engine
from tdbench.engine.protocol import train_masks
from tdbench.engine.reference import network_of
from tdbench.space.image_set import standardize
from tdbench.space.seal import write_new_key
from tdbench.space.sources import Source, load_source
from tdbench.tasks.extend import Extension, agreement_of, extend, extension_path
from tdbench.tasks.scoring import score

DIGITS = load_source("digits")
FEW = Source("few", DIGITS.images[:160], DIGITS.labels[:160], DIGITS.label_names)
SPACE = TaskSpace(FEW, n=20, steps=20, engine="reference")
LABELS = np.stack([task.labels for task in SPACE.reference_tasks[:2]])
LIBRARY = score(SPACE, LABELS, confirm=5)
EXTENSION = extend(LIBRARY, SPACE, FEW)


def by_hand(labels: np.ndarray) -> np.ndarray:
    """(R, M) margins of the confirming networks on the unseen images, one network and one image at a time."""
    pixels = SPACE.pixels.astype(np.float64)
    mean, deviation = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    seeds = SPACE.confirm_seeds(1, 5)[0]
    margins = []
    for seed in seeds:
        mask = train_masks(labels[None], np.array([seed]), "stratified")
        batch = TrainingBatch.checked(SPACE.images, labels[None], mask, np.array([seed]))
        network = network_of(make_engine("reference").train(batch, SPACE.protocol).weights[0])
        row = []
        for i in range(160):
            if i not in SPACE.source_index:
                image = ((FEW.images[i] - mean) / deviation).astype(np.float32).transpose(2, 0, 1)
                with torch.no_grad():
                    negative, positive = network(torch.tensor(image[None]))[0].tolist()
                row.append(positive - negative)
        margins.append(row)
    return np.array(margins)


def pair_kappa(a: np.ndarray, b: np.ndarray) -> float:
    return 0.0 if 1 in (len(set(a)), len(set(b))) else cohen_kappa_score(a, b)


def test_votes_margins_and_agreement_are_those_of_the_confirming_networks():
    for task, labels in enumerate(LIBRARY.labels):
        margins = by_hand(labels)
        np.testing.assert_allclose(EXTENSION.margin[task], margins.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(EXTENSION.share[task], (margins > 0).mean(axis=0), atol=1e-6)
        pairs = [pair_kappa(a > 0, b > 0) for a, b in itertools.combinations(margins, 2)]
        value, low, high = EXTENSION.agreement[task]
        assert value == pytest.approx(np.mean(pairs)) and low <= value <= high


def test_the_images_of_the_set_are_not_voted_on():
    assert set(EXTENSION.unseen) == set(range(160)) - set(SPACE.source_index)
    np.testing.assert_array_equal(EXTENSION.class_of, FEW.labels[EXTENSION.unseen])


def test_both_ends_are_ordered_by_votes_and_then_by_margin():
    for task in range(2):
        keys = sorted(zip(-EXTENSION.share[task], -EXTENSION.margin[task], EXTENSION.unseen, strict=True))
        images = [image for _, _, image in keys]
        assert EXTENSION.most_positive(task).tolist() == images[:12]
        assert EXTENSION.least_positive(task).tolist() == images[::-1][:12]


def test_the_class_of_a_class_task_prevails_among_the_most_positive():
    task = next(t for t in range(2) if (LIBRARY.labels[t] == LABELS[0]).all())
    most, least = EXTENSION.composition(task)
    assert most[0][0] == SPACE.classes[0] and sum(count for _, count in most) == 12
    assert SPACE.classes[0] not in dict(least)


def test_unseen_images_are_standardized_as_the_set_is():
    np.testing.assert_array_equal(standardize(SPACE.pixels[:3], SPACE.pixels), SPACE.images[:3])
    flat = SPACE.pixels.copy()
    flat[..., 1] = 7
    assert (standardize(DIGITS.images[:5], flat)[:, 1] == 0).all()


def test_agreement_is_the_mean_kappa_over_pairs_of_networks():
    votes = np.random.default_rng(0).random((6, 200)) < np.linspace(0.1, 0.9, 200)
    pairs = [cohen_kappa_score(a, b) for a, b in itertools.combinations(votes, 2)]
    estimate = agreement_of(votes)
    assert estimate.value == pytest.approx(np.mean(pairs)) and estimate.low < estimate.value < estimate.high


def test_a_constant_network_agrees_with_none():
    votes = np.random.default_rng(0).random((1, 50)).repeat(4, axis=0) < 0.4
    assert agreement_of(votes).value == pytest.approx(1)
    votes[0] = True
    assert agreement_of(votes).value == pytest.approx(0.5)  # 3 of 6 pairs are without it
    assert agreement_of(np.ones((4, 50), dtype=bool)).value == 0


def test_few_networks_have_no_interval():
    estimate = agreement_of(np.random.default_rng(0).random((3, 50)) < 0.5)
    assert math.isnan(estimate.low) and math.isfinite(estimate.value)


def test_the_interval_covers_what_many_networks_agree_on():
    rng = np.random.default_rng(0)
    skill = rng.random(60)  # how often a network follows the common answer
    answer = rng.random(300) < 0.3
    votes = np.where(rng.random((60, 300)) < skill[:, None], answer, rng.random((60, 300)) < 0.3)
    truth = agreement_of(votes).value
    hits = 0
    for _ in range(40):
        estimate = agreement_of(votes[rng.choice(60, 12, replace=False)])
        hits += estimate.low <= truth <= estimate.high
    assert hits >= 34


def test_it_can_be_saved_and_loaded(tmp_path):
    path = extension_path(LIBRARY.save(tmp_path / "mine.npz"))
    assert path.name == "mine.extended.npz"
    again = Extension.load(EXTENSION.save(path))
    assert again.records() == EXTENSION.records()
    for name in ("labels", "share", "margin", "unseen", "class_of"):
        np.testing.assert_array_equal(getattr(again, name), getattr(EXTENSION, name))
    assert (again.space, again.engine, again.networks) == (SPACE.identity, "reference cpu", 5)
    header, *rows = (tmp_path / "mine.extended.csv").read_text().splitlines()
    assert header.startswith("task,agreement,") and len(rows) == 2


def test_other_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no extended tasks"):
        Extension.load(LIBRARY.save(tmp_path / "mine.npz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": np.zeros((1, 1))}, r"expected share with shape \(2, 140\)"),
        ({"labels": np.uint8(1)}, "labels with shape"),
        ({"unseen": np.int64(1)}, "unseen with shape"),
        ({"class_of": np.full(140, 10)}, "classes of images that label_names has"),
        ({"networks": np.array([1, 2])}, "networks with shape"),
        ({"version": 2}, "has version 2, this tdbench reads 1"),
        ({"margin": np.full((2, 140), "a")}, "margin"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path, change, message):
    with np.load(EXTENSION.save(tmp_path / "e.npz")) as archive:
        arrays = {**archive, **change}
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(UserError, match=message):
        Extension.load(tmp_path / "e.npz")


def test_fewer_networks_are_the_first_of_them():
    one = extend(LIBRARY.filter([True, False]), SPACE, FEW, networks=2)
    np.testing.assert_allclose(one.share[0], (by_hand(LIBRARY.labels[0])[:2] > 0).mean(axis=0), atol=1e-6)


def test_votes_on_some_images_are_those_of_all():
    some = EXTENSION.unseen[10:20]
    few = extend(LIBRARY, SPACE, FEW, images=some)
    np.testing.assert_array_equal(few.unseen, some)
    np.testing.assert_array_equal(few.share, EXTENSION.share[:, 10:20])


def test_a_source_without_other_images_is_refused():
    images, labels = FEW.images[SPACE.source_index], FEW.labels[SPACE.source_index]
    alone = Source("few", images, labels, FEW.label_names)
    space = TaskSpace(alone, n=20, steps=5, classes=SPACE.classes)
    library = score(space, space.random_labelings(1), confirm=2)
    with pytest.raises(UserError, match="no images beside the 20 of the set"):
        extend(library, space, alone)


def test_a_sealed_library_needs_its_key(tmp_path):
    key = write_new_key(tmp_path / "key")
    sealed = replace(LIBRARY, engine=f"reference cpu sealed {key.seal}")
    with pytest.raises(UserError, match="give the key of its seal"):
        extend(sealed, SPACE, FEW)
    with pytest.raises(UserError, match="not with the key of seal"):
        extend(LIBRARY, SPACE, FEW, key=key)
    assert len(extend(sealed.filter([True, False]), SPACE, FEW, networks=2, key=key)) == 1
