"""The studies of ratio and of number: what is in a cell, which cells are skipped, and what is concluded from them."""

from __future__ import annotations

import numpy as np
import pytest

from tdbench.base.errors import UserError
from tdbench.engine import make_engine
from tdbench.settings import Options
from tdbench.studies import positives, ratio
from tdbench.studies._cells import Cell, Measured, explain
from tdbench.studies._lab import Lab

TINY = {"sets": 4, "replicates": 2, "steps": 5}
ENGINE = make_engine()


@pytest.fixture
def plain_colours(tmp_path):
    """A source of six classes of 30 images, each class of one grey, so that an image tells its class."""
    labels = np.repeat(np.arange(6), 30)
    images = np.broadcast_to((40 * labels)[:, None, None, None], (180, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "greys.npz", images=images, labels=labels, label_names=np.array(list("abcdef")))
    return str(tmp_path / "greys.npz")


def made_up(taskness_of, cells=None) -> Measured:
    cells = cells or tuple(Cell(p * (r + 1), r) for p in (5, 10, 20, 40) for r in (1, 4, 9))
    noise = 0.01 * np.random.default_rng(0).standard_normal((5, len(cells)))
    values = np.array([taskness_of(np.log2(cell.positives), np.log2(cell.ratio)) for cell in cells])
    return Measured(cells, values + noise, {}, ("a", "b"), "made up")


def test_a_cell_has_its_positives_and_every_other_class_as_evenly_as_can_be(lab, plain_colours):
    ratio.study(ratio.Settings(data=plain_colours, n=(20, 40), ratios=(1, 3, 9), classes=tuple("cabdef"), **TINY), lab)
    assert len(lab.requests) == 6 * TINY["sets"]
    for request in lab.requests:
        labels, grey = request.labels[0], request.image_set.images[:, 0, 0, 0]
        assert len(np.unique(grey[labels == 1])) == 1
        negatives, counts = np.unique(grey[labels == 0], return_counts=True)
        assert len(negatives) == 5  # at every ratio
        assert np.ptp(counts) <= 1
        assert grey[labels == 1][0] not in negatives


def test_positives_stay_fixed_while_the_ratio_varies_and_large_cells_are_skipped(lab):
    settings = positives.Settings(positives=(5, 10), ratios=(1, 3, 9), most=40, **TINY)
    findings = positives.study(settings, lab)
    cells = findings.table[findings.table["quantity"] == "taskness"].set_index(["positives", "ratio"])
    assert (cells["n"] == [p * (r + 1) for p, r in cells.index]).all()
    assert cells.loc[(10, 9), "skipped"] == "more than 40 images"
    assert cells.loc[(5, 9), "skipped"] == "more than 40 images"
    assert np.isnan(cells.loc[(10, 9), "value"])
    trained = cells[cells["skipped"] == ""]
    assert len(trained) == 4
    assert (trained["low"] <= trained["value"]).all()
    assert {(r.image_set.n_positives, r.image_set.n) for r in lab.requests} == {(5, 10), (5, 20), (10, 20), (10, 40)}
    assert "Skipped: N = 50 at 1:9, N = 100 at 1:9 (more than 40 images)" in findings.paragraph


def test_cells_that_cannot_be_are_listed_with_the_reason(lab, plain_colours):
    settings = ratio.Settings(data=plain_colours, n=(8, 25, 80), ratios=(1, 4, 7), classes=tuple("abcdef"), **TINY)
    findings = ratio.study(settings, lab)
    cells = findings.table[findings.table["quantity"] == "taskness"]
    reasons = {(c.n, c.ratio): c.skipped for c in cells.itertuples()}
    assert reasons == {
        (8, 1): "fewer negatives than the 5 other classes",
        (8, 4): "N is not divisible by 5",
        (8, 7): "fewer than 2 positives, so that training or validation has none",
        (25, 1): "N is not divisible by 2",
        (25, 4): "",
        (25, 7): "N is not divisible by 8",
        (80, 1): "greys has 30 images of a",
        (80, 4): "",
        (80, 7): "",
    }
    assert all(reason in findings.paragraph for reason in reasons.values())
    assert "which these sizes do not test" in findings.paragraph


def test_cells_that_two_studies_share_are_trained_once(tmp_path, monkeypatch):
    with Lab(Options(out=tmp_path), ENGINE) as lab:
        first = ratio.study(ratio.Settings(n=(20, 40), ratios=(1, 3), **TINY), lab).table
    monkeypatch.setattr(type(ENGINE), "curves", lambda *_: pytest.fail("trained again"))
    with Lab(Options(out=tmp_path), ENGINE) as lab:
        same = positives.study(positives.Settings(positives=(10,), ratios=(1, 3), **TINY), lab).table
        again = ratio.study(ratio.Settings(n=(20, 40), ratios=(1, 3), **TINY), lab).table
    shared = same.merge(first, on=["quantity", "n", "ratio", "positives"])
    assert len(shared) == 2
    assert (shared["value_x"] == shared["value_y"]).all()
    assert again.equals(first)


def test_real_images_fill_the_default_cells_but_those_listed(cifar10_sample):
    """No class of the sample has 200 images, nor does N = 100 divide into 1:39; all other cells can be."""
    from tdbench.space.sources import load_source
    from tdbench.studies._cells import _unfillable

    settings = ratio.Settings()
    source = load_source(str(cifar10_sample))
    classes = settings.chosen_classes(source)
    missing = {(n, r) for n in settings.n for r in settings.ratios if _unfillable(Cell(n, r), source, classes)}
    assert classes[0] == "frog"
    assert missing == {(100, 39), (400, 1)}


@pytest.mark.parametrize(
    ("taskness_of", "sign", "slopes"),
    [(lambda p, r: 0.1 * p, 1, (0.1, 0)), (lambda p, r: 0.5 - 0.1 * r, -1, (0, -0.1))],
)
def test_the_regression_finds_what_taskness_was_made_from(taskness_of, sign, slopes):
    explained = explain(made_up(taskness_of))
    assert explained.by_both.value > 0.99
    assert max(explained.by_positives.value, explained.by_ratio.value) > 0.99
    assert explained.advantage.value * sign > 0.8
    assert min(explained.advantage.low * sign, explained.advantage.high * sign) > 0
    assert (explained.positives_slope.value, explained.ratio_slope.value) == pytest.approx(slopes, abs=0.01)
    assert explained.by_both.value >= max(explained.by_positives.value, explained.by_ratio.value)


def test_cells_that_cannot_tell_number_from_ratio_are_not_made_to():
    assert explain(made_up(lambda p, r: p, tuple(Cell(2 * p, 1) for p in (2, 3, 5, 7, 9)))) is None
    assert explain(made_up(lambda p, r: p, (Cell(10, 1), Cell(20, 1), Cell(20, 4)))) is None


def test_taskness_that_never_changes_is_explained_by_nothing():
    measured = made_up(lambda p, r: 0)
    explained = explain(Measured(measured.cells, np.zeros_like(measured.taskness), {}, ("a", "b"), "made up"))
    assert explained.by_both.value == explained.advantage.value == 0


@pytest.mark.parametrize(
    ("study", "change", "expected"),
    [
        (ratio, {"n": ()}, "n must be different whole numbers from 1 up"),
        (ratio, {"n": (20, 20)}, "n must be different whole numbers from 1 up, got 20, 20"),
        (ratio, {"ratios": (0, 4)}, "ratios must be different whole numbers from 1 up, got 0, 4"),
        (ratio, {"n": (10,), "ratios": (9,)}, "no cell can be measured: fewer than 2 positives"),
        (ratio, {"classes": ("1", "nine")}, "digits has no class 'nine'"),
        (ratio, {"classes": ("1", "1")}, "expected at least 2 different classes, got 1, 1"),
        (positives, {"positives": (1, 5)}, "positives must be different whole numbers from 2 up, got 1, 5"),
        (positives, {"most": 0}, "most must be at least 1 image, got 0"),
        (positives, {"most": 5}, "no cell can be measured: more than 5 images"),
        (positives, {"positives": (500,), "ratios": (1,), "most": 9999}, "no cell can be measured: digits has 1"),
    ],
)
def test_bad_sizes_are_one_clear_line_before_anything_is_trained(lab, study, change, expected, monkeypatch):
    monkeypatch.setattr(type(ENGINE), "curves", lambda *_: pytest.fail("something was trained"))
    with pytest.raises(UserError) as caught:
        study.study(study.Settings(**{**TINY, **change}), lab)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
