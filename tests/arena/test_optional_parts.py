"""What a searcher may do beside ask and tell: end early, prefer a batch, hear single replicates, begin from a start."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CHEAP, ROOT, called, table

from tdbench import UserError, bench, run
from tdbench.api import discover
from tdbench.leaderboard.boards import load_boards
from tdbench.leaderboard.summary import run_summary
from tdbench.store.log import Store

SOURCE = (ROOT / "tests" / "fixtures" / "optional_parts.py").read_text()


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    """The plugin, which writes what it sees into the file `seen` of this test's folder."""
    path = tmp_path / "optional_parts.py"
    path.write_text(SOURCE.replace('Path(__file__).parent / "seen"', f"Path({str(tmp_path / 'seen')!r})"))
    return str(path)


def interrupt(out: Path, after: int, but: tuple[str, ...] = ()) -> None:
    """Make the log of `out` one of a run that was killed after so many evaluations."""
    with sqlite3.connect(out / "log.sqlite") as db:
        db.execute("UPDATE run SET status = 'running', row = NULL, error = ''")
        db.execute("DELETE FROM recommendation")
        db.execute("DELETE FROM evaluation WHERE evaluation >= ?", (after,))
        db.execute("DELETE FROM ask WHERE first >= ?", (after,))
        for table_name in but:
            db.execute(f"DELETE FROM {table_name}")
    for path in (out / "leaderboards").glob("*.csv"):
        path.unlink()


def test_a_searcher_that_is_done_ends_its_run_well_and_the_rest_of_the_budget_is_said(
    tmp_path: Path, plugin: str
) -> None:
    result = run("done", plugins=[plugin], out=tmp_path / "out", **CHEAP)
    row = result.row
    assert (row.status, row.evaluations, row.trainings, len(result.told)) == ("ok", 30, 30, 30)
    assert row.error == "the searcher was done early: 30 of 60 evaluations were not used"
    assert row.confirmed == row.confirmed_50 and not np.isnan([row.confirmed_10, row.confirmed_20]).any()
    assert f"done        {row.error}" in run_summary(result)
    assert result.labels is not None


def test_its_own_recommendation_is_what_is_confirmed(tmp_path: Path, plugin: str) -> None:
    result = run("done-recommends", plugins=[plugin], out=tmp_path / "out", **CHEAP)
    assert result.labels.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert result.row.never_evaluated


def test_a_race_follows_with_its_own_share_of_the_budget(tmp_path: Path, plugin: str) -> None:
    result = run("done", plugins=[plugin], out=tmp_path / "out", recommend="race:0.25", **CHEAP)
    assert (result.row.status, result.row.evaluations, len(result.told)) == ("ok", 45, 30)
    assert result.row.told == result.told.max()
    assert "15 more evaluations chose" in "\n".join(run_summary(result))
    assert "15 of 60 evaluations were not used" in result.row.error
    with Store(tmp_path / "out", read_only=True) as store:
        (record,) = store.runs()
        assert len(store.told(record)[1]) == 30


@pytest.mark.parametrize("recommend", ["searcher", "race:0.25"])
@pytest.mark.parametrize("after", [10, 30, 40])
def test_an_interrupted_run_ends_as_it_would_have(tmp_path: Path, plugin: str, recommend: str, after: int) -> None:
    settings: dict[str, Any] = {**CHEAP, "recommend": recommend, "plugins": [plugin], "out": tmp_path / "out"}
    run("done", **settings)
    whole = table(tmp_path / "out")
    interrupt(tmp_path / "out", after, but=("search_end",) if after < 30 else ())
    run("done", **settings, resume=True)
    assert table(tmp_path / "out") == whole


def test_one_that_is_done_elsewhere_on_resume_is_not_reproducible(tmp_path: Path, plugin: str) -> None:
    settings: dict[str, Any] = {**CHEAP, "plugins": [plugin], "out": tmp_path / "out"}
    run("done-by-chance", **settings)
    interrupt(tmp_path / "out", 20)
    (tmp_path / "seen").touch()
    row = run("done-by-chance", **settings, resume=True).row
    assert row.status == "invalid"
    assert row.error.startswith("not reproducible: on resume the searcher was done at evaluation 10")


def test_one_that_goes_on_after_its_end_is_not_reproducible(tmp_path: Path, plugin: str) -> None:
    settings: dict[str, Any] = {**CHEAP, "plugins": [plugin], "out": tmp_path / "out"}
    (tmp_path / "seen").touch()
    run("done-by-chance", **settings)
    interrupt(tmp_path / "out", 10)
    (tmp_path / "seen").unlink()
    row = run("done-by-chance", **settings, resume=True).row
    assert (row.status, row.evaluations) == ("invalid", 10)
    assert "on resume the searcher went on at evaluation 10" in row.error


def test_done_before_anything_was_told_is_invalid(tmp_path: Path, plugin: str) -> None:
    row = run("done-at-once", plugins=[plugin], out=tmp_path / "out", **CHEAP).row
    assert (row.status, row.error) == ("invalid", "ask raised tdbench.Done before the searcher was told anything")


def test_it_is_ranked_beside_others(tmp_path: Path, plugin: str) -> None:
    bench(["done", "random"], seeds=2, plugins=[plugin], out=tmp_path / "out", **CHEAP)
    rows = load_boards([tmp_path / "out"])[0].rows
    assert sorted((row.searcher, row.evaluations) for row in rows) == [("done", 30)] * 2 + [("random", 60)] * 2


