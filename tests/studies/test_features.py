"""The study of features: what a random network makes of images, and how it is compared with pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tdbench.base.errors import UserError
from tdbench.engine import make_engine
from tdbench.settings import Options
from tdbench.space.sources import Source
from tdbench.space.task_space import TaskSpace
from tdbench.studies._lab import Lab
from tdbench.studies.features import Settings, study
from tdbench.toolkit.random_features import features, resized

TINY = {"n": 20, "sets": 4, "replicates": 2, "steps": 5, "networks": 2, "depth": 1}
ENGINE = make_engine()
SPACE = TaskSpace(n=16, ratio=3, steps=5)


def test_features_are_the_same_again_whatever_the_threads_and_the_global_generator():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    one = features(SPACE.images, 3, 0, 1)
    assert one.shape == (16, 3, 8, 8)
    assert torch.equal(torch.get_rng_state(), state)
    try:
        torch.set_num_threads(2)
        torch.manual_seed(1)
        assert (features(SPACE.images, 3, 0, 1) == one).all()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def test_another_network_seed_or_depth_gives_other_features():
    one = features(SPACE.images, 1, 0, 1)
    for arguments in ((1, 0, 2), (1, 1, 1), (2, 0, 1)):
        assert not np.allclose(features(SPACE.images, *arguments), one)


def test_features_do_not_explode_with_depth_and_tell_images_apart():
    maps = features(SPACE.images, 3, 0, 1)
    assert np.isfinite(maps).all()
    assert 0.05 < maps.std() < 50
    assert maps.std(axis=0).min() > 0


def test_the_order_of_images_does_not_matter():
    order = np.random.default_rng(0).permutation(16)
    np.testing.assert_allclose(
        features(SPACE.images[order], 1, 0, 1), features(SPACE.images, 1, 0, 1)[order], atol=1e-4
    )


@pytest.mark.parametrize("side", [8, 4])
def test_resizing_keeps_flat_maps_flat_and_means_almost(side):
    flat = np.full((2, 3, 8, 8), 1.5)
    assert resized(flat, side).shape == (2, 3, 32, 32)
    assert (resized(flat, side) == 1.5).all()
    maps = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    np.testing.assert_allclose(resized(maps, side).mean(axis=(2, 3)), maps.mean(axis=(2, 3)), atol=0.35)


def test_four_by_four_features_see_less_than_eight_by_eight():
    stripes = np.tile(np.array([[1.0, -1.0], [-1.0, 1.0]]), (1, 3, 4, 4))
    assert resized(stripes, 8).std() > 0
    assert (resized(stripes, 4) == 0).all()


@pytest.fixture
def found(lab):
    return study(Settings(**TINY), lab), lab


def test_each_representation_is_trained_on_the_same_replicates_and_labels(found):
    findings, lab = found
    assert len(lab.requests) == 4 * (1 + 2 * 2)
    for start in range(0, 20, 5):
        of_set = lab.requests[start : start + 5]
        assert all((r.seeds == of_set[0].seeds).all() and (r.labels == of_set[0].labels).all() for r in of_set)
        assert len({r.image_set.fingerprint for r in of_set}) == 5
    for request in lab.requests:
        images = request.image_set.images.astype(np.float64)
        np.testing.assert_allclose(images.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    pixels = findings.table.iloc[0]
    assert pixels["representation"] == "pixels"
    rest = findings.table.iloc[1:]
    np.testing.assert_allclose(rest["minus_pixels"].astype(float), rest["taskness"] - pixels["taskness"])


def test_a_second_call_computes_and_trains_nothing(found, monkeypatch):
    findings, lab = found
    monkeypatch.setattr("tdbench.studies.features.features", None)
    monkeypatch.setattr("tdbench.space.executor.train", None)
    assert study(Settings(**TINY), lab).paragraph == findings.paragraph


def test_the_default_size_is_what_a_small_source_has_and_a_size_asked_for_must_fit(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), (9, 6, 8, 7))
    source = Source("small", rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8), labels, ("a", "b", "c", "d"))
    with Lab(Options(out=tmp_path), ENGINE) as lab:
        lab._sources["small"] = source
        findings = study(Settings(**{**TINY, "n": None, "data": "small"}), lab)
        assert findings.paragraph.startswith("24 images")
        with pytest.raises(UserError, match="8 are needed"):
            study(Settings(**{**TINY, "n": 32, "data": "small"}), lab)
        with pytest.raises(UserError, match="no class 'x'"):
            study(Settings(**{**TINY, "n": None, "data": "small", "classes": ("a", "x")}), lab)


@pytest.mark.parametrize("name", ["networks", "depth"])
def test_no_networks_or_no_depth_is_one_clear_line(name):
    with pytest.raises(UserError, match=f"{name} must be at least 1"):
        Settings(**{name: 0})
