"""The study discovery: its table says what the libraries of its runs say, and it refuses what no run can have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdbench.base.errors import UserError
from tdbench.engine import make_engine
from tdbench.settings import Options
from tdbench.space.similarity import overlap
from tdbench.store.library import TaskLibrary
from tdbench.store.worth import chance_of_overlap
from tdbench.studies._lab import Findings, Lab
from tdbench.studies.discovery import FOLDER, Settings, study

TINY: dict[str, Any] = {
    "searchers": "random,umda", "sets": 2, "n": 20, "tasks": 3, "budget": 30, "batch": 10, "steps": 5, "confirm": 2,
    "similarities": "0.25,0.5",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("discovery")


@pytest.fixture(scope="module")
def findings(folder: Path) -> Iterator[Findings]:
    with Lab(Options(out=folder), make_engine()) as lab:
        yield study(Settings(**TINY), lab)


def test_the_first_searcher_runs_at_every_similarity_and_the_others_at_the_first(findings: Findings) -> None:
    cases = findings.table.groupby(["searcher", "max_similarity"])["space_seed"].nunique()
    assert dict(cases) == {("random", 0.25): 2, ("random", 0.5): 2, ("umda", 0.25): 2}


def test_the_table_has_the_labelings_of_the_libraries(findings: Findings, folder: Path) -> None:
    libraries = [TaskLibrary.load(path) for path in (folder / FOLDER / "libraries").glob("*.npz")]
    assert len(libraries) == 6
    assert len(findings.table) == sum(map(len, libraries))
    assert sorted(findings.table["confirmed"]) == sorted(np.concatenate([library.confirmed for library in libraries]))


def test_classes_are_found_again_where_chance_would_rarely_do_so(findings: Findings, folder: Path) -> None:
    for library in [TaskLibrary.load(path) for path in (folder / FOLDER / "libraries").glob("*.npz")]:
        classes = np.stack([task.labels for task in library.references if task.kind == "class"])
        rows = findings.table.query("space == @library.space and searcher == @library.searchers[0]")
        rows = rows[rows["max_similarity"] == library.max_similarity].sort_values("k")
        for k in range(1, len(library) + 1):
            best = overlap(classes, library.labels[:k]).max(axis=1)
            chance = chance_of_overlap(20, 4, k)[best]
            assert rows["classes_found"].iloc[k - 1] == (chance < 0.005).sum()


def test_a_second_call_trains_nothing_and_finds_the_same(findings: Findings, folder: Path) -> None:
    before = (folder / FOLDER / "log.sqlite").read_bytes()
    with Lab(Options(out=folder), make_engine()) as lab:
        again = study(Settings(**TINY), lab)
    assert again.paragraph == findings.paragraph
    assert again.table.equals(findings.table)
    assert (folder / FOLDER / "log.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"similarities": "0.25,much"}, "similarities must be numbers"),
        ({"similarities": "2"}, "max.similarity must be"),
        ({"searchers": " , "}, "searchers must be names"),
        ({"sets": 0}, "sets must be at least 1"),
        ({"tasks": 6, "similarities": "0"}, "at most 5 labelings"),
        ({"budget": 2, "batch": 1}, "3 tasks need a budget"),
    ],
)
def test_settings_that_no_run_can_have_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Settings(**{**TINY, **settings})