@pytest.mark.parametrize(("protocol", "evaluations"), [("joint", 30), ("rounds", 60)])
def test_discoveries_end_early_too_each_round_by_itself(
    tmp_path: Path, plugin: str, protocol: str, evaluations: int
) -> None:
    settings = {**CHEAP, "budget": 100, "tasks": 2, "protocol": protocol}
    result = discover("done", plugins=[plugin], out=tmp_path / "out", **settings)
    assert (result.row.status, result.row.evaluations, len(result.library)) == ("ok", evaluations, 2)


# a batch of its own


def test_runs_without_a_batch_have_the_one_that_the_searcher_prefers(tmp_path: Path, plugin: str) -> None:
    settings = {name: value for name, value in CHEAP.items() if name != "batch"}
    results = bench(["seven", "many", "random"], seeds=1, plugins=[plugin], out=tmp_path / "a", **settings)
    assert [result.row.batch for result in results] == [7, 60, 32]
    assert run("seven", plugins=[plugin], out=tmp_path / "b", **CHEAP).row.batch == 10


def test_a_default_batch_leaves_keys_as_they_were(tmp_path: Path) -> None:
    settings = {**CHEAP, "budget": 64, "batch": 32}
    given = run("random", out=tmp_path / "a", **settings)
    settings.pop("batch")
    assert run("random", out=tmp_path / "b", **settings).row.run == given.row.run


# single replicates


@pytest.mark.parametrize("noise", ["fresh", "frozen"])
def test_losses_of_single_replicates_are_told_and_told_again_on_resume(tmp_path: Path, plugin: str, noise: str) -> None:
    settings: dict[str, Any] = {**CHEAP, "replicates": 3, "noise": noise, "plugins": [plugin], "out": tmp_path / "out"}
    result = run("each", **settings)
    assert result.row.status == "ok", result.row.error
    first = [losses for _, losses in map(json.loads, (tmp_path / "seen").read_text().splitlines())]
    told = np.concatenate(first)
    assert told.shape == (60, 3)
    assert np.allclose(1 - told.mean(axis=1), result.told, atol=1e-12)
    assert told.std(axis=1).min() > 0
    interrupt(tmp_path / "out", 40)
    with sqlite3.connect(tmp_path / "out" / "log.sqlite") as db:
        db.execute("DELETE FROM replicate WHERE evaluation >= 40")
    again = run("each", **settings, resume=True)
    assert np.array_equal(again.told, result.told)
    everything = [losses for _, losses in map(json.loads, (tmp_path / "seen").read_text().splitlines())]
    assert everything[6:] == first


def test_one_training_is_a_replicate_too_and_nothing_more_is_logged(tmp_path: Path, plugin: str) -> None:
    run("each", plugins=[plugin], out=tmp_path / "out", **CHEAP)
    lines = (tmp_path / "seen").read_text().splitlines()
    assert [np.shape(json.loads(line)[1]) for line in lines] == [(10, 1)] * 6
    with sqlite3.connect(tmp_path / "out" / "log.sqlite") as db:
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'replicate'").fetchall()


# a warm start

START = np.eye(10, dtype=np.uint8)[:3] + np.eye(10, k=1, dtype=np.uint8)[:3]


def test_a_search_begins_from_the_labelings_of_a_file(tmp_path: Path, plugin: str) -> None:
    np.savez(tmp_path / "start.npz", labels=START)
    (tmp_path / "start.csv").write_text("\n".join(",".join(map(str, row)) for row in START.tolist()))
    settings: dict[str, Any] = {**CHEAP, "plugins": [plugin]}
    names = ("start.npz", "start.csv")
    results = [run("starts", start=tmp_path / name, out=tmp_path / name[-3:], **settings) for name in names]
    assert [result.row.status for result in results] == ["ok", "ok"], results[0].row.error
    assert results[0].row.run == results[1].row.run
    assert results[0].row.start == results[1].row.start != ""
    assert results[0].row.distinct == 3


def test_a_start_makes_a_run_of_its_own_that_is_ranked_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "start.npz", labels=START)
    for searcher in ("umda", "swap-annealing"):
        cold = run(searcher, out=tmp_path / "out", **CHEAP)
        warm = run(searcher, out=tmp_path / "out", start=tmp_path / "start.npz", **CHEAP)
        assert (cold.row.status, warm.row.status) == ("ok", "ok")
        assert cold.row.run != warm.row.run
        assert not np.array_equal(cold.told, warm.told)


def test_a_library_can_be_a_start(tmp_path: Path) -> None:
    found = discover("random", tasks=3, max_similarity=0.5, out=tmp_path / "a", **CHEAP)
    result = run("umda", start=found.library_path, out=tmp_path / "b", **CHEAP)
    assert result.row.start != ""


@pytest.mark.parametrize(
    ("searcher", "labels", "said"),
    [
        ("random", START, "searcher 'random' does not begin from given labelings"),
        ("umda", START[:, :9], "expected labelings of 10 zeros and ones, P = 2"),
        ("umda", START * 2, "expected labelings of 10 zeros and ones, P = 2"),
        ("umda", START[0], "has no labelings; expected a task library"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, searcher: str, labels: Any, said: str
) -> None:
    np.savez(tmp_path / "start.npz", labels=labels)
    words = [f"--{name}={value}" for name, value in CHEAP.items()]
    code, _, error = called(
        capsys, "run", "--searcher", searcher, "--start", tmp_path / "start.npz", "--out", tmp_path / "out", *words
    )
    assert code == 2
    assert said in error
    with pytest.raises(UserError):
        run(searcher, start=tmp_path / "nowhere.csv", out=tmp_path / "out", **CHEAP)
