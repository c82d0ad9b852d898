"""The study random-search: what is best, what is confirmed, and the size that a source allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tdbench.base.errors import UserError
from tdbench.engine import make_engine
from tdbench.settings import Options
from tdbench.space.sources import Source, load_source
from tdbench.space.task_space import TaskSpace
from tdbench.studies._lab import Lab
from tdbench.studies.random_search import Settings, _largest_n, study

TINY: dict[str, Any] = {"n": 20, "ratio": 4, "sets": 4, "replicates": 3, "steps": 5, "labelings": 6}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(Options(out=tmp_path_factory.mktemp("lab")), make_engine()) as made:
        yield made


@pytest.fixture(scope="module")
def table(lab: Lab) -> pd.DataFrame:
    return study(Settings(**TINY), lab).table


def test_a_repeat_is_the_best_of_what_the_space_tells_and_what_it_confirms_of_that(table: pd.DataFrame) -> None:
    for row in table.to_dict("records"):
        space = TaskSpace(n=20, ratio=4, seed=row["space_seed"], steps=5)
        labels = space.random_labelings(6, seed=space.seed)
        told = space.taskness(labels)
        assert row["told"] == told.max()
        assert row["average_told"] == told.mean()
        assert row["confirmed"] == space.confirm(labels[told.argmax()], replicates=3).mean()


def test_optimism_and_gain_add_up_to_the_lead_over_the_average(table: pd.DataFrame) -> None:
    np.testing.assert_allclose(table["optimism"] + table["gain"], table["told"] - table["average_told"])
    np.testing.assert_allclose(table["mean_told"], table["told"].mean())
    assert (table["mean_told_low"] <= table["mean_told"]).all()


def test_a_second_call_trains_nothing_and_finds_the_same(lab: Lab, table: pd.DataFrame, monkeypatch: Any) -> None:
    monkeypatch.setattr("tdbench.space.executor.train", lambda *_: pytest.fail("trained again"))
    pd.testing.assert_frame_equal(study(Settings(**TINY), lab).table, table)


def test_one_replicate_and_one_set_have_no_intervals_and_no_verdict(lab: Lab) -> None:
    findings = study(Settings(**{**TINY, "sets": 1, "replicates": 1}), lab)
    assert findings.table[["confirmed_se", "mean_told_low"]].isna().all(axis=None)
    assert "cannot be told without an interval" in findings.paragraph


def test_the_size_is_the_original_one_or_the_largest_that_fits() -> None:
    digits = load_source("digits")
    assert _largest_n(digits, 9) == 500
    few = Source("few", digits.images[:400], digits.labels[:400], digits.label_names)
    n = _largest_n(few, 9)
    assert n < 500
    TaskSpace(few, n=n, ratio=9)
    with pytest.raises(UserError, match=f"largest n at 1:9 is {n}"):
        TaskSpace(few, n=n + 10, ratio=9)


def test_the_sample_of_cifar_10_holds_the_original_size(cifar10_sample: Any) -> None:
    assert _largest_n(load_source(str(cifar10_sample)), 9) == 500


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"labelings": 1}, "labelings must be at least 2"),
        ({"n": 21}, "nearest valid n"),
        ({"n": 0}, "positive number of images"),
        ({"n": None, "ratio": 10}, "needs 11 classes"),
        ({"n": None, "ratio": 0}, "ratio must be at least 1"),
        ({"n": 4000}, "largest n at 1:4"),
    ],
)
def test_settings_that_cannot_be_are_one_line(lab: Lab, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        study(Settings(**{**TINY, **changes}), lab)
    assert "\n" not in str(error.value)
