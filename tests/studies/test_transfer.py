"""The study transfer: what it measures, that a second call trains nothing, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tdbench.base.errors import UserError
from tdbench.engine import make_engine
from tdbench.settings import Options
from tdbench.studies._lab import Findings, Lab
from tdbench.studies.transfer import FOLDER, Settings, study
from tdbench.transfers.result import TransferResult

ENGINE = make_engine()
TINY: dict[str, Any] = {
    "searcher": "random", "sets": 2, "source_n": (20, 10), "pretrain_steps": (10, 5), "target_n": 10, "tasks": 3,
    "budget": 16, "confirm": 2, "replicates": 2, "controls": 1, "extend": 10, "steps": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture(scope="module")
def findings(folder: Path) -> Iterator[Findings]:
    with Lab(Options(out=folder), ENGINE) as lab:
        yield study(Settings(**TINY), lab)


def test_the_first_case_is_measured_in_full_and_others_with_fewer_sources(findings: Findings) -> None:
    gains = findings.table[findings.table["what"] == "gain"]
    cases = {key: set(rows["kind"]) for key, rows in gains.groupby(["source_n", "pretrain_steps"])}
    assert set(cases) == {(20, 10), (10, 10), (20, 5)}
    assert {"found", "votes", "all at once", "own class", "scaled", "nothing"} <= cases[20, 10]
    assert cases[10, 10] == cases[20, 5] == cases[20, 10] - {"votes", "nothing"}
    assert set(gains[gains["source_n"] == 10]["mode"]) == {"fine-tune"}


def test_pairs_count_for_the_source_set(findings: Findings, folder: Path) -> None:
    result = TransferResult.load(folder / FOLDER / "transfer.npz")
    assert {(one.source_set, one.set) for one in result.measured} == {(0, 0), (1, 1)}
    assert "2 sets of 20 images of digits" in result.about["sources"]
    assert "found over random" in findings.paragraph and "N = 10, 10 steps" in findings.paragraph


def test_a_second_call_trains_nothing_and_finds_the_same(
    findings: Findings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("curves", "train"):
        monkeypatch.setattr(type(ENGINE), name, lambda *_: pytest.fail("trained again"))
    with Lab(Options(out=folder), ENGINE) as lab:
        again = study(Settings(**TINY), lab)
    assert again.table.equals(findings.table) and again.paragraph == findings.paragraph


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sets": 0}, "sets must be at least 1"),
        ({"source_n": (21,)}, "nearest valid n"),
        ({"source_n": ()}, "at least one number each"),
        ({"pretrain_steps": (3,)}, "pretrain-steps must be at least 5"),
        ({"replicates": 0}, "replicates must be at least 1"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Settings(**{**TINY, **change})
