"""What version 0.1.0 wrote goes on with this one, to the bit.

`fixtures/v0.1.0` was made by it: a log with three finished runs and three that were killed, golden values
(`golden.json`), and what it made of all six itself (`ended.csv`). Its engine was native on the plainest instruction
set, whose bits are the same on every x86-64 machine.
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from helpers import CLOCKS, ROOT, table

import tdbench
from tdbench import TaskSpace
from tdbench.engine import native
from tdbench.engine.protocol import validation_counts
from tdbench.settings import RunSettings
from tdbench.space.evaluate import Evaluator
from tdbench.space.executor import LocalExecutor
from tdbench.space.sources import load_source
from tdbench.store.log import Store
from tdbench.store.rows import COLUMNS, read_rows, to_csv

OLD = ROOT / "tests" / "fixtures" / "v0.1.0"
GOLDEN = json.loads((OLD / "golden.json").read_text())
INTERRUPTED = [
    {"searcher": "umda", "seed": 1},
    {"searcher": "twopointsde", "reduction": "pca:4", "recommend": "race:0.5"},
    {"searcher": "twopointsde", "noise": "frozen", "replicates": 2},
]
SHIPPED = sorted((ROOT / "leaderboards").glob("**/*.csv"))


@pytest.fixture
def plainest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of the fixture."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not native.available_isas():
        pytest.skip("the fixture was made by the native engine on x86-64")
    monkeypatch.setenv(native.ISA_VARIABLE, "base")
    monkeypatch.setattr("tdbench.engine.engine._engine", lambda name, device, threads: native.NativeEngine(threads))


@pytest.mark.parametrize("golden", GOLDEN["spaces"], ids=lambda golden: golden["name"])
def test_spaces_have_the_pixels_the_name_and_the_identity_they_had(golden: dict[str, Any]) -> None:
    space = TaskSpace("digits", **golden["settings"])
    assert (space.identity, space.name) == (golden["identity"], golden["name"])
    assert hashlib.sha256(space.pixels.tobytes()).hexdigest() == golden["pixels"]
    assert hashlib.sha256(space.images.tobytes()).hexdigest() == golden["images"]


@pytest.mark.parametrize("golden", GOLDEN["keys"], ids=lambda golden: golden["key"])
def test_runs_have_the_keys_and_the_records_they_had(golden: dict[str, Any]) -> None:
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in golden["settings"].items()}
    settings = RunSettings(**given)
    assert settings.key(TaskSpace.of(settings, load_source("digits"))) == golden["key"]
    assert json.loads(json.dumps(settings.recorded())) == golden["recorded"]
    assert RunSettings.from_recorded(golden["recorded"]) == settings


@pytest.mark.parametrize("golden", GOLDEN["bits"], ids=lambda golden: str(golden["space"]))
def test_taskness_has_the_bits_it_had(golden: dict[str, Any], plainest: None) -> None:
    space = TaskSpace("digits", **{**golden["space"], "engine": native.NativeEngine()})
    assert space.engine.detail == golden["detail"]
    labels = space.random_labelings(5, seed=2)
    assert [v.hex() for v in space.taskness(labels, replicates=2, run_seed=3).tolist()] == golden["taskness"]
    assert [v.hex() for v in space.taskness(labels, noise="frozen").tolist()] == golden["frozen"]
    assert [v.hex() for v in space.confirm(labels[0], 4).tolist()] == golden["confirm"]
    evaluator = Evaluator(LocalExecutor(space.engine))
    assert evaluator.blind_baseline(space, 2).hex() == golden["blind"]
    assert validation_counts(50, 10) == (2, 8)


def test_the_log_keeps_the_tables_it_had(tmp_path: Path) -> None:
    """Tables are added to a log, never changed."""
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "log.sqlite") as db:
        tables = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    assert set(GOLDEN["tables"]) <= set(tables)


def test_the_leaderboard_begins_with_the_columns_it_had() -> None:
    assert list(COLUMNS[: len(GOLDEN["columns"])]) == GOLDEN["columns"]


def test_runs_that_it_began_end_as_it_would_have_ended_them(tmp_path: Path, plainest: None) -> None:
    shutil.copy(OLD / "log.sqlite", tmp_path)
    shutil.copytree(OLD / "leaderboards", tmp_path / "leaderboards")
    same = {"n": 20, "steps": 20, "confirm": 4, "batch": 10, "budget": 300, "engine": "native", "device": "cpu"}
    for settings in INTERRUPTED:
        result = tdbench.run(**same, **settings, out=tmp_path, resume=True)
        assert result.row.status == "ok", result.row.error
    with (OLD / "ended.csv").open(newline="") as file:
        theirs = [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]
    machine = ("hardware", "versions", "searcher_version")
    ours = [{k: v for k, v in row.items() if k in theirs[0]} for row in table(tmp_path)]
    for row in (*ours, *theirs):
        for column in machine:
            row.pop(column)
    assert ours == theirs


def test_a_finished_run_of_its_log_is_not_run_again(tmp_path: Path, plainest: None) -> None:
    shutil.copy(OLD / "log.sqlite", tmp_path)
    cheap = {"n": 10, "steps": 6, "confirm": 4, "batch": 10, "budget": 60, "engine": "native", "device": "cpu"}
    result = tdbench.run("random", **cheap, out=tmp_path)
    assert result.was_finished
    assert result.row in read_rows(next((OLD / "leaderboards").glob("*.csv")))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_leaderboards_read_and_write_as_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert to_csv(read_rows(path)) == text
