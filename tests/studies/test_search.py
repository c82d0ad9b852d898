"""The study search: it takes up finished runs of a bench, and says of each what the log says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import MISBEHAVING
from PIL import Image

import tdbench as package
from tdbench.base.errors import UserError
from tdbench.engine import make_engine
from tdbench.settings import Options, RunSettings
from tdbench.studies._lab import Findings, Lab
from tdbench.studies.search import FOLDER, Settings, study

SHARED: dict[str, Any] = {"n": 10, "steps": 5, "confirm": 2, "batch": 10, "budget": 30}
TINY: dict[str, Any] = {**SHARED, "searcher": "random", "runs": 4, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def benched(folder: Path) -> list[Any]:
    """A bench of two of the study's runs, finished before it is called."""
    return package.bench("random", seeds=1, space_seeds=(3, 4), out=folder / FOLDER, references="all", **SHARED)


@pytest.fixture(scope="module")
def findings(folder: Path, benched: list[Any]) -> Iterator[Findings]:
    with Lab(Options(out=folder), make_engine()) as lab:
        yield study(Settings(**TINY), lab)


def rows(path: Path) -> pd.DataFrame:
    return pd.concat(pd.read_csv(file) for file in sorted((path / FOLDER / "leaderboards").glob("*.csv")))


def test_finished_runs_of_a_bench_are_taken_as_they_are(folder: Path, benched: list[Any], findings: Findings) -> None:
    board = rows(folder)
    assert len(board) == 4  # none a second time
    kept = board[board["space_seed"].isin([3, 4])]
    assert set(kept["timestamp"]) == {result.row.timestamp for result in benched}
    assert findings.table["told"].tolist()[:2] == [result.row.told for result in benched]


def test_default_settings_have_the_keys_of_a_bench_with_default_settings() -> None:
    space = package.TaskSpace(seed=3)
    (run,) = Settings(runs=1, seed=3).run_settings("auto", "auto")
    assert run.key(space) == RunSettings(space_seed=3).key(space)


def test_a_row_says_what_the_leaderboard_says_and_what_the_references_confirm(
    folder: Path, benched: list[Any], findings: Findings
) -> None:
    for row, result in zip(findings.table.to_dict("records"), benched, strict=False):
        assert row["confirmed"] == result.row.confirmed
        assert row["optimism"] == row["told"] - row["confirmed"]
        assert row["class_confirmed"] == max(score.mean for score in result.reference("class"))
        assert row["pixel_confirmed"] == max(score.mean for score in result.reference("pixel"))
        with Image.open(folder / row["picture"]) as picture:
            assert picture.format == "PNG"


def test_a_second_call_runs_nothing_and_finds_the_same(folder: Path, findings: Findings) -> None:
    before = rows(folder)
    with Lab(Options(out=folder), make_engine()) as lab:
        again = study(Settings(**TINY), lab)
    pd.testing.assert_frame_equal(again.table, findings.table)
    pd.testing.assert_frame_equal(rows(folder), before)


def test_an_engine_that_was_asked_for_is_the_one_that_runs(tmp_path: Path) -> None:
    words = {}
    for engine in (make_engine(), make_engine("reference")):
        with Lab(Options(out=tmp_path), engine) as lab:
            words[engine.name] = lab.engine_words
    assert words.pop("reference") == ("reference", "cpu")
    assert list(words.values()) == [("auto", "auto")]


def test_failed_runs_are_rows_and_a_study_of_nothing_else_is_an_error(tmp_path: Path) -> None:
    options = Options(out=tmp_path, plugins=(MISBEHAVING,))
    with Lab(options, make_engine()) as lab, pytest.raises(UserError, match="no run of raises-in-ask ended well"):
        study(Settings(**{**TINY, "searcher": "raises-in-ask", "runs": 1}), lab)
    assert rows(tmp_path)["status"].tolist() == ["crash"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"runs": 0}, "runs must be at least 1"),
        ({"budget": 5}, "budget must hold at least one batch"),
        ({"confirm": 1}, "confirm must be at least 2"),
        ({"noise": "loud"}, "noise must be one of"),
        ({"seed": 2**32 - 2}, "must be from 0 to"),
        ({"n": 11}, "nearest valid n"),
        ({"searcher": "twopointde"}, "did you mean"),
        ({"steps": 2}, "steps must be at least 5"),
    ],
)
def test_settings_that_cannot_be_are_one_line_and_nothing_is_begun(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    with Lab(Options(out=tmp_path), make_engine()) as lab, pytest.raises(UserError, match=expected) as error:
        study(Settings(**{**TINY, **changes}), lab)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
