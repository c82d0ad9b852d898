"""Which sources and targets there are, that they share no image, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tdbench import TaskSpace, UserError
from tdbench.engine import make_engine
from tdbench.space.sources import Source, load_source
from tdbench.store.curves import RememberedTrainings
from tdbench.tasks.scoring import score
from tdbench.transfers.settings import TransferSettings
from tdbench.transfers.sources import ALL, CLASS, FOUND, OWN, PIXEL, RANDOM, SCALED, VOTES, plan, shared_images

DIGITS = load_source("digits")
FEW = Source("few", DIGITS.images[:300], DIGITS.labels[:300], DIGITS.label_names)
ENGINE = make_engine()
SPACE = TaskSpace(FEW, n=20, steps=5, engine=ENGINE)
LIBRARY = score(SPACE, SPACE.random_labelings(3), confirm=2)
SMALL = TransferSettings(sets=2, target_n=20, replicates=2, controls=2, extend=40)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    kept = RememberedTrainings(tmp_path_factory.mktemp("memory"), ENGINE)
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def made(trainings):
    return plan(SPACE, FEW, LIBRARY, SMALL, trainings)


def images_of(space) -> set[bytes]:
    return {image.tobytes() for image in space.pixels}


def test_every_control_is_there_with_the_library(made):
    counts = {kind: sum(one.kind == kind for one in made.sources) for kind in {one.kind for one in made.sources}}
    assert counts == {FOUND: 3, VOTES: 2, ALL: 1, CLASS: 2, PIXEL: 2, RANDOM: 2, OWN: 10, SCALED: 1}


def test_found_tasks_are_the_best_confirmed_first(made):
    confirmed = [one.confirmed for one in made.sources if one.kind == FOUND]
    assert confirmed == sorted(LIBRARY.confirmed, reverse=True)
    assert all(math.isnan(one.confirmed) for one in made.sources if one.kind not in (FOUND, VOTES))


def test_target_sets_share_no_image_and_no_class_with_the_sources(made):
    first, second = (target.space for target in made.targets)
    assert not images_of(first) & images_of(second)
    for target in (first, second):
        assert not images_of(target) & images_of(SPACE)
        assert not set(target.classes) & set(SPACE.classes)


def test_own_classes_are_other_images_of_the_targets_classes(made):
    own = [one for one in made.sources if one.kind == OWN]
    for source in own:
        number, name = source.only
        target = made.targets[number]
        assert set(source.images.classes) == set(target.space.classes)
        assert not images_of(source.images) & images_of(target.space)
        assert source.serves(number, target, name) and not source.serves(1 - number, target, name)
        is_class = source.images.class_of == source.images.classes.index(name)
        np.testing.assert_array_equal(source.labels[0], is_class.astype(np.uint8))


def test_where_classes_are_few_only_images_differ_and_a_class_is_no_source_for_its_own_set(trainings):
    space = TaskSpace(FEW, n=40, ratio=7, steps=5, engine=ENGINE)  # 8 of the 10 classes
    made = plan(space, FEW, None, SMALL, trainings)
    target = made.targets[0]
    assert set(target.space.classes) & set(space.classes)
    assert not images_of(target.space) & images_of(space)
    for source in made.sources:
        if source.kind == CLASS:
            assert source.serves(0, target, target.names[0]) == (source.name not in target.space.classes)


def test_votes_extend_a_task_by_images_of_no_target_class(made):
    votes = next(one for one in made.sources if one.kind == VOTES)
    assert votes.images.n == 60 and votes.labels.sum() == 12
    found = next(one for one in made.sources if one.kind == FOUND)
    np.testing.assert_array_equal(votes.labels[0, :20], found.labels[0])


def test_a_library_of_targets_may_not_share_images(trainings):
    other = TaskSpace(FEW, n=20, steps=5, seed=SPACE.seed, classes=SPACE.classes, engine=ENGINE)
    target = score(other, other.random_labelings(2), confirm=2)
    shared = len(np.intersect1d(other.source_index, SPACE.source_index))
    assert shared == shared_images(SPACE, other) > 0
    with pytest.raises(UserError, match=f"share {shared} of 20 images"):
        plan(SPACE, FEW, LIBRARY, SMALL, trainings, (target, other))


def test_images_of_another_source_are_compared_by_their_pixels():
    renamed = Source("renamed", FEW.images[::-1].copy(), FEW.labels[::-1].copy(), FEW.label_names)
    same = TaskSpace(renamed, n=20, steps=5, classes=SPACE.classes, seed=3)
    assert shared_images(SPACE, same) == len(images_of(SPACE) & images_of(same)) > 0


def test_tasks_of_another_library_are_targets(trainings):
    rest = [name for name in FEW.label_names if name not in SPACE.classes]
    other = TaskSpace(FEW, n=20, steps=5, classes=rest, engine=ENGINE)
    target = score(other, other.random_labelings(2), confirm=2)
    made = plan(SPACE, FEW, LIBRARY, SMALL, trainings, (target, other))
    assert made.targets[0].names == ("task 1", "task 2")
    assert not [one for one in made.sources if one.kind == OWN]


def test_what_cannot_be_measured_is_one_clear_line(trainings):
    none = LIBRARY.filter(np.zeros(3, dtype=bool))
    with pytest.raises(UserError, match=r"no tasks \(K = 0\)"):
        plan(SPACE, FEW, none, SMALL, trainings)
    with pytest.raises(UserError, match=r"target set \d of 2 needs 240 images"):
        plan(SPACE, FEW, LIBRARY, TransferSettings(sets=2, target_n=240), trainings)
    with pytest.raises(UserError, match="to extend tasks to, but few has"):
        plan(SPACE, FEW, LIBRARY, TransferSettings(sets=2, target_n=20, extend=400), trainings)
    split = TaskSpace(FEW, n=20, steps=5, split="random", engine=ENGINE)
    with pytest.raises(UserError, match="needs stratified splits"):
        plan(split, FEW, None, SMALL, trainings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modes": ("thaw",)}, "mode must be one of fine-tune, frozen, got 'thaw'"),
        ({"modes": ()}, "at least one of"),
        ({"replicates": 0}, "replicates must be at least 1"),
        ({"sets": 0}, "sets must be at least 1"),
        ({"members": 0}, "members must be at least 1"),
        ({"pretrain_steps": 4}, "pretrain-steps must be at least 5"),
        ({"target_n": 51}, "nearest valid n"),
        ({"shots": (0,)}, "shots must be at least 1"),
    ],
)
def test_settings_out_of_range_are_one_clear_line(given, message):
    with pytest.raises(UserError, match=message):
        TransferSettings(**given)
