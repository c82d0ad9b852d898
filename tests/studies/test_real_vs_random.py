"""T_task and the study that calibrates it: what is counted, what is refused, and that `run` has the same threshold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import roc_auc_score

from tdbench.base.errors import UserError
from tdbench.base.stats import two_stage_interval
from tdbench.engine import make_engine
from tdbench.leaderboard.threshold import LABELINGS, SETS, task_threshold, threshold_of
from tdbench.settings import Options
from tdbench.space.settings import SpaceSettings
from tdbench.studies._lab import Lab
from tdbench.studies.real_vs_random import Settings, separation, study

TINY: dict[str, Any] = {"n": 20, "sets": 4, "replicates": 2, "steps": 5, "labelings": 5}
FINITE = st.floats(-1, 1, allow_nan=False, width=32)
TABLES = st.tuples(st.integers(4, 6), st.integers(5, 20)).flatmap(
    lambda s: arrays.arrays(np.float64, s, elements=FINITE)
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(Options(out=tmp_path_factory.mktemp("lab")), make_engine()) as made:
        yield made


@pytest.fixture(scope="module")
def table(lab: Lab) -> pd.DataFrame:
    return study(Settings(**TINY), lab).table


@settings(max_examples=40, deadline=None)
@given(TABLES, st.sampled_from([0.05, 0.1, 0.25]))
def test_at_most_the_stated_share_of_random_labelings_exceeds_t_task_and_a_lower_one_would_let_more_pass(
    values: np.ndarray, rate: float
) -> None:
    t_task = threshold_of(values, rate).value
    assert (values > t_task).mean() <= rate + 1e-12
    lower = values[values < t_task]
    if len(lower):
        assert (values > lower.max()).mean() > rate


def test_t_task_rests_on_every_labeling_and_lies_within_its_interval() -> None:
    values = np.random.default_rng(0).normal(size=(5, 16))
    estimate = threshold_of(values, 0.05)
    assert estimate.n == 80
    assert (values > estimate.value).sum() == 4
    assert estimate.low < estimate.value < estimate.high


def test_three_sets_give_no_interval() -> None:
    assert not threshold_of(np.random.default_rng(0).normal(size=(3, 30)), 0.05).has_interval


def test_sets_that_differ_widen_the_interval_though_the_values_are_the_same() -> None:
    values = np.sort(np.random.default_rng(1).normal(size=100))
    alike, apart = values.reshape(20, 5).T, values.reshape(5, 20)  # mixed over sets; each set a stretch of its own

    def mean(x: np.ndarray, axis: int) -> np.ndarray:
        return x.mean(axis=axis)

    mixed, clustered = (two_stage_interval([table], mean) for table in (alike, apart))
    assert mixed.value == pytest.approx(clustered.value)
    assert clustered.high - clustered.low > 2 * (mixed.high - mixed.low)


@settings(max_examples=20, deadline=None)
@given(TABLES, st.integers(0, 99))
def test_the_separation_is_the_area_under_the_roc_curve(random: np.ndarray, seed: int) -> None:
    real = np.random.default_rng(seed).normal(0.3, 0.3, size=(len(random), 3)).round(1)
    truth = np.repeat([1, 0], [real.size, random.size])
    area = separation(list(real), list(random))
    assert area.value == pytest.approx(roc_auc_score(truth, np.concatenate([real.ravel(), random.ravel()])))


def test_every_labeling_of_every_set_and_ratio_is_a_row(table: pd.DataFrame) -> None:
    counts = table.groupby(["ratio", "kind"]).size()
    for ratio in (1, 4, 9):
        assert counts[ratio, "class"] == 4 * (ratio + 1)
        assert counts[ratio, "random"] == 4 * 5
        assert counts[ratio, "pixel"] > 0


def test_what_counts_as_a_task_is_what_lies_above_t_task_of_its_ratio(table: pd.DataFrame) -> None:
    assert (table["is_task"] == (table["taskness"] > table["t_task"])).all()
    random = table[table["kind"] == "random"]
    assert (random.groupby("ratio")["is_task"].mean() <= 0.05).all()
    assert (table.groupby("ratio")["t_task"].nunique() == 1).all()


def test_a_second_call_trains_nothing_and_finds_the_same(lab: Lab, table: pd.DataFrame, monkeypatch: Any) -> None:
    monkeypatch.setattr("tdbench.space.executor.train", lambda *_: pytest.fail("trained again"))
    pd.testing.assert_frame_equal(study(Settings(**TINY), lab).table, table)


def test_a_ratio_that_the_source_cannot_fill_is_skipped_with_its_reason(lab: Lab) -> None:
    findings = study(Settings(**{**TINY, "n": 24}, ratios=(2, 11)), lab)  # digits have 10 classes
    (skipped,) = findings.table[findings.table["ratio"] == 11].to_dict("records")
    assert "needs 12 classes" in skipped["skipped"]
    assert "1:11 was skipped" in findings.paragraph
    assert (findings.table["ratio"] == 2).sum() > 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ratios": (1, 3), "n": 50}, "nearest valid n is 48 or 52"),
        ({"ratios": (0,)}, "ratio must be at least 1"),
        ({"ratios": (19,)}, "leaves one positive"),
        ({"ratios": ()}, "at least one ratio"),
        ({"labelings": 1}, "at least 2"),
        ({"labelings": 4}, "needs at least 20 random labelings"),
        ({"false_positive_rate": 1.0}, "between 0 and 1"),
        ({"sets": 0}, "sets must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        Settings(**{**TINY, **changes})
    assert "\n" not in str(error.value)


def test_where_no_ratio_fits_the_first_reason_is_the_error(lab: Lab) -> None:
    with pytest.raises(UserError, match="divisible by ratio"):
        study(Settings(**{**TINY, "n": 21}), lab)


def test_a_run_has_the_threshold_that_the_study_finds_for_its_setting(lab: Lab) -> None:
    t_task = task_threshold(lab, lab.source("digits"), SpaceSettings(n=10, steps=5), confirm=2)
    found = study(Settings(n=10, ratios=(4,), replicates=2, steps=5), lab).table["t_task"].unique()
    assert t_task.n == SETS * LABELINGS
    assert found.tolist() == [t_task.value]
