"""Trainings that are done once: what is remembered, and what is another training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tdbench import TaskSpace
from tdbench.engine import make_engine
from tdbench.engine.networks import initial_weights
from tdbench.space.executor import Request, train
from tdbench.store.curves import RememberedTrainings, _keys

ENGINE = make_engine("reference", "cpu")
KEYS = ["a655d2ed5c737d9e", "d6211dc3078b1496"]
MASKED_KEYS = ["4bfd50e6c79009b3", "dcfb30ae05139e2b"]


def request() -> Request:
    space = TaskSpace("digits", n=10, steps=6)
    return Request(space, space.random_labelings(2), space.confirm_seeds(2, 2))


def variants(one: Request) -> list[Request]:
    weights = initial_weights(np.arange(4, dtype=np.uint64))
    other = weights.copy()
    other[:2, 100] += 1  # of the first label vector only
    return [
        one,
        replace(one, weights=weights),
        replace(one, weights=other),
        replace(one, frozen=True),
        replace(one, weights=weights, frozen=True),
    ]


def test_initial_weights_and_frozen_layers_are_trainings_of_their_own(tmp_path: Path) -> None:
    requests = variants(request())
    expected = [train([one], ENGINE)[0] for one in requests]
    trainings = RememberedTrainings(tmp_path, ENGINE)
    for _ in ("trained", "remembered"):
        for one, curves in zip(requests, expected, strict=True):
            np.testing.assert_array_equal(trainings.curves([one])[0], curves)
    trainings.close()


def test_weights_count_for_the_label_vector_that_they_belong_to() -> None:
    _, first, other, *_ = (_keys(one, ENGINE) for one in variants(request()))
    assert first[0] != other[0]
    assert first[1] == other[1]


def test_ordinary_trainings_are_remembered_under_the_keys_of_earlier_versions() -> None:
    keys = [key.hex()[:16] for key in _keys(request(), ENGINE)]
    assert keys == KEYS
    everything = replace(request(), fixed_mask=np.ones((4, 10), dtype=np.bool_))
    assert [key.hex()[:16] for key in _keys(everything, ENGINE)] == MASKED_KEYS
