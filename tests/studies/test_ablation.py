"""The study of ablation: what is exchanged, where the tolerance is read off, and what a user may ask for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdbench.base.errors import UserError
from tdbench.base.rng import Stream, permutation
from tdbench.engine import make_engine
from tdbench.settings import Options
from tdbench.space.executor import study_request
from tdbench.space.labelings import ablate
from tdbench.space.sources import load_source
from tdbench.studies._common import one_against_rest
from tdbench.studies._lab import Lab
from tdbench.studies.ablation import Settings, crossing, study

TINY = {"n": 20, "classes": ("3", "0", "1", "7"), "ablations": (20, 40), "sets": 4, "replicates": 2, "steps": 5}
ENGINE = make_engine()


def orders(n: int, count: int) -> np.ndarray:
    return permutation(n, Stream.EXCHANGES, (np.zeros(count, dtype=np.int64), np.arange(count, dtype=np.int64)))


@given(st.integers(2, 12), st.integers(2, 12), st.data())
def test_as_many_positives_as_negatives_are_exchanged_and_their_number_stays(positives, negatives, data):
    exchanged = data.draw(st.integers(0, min(positives, negatives)))
    labels = np.array([1] * positives + [0] * negatives, dtype=np.uint8)
    before = labels.copy()
    ablated = ablate(labels, exchanged, orders(len(labels), 5))
    assert (ablated.sum(axis=1) == positives).all()
    assert ((ablated == 0) & (labels == 1)).sum(axis=1).tolist() == [exchanged] * 5
    np.testing.assert_array_equal(labels, before)


def test_more_ablation_exchanges_the_same_images_and_further_ones():
    labels = np.array([1] * 10 + [0] * 30, dtype=np.uint8)
    order = orders(40, 6)
    few, many = (ablate(labels, count, order) != labels for count in (3, 7))
    assert (many >= few).all()
    assert len(np.unique(few, axis=0)) == 6  # every replicate exchanges images of its own


def test_exchanges_up_to_the_random_end_leave_no_trace_of_the_class():
    labels = np.array([1] * 10 + [0] * 30, dtype=np.uint8)
    frequency = ablate(labels, round(10 * 30 / 40), orders(40, 4000)).mean(axis=0)
    assert abs(frequency[labels == 1].mean() - 10 / 40) <= 0.05  # the nearest whole number of exchanges
    np.testing.assert_allclose(frequency[labels == 0], frequency[labels == 0].mean(), atol=0.04)


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0.2), (0.05, 0.6875), (0.9, 0.0), (0.8, 0.0), (-0.1, 0.75)])
def test_the_tolerance_is_where_the_curve_crosses_the_threshold(threshold, expected):
    shares, taskness = np.array([0, 0.4, 0.5, 0.75]), np.array([0.8, 0.1, 0.3, 0.0])  # pooled: 0.8, 0.2, 0.2, 0
    assert crossing(shares, taskness, threshold) == pytest.approx(expected)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8), st.floats(-1, 1), st.floats(0, 1))
def test_a_higher_threshold_never_raises_the_tolerance(taskness, threshold, more):
    shares = np.linspace(0, 0.75, len(taskness))
    low, high = (crossing(shares, np.array(taskness), t) for t in (threshold, threshold + more))
    assert 0 <= high <= low <= 0.75


def test_the_first_point_is_the_class_task_and_the_last_one_is_random(lab):
    table = study(Settings(**TINY), lab).table
    source, ablated = load_source("digits"), lab.requests[: TINY["sets"]]
    plain = []
    for seed, request in enumerate(ablated):
        image_set, labels = one_against_rest(source, "3", "017", 5, 15, seed, Settings(**TINY).protocol)
        plain.append(study_request(image_set, labels[None], seed, 2))
        assert (request.labels[:2] == labels).all()
        assert ((request.labels[-2:] == 0) & (labels == 1)).sum(axis=1).tolist() == [4, 4]  # 15 / 20 of 5, rounded
        assert (request.labels.sum(axis=1) == 5).all()
    assert table["taskness"].iloc[0] == pytest.approx(np.mean(lab.taskness(plain)))
    assert table["exchanged"].tolist() == [0, 1, 2, 4]
    assert table["ablation"].tolist() == [0, 0.2, 0.4, 0.8]
    assert (table["low"] <= table["taskness"]).all()
    assert (table["taskness"] <= table["high"]).all()


def test_a_second_call_trains_nothing_and_finds_the_same(tmp_path, monkeypatch):
    with Lab(Options(out=tmp_path), ENGINE) as lab:
        first = study(Settings(**TINY), lab)
    monkeypatch.setattr(type(ENGINE), "curves", lambda *_: pytest.fail("trained again"))
    with Lab(Options(out=tmp_path), ENGINE) as lab:
        again = study(Settings(**TINY), lab)
    assert again.paragraph == first.paragraph
    assert again.table.equals(first.table)


def test_the_threshold_comes_from_random_labelings_and_falls_with_the_share_let_pass(lab):
    strict, loose = (
        study(Settings(**TINY, labelings=2, false_positive_rate=share), lab).table["threshold"][0]
        for share in (0.01, 0.5)
    )
    assert loose < strict
    random = lab.requests[TINY["sets"] :]
    means = np.concatenate([scores.mean(axis=1) for scores in lab.taskness(random)])
    assert len(means) == 8
    assert loose == pytest.approx(means.mean())  # half of what is normal lies above its mean


@pytest.mark.parametrize(
    ("threshold", "tolerance", "words"), [(-9.0, 0.8, "Every measured ablation"), (2.0, 0.0, "Not even the class task")]
)
def test_a_given_threshold_is_used_and_no_random_labeling_trained(lab, threshold, tolerance, words):
    findings = study(Settings(**TINY, threshold=threshold), lab)
    assert len(lab.requests) == TINY["sets"]
    assert findings.table["tolerance"].tolist() == [tolerance] * 4
    assert words in findings.paragraph
    assert "as given" in findings.paragraph


def test_too_few_sets_for_an_interval_claim_nothing(lab):
    findings = study(Settings(**{**TINY, "sets": 2}), lab)
    assert math.isnan(findings.table["tolerance_low"][0])
    assert "neither confirmed nor denied" in findings.paragraph


def test_without_a_size_the_largest_that_the_source_holds_is_taken(lab, cifar10_sample):
    source = load_source(str(cifar10_sample))
    classes = ("frog", "ship", "horse", "deer")
    held = min(np.count_nonzero(source.labels == source.label_names.index(name)) for name in classes)
    tiny = {"sets": 1, "replicates": 1, "steps": 5, "ablations": (), "threshold": 0.1}
    findings = study(Settings(data=str(cifar10_sample), **tiny), lab)
    assert findings.table["n"].tolist() == [4 * held] * 2
    assert "frog against ship, horse, deer" in findings.paragraph


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"n": 22}, "n must be divisible by the 4 classes, got 22; the nearest valid n is 24"),
        ({"n": 4}, "the nearest valid n is 8"),
        ({"n": 2000}, "class '3' of digits has 183 images, 500 are needed"),
        ({"classes": ("3", "x")}, "digits has no class 'x'"),
        ({"classes": ("3",)}, "expected at least 2 different classes"),
        ({"ablations": (10, 90)}, "ablations go up to 75 %, where the labeling is random; got 90 %"),
        ({"ablations": (-1,)}, "from 0 up, got -1"),
        ({"labelings": 0}, "at least 1 random labeling"),
        ({"false_positive_rate": 1.0}, "between 0 and 1, got 1.0"),
        ({"replicates": 0}, "replicates must be at least 1"),
    ],
)
def test_bad_sizes_are_one_clear_line_before_anything_is_trained(lab, change, expected, monkeypatch):
    monkeypatch.setattr(type(ENGINE), "curves", lambda *_: pytest.fail("something was trained"))
    with pytest.raises(UserError) as caught:
        study(Settings(**{**TINY, **change}), lab)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
