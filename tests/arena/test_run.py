"""`tdbench run`, end to end: what it writes, how it ends, and that being killed changes nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import (
    CHEAP,
    MISBEHAVING,
    ROOT,
    evaluations,
    interrupted,
    run_options,
    start,
    table,
    tdbench,
    wait_for_evaluations,
)
from PIL import Image

import tdbench as package
from tdbench import TaskSpace, UserError
from tdbench.engine import make_engine
from tdbench.engine.batched import BatchedEngine
from tdbench.leaderboard.summary import run_summary
from tdbench.store.rows import COLUMNS, DEFAULTS, read_rows


def run(out: Path, **settings: object) -> package.campaign.Result:  # type: ignore[name-defined]
    return package.run(**{"searcher": "random", "out": out, **CHEAP, **settings})


def test_result_is_in_log_leaderboard_and_picture(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.log.is_file()
    assert list(pd.read_csv(result.leaderboard).columns) == [name for name in COLUMNS if name not in DEFAULTS]
    with Image.open(result.picture) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_told_is_the_best_of_what_the_searcher_was_told(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.row.told == result.told.max()
    assert len(result.told) == result.row.evaluations == CHEAP["budget"]


def test_confirmed_is_what_the_space_confirms_for_the_recommended_labels(tmp_path: Path) -> None:
    result = run(tmp_path)
    space = TaskSpace(n=10, steps=6)
    values = space.confirm(result.labels, replicates=4)
    assert result.row.confirmed == values.mean()
    assert result.row.confirmed_se == pytest.approx(values.std(ddof=1) / 2)
    assert result.row.optimism == result.row.told - result.row.confirmed


def test_told_values_are_those_that_the_space_gives(tmp_path: Path) -> None:
    result = run(tmp_path, seed=3)
    with sqlite3.connect(result.log) as db:
        blobs = db.execute("SELECT labels FROM evaluation ORDER BY evaluation").fetchall()
    labels = np.array([np.unpackbits(np.frombuffer(blob[0], np.uint8), count=10) for blob in blobs])
    space = TaskSpace(n=10, steps=6)
    assert np.array_equal(space.taskness(labels, run_seed=3), result.told)


def test_reference_tasks_and_random_labelings_are_confirmed_beside_it(tmp_path: Path) -> None:
    result = run(tmp_path, references="all")
    assert len(result.reference("class")) == 5
    assert len(result.reference("random")) == 8
    assert {score.task.name for score in result.reference("pixel")} >= {"brightest", "darkest"}
    assert all(len(score.values) == 4 for score in result.references)


def test_few_reference_tasks_are_confirmed_where_all_would_cost_more_than_the_search(tmp_path: Path) -> None:
    result = run(tmp_path, budget=20, confirm=8)
    names = {score.task.name for score in result.references}
    assert {*result.space.classes, "brightest", "random 0", "random 1"} <= names
    assert "random 2" not in names
    assert all(len(score.values) == 8 for score in result.references)


def test_reference_tasks_change_no_result_and_missing_ones_can_be_added(tmp_path: Path) -> None:
    n = 20  # with ten images, what a run finds may be a reference task by chance
    without = run(tmp_path / "a", n=n, references="none")
    assert without.references == ()
    assert "none confirmed; --references all adds them" in "\n".join(run_summary(without))
    with_all = run(tmp_path / "b", n=n, references="all")
    assert table(tmp_path / "a") == table(tmp_path / "b")
    added = run(tmp_path / "a", n=n, references="all", resume=True)
    assert [(s.task.name, s.mean) for s in added.references] == [(s.task.name, s.mean) for s in with_all.references]
    assert table(tmp_path / "a") == table(tmp_path / "b")


def test_equal_settings_give_equal_results(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", searcher="cmaes"), run(tmp_path / "b", searcher="cmaes")
    assert np.array_equal(first.told, second.told)
    assert table(tmp_path / "a") == table(tmp_path / "b")


def test_frozen_noise_tells_a_labeling_the_same_each_time(tmp_path: Path) -> None:
    result = run(tmp_path, searcher="same-vector", plugins=(MISBEHAVING,), noise="frozen")
    assert len(set(result.told)) == 1
    assert (result.row.distinct, result.row.trainings, result.row.evaluations) == (1, 1, 60)


def test_fresh_noise_tells_a_labeling_anew_each_time(tmp_path: Path) -> None:
    result = run(tmp_path, searcher="same-vector", plugins=(MISBEHAVING,))
    assert len(set(result.told)) == 60
    assert result.row.distinct == 1


def test_budget_need_not_be_a_multiple_of_the_batch(tmp_path: Path) -> None:
    assert run(tmp_path, budget=37).row.evaluations == 37


def test_replicates_are_averaged_and_counted(tmp_path: Path) -> None:
    result = run(tmp_path, replicates=3, budget=20)
    assert result.row.trainings == 60


def test_a_failed_run_is_a_row_with_its_error(tmp_path: Path) -> None:
    result = run(tmp_path, searcher="raises-in-ask", plugins=(MISBEHAVING,))
    (row,) = read_rows(result.leaderboard)
    assert row.status == "crash"
    assert "raised in ask" in row.error
    assert np.isnan(row.confirmed)


def test_a_run_keeps_its_score_where_its_engine_runs_short_of_memory(tmp_path: Path, monkeypatch) -> None:
    whole = BatchedEngine.curves

    def shrinking(self, *arguments):
        self.chunk -= 1  # as where a CUDA device has no memory for a whole chunk
        return whole(self, *arguments)

    engine = make_engine("batched")
    monkeypatch.setattr(engine, "chunk", 100)  # restored in the end: the engine is shared
    monkeypatch.setattr(BatchedEngine, "curves", shrinking)
    monkeypatch.setattr(BatchedEngine, "detail", property(lambda self: f"chunk={self.chunk}"))
    result = run(tmp_path, engine="batched")
    assert result.row.status == "ok"
    assert np.isfinite(result.row.confirmed)
    assert result.references


def test_a_plugin_that_was_asked_for_must_load(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plugin nowhere cannot be loaded.*no plugin file"):
        run(tmp_path / "out", plugins=("nowhere.py",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [{}, {"resume": True}], ids=["as before", "resume"])
def test_a_finished_run_gives_its_result_and_is_not_run_again(tmp_path: Path, settings: dict[str, bool]) -> None:
    first = run(tmp_path)
    again = run(tmp_path, **settings)
    assert not first.was_finished and again.was_finished
    assert again.row == first.row
    assert np.array_equal(again.labels, first.labels)
    assert len(read_rows(first.leaderboard)) == 1


def test_resume_of_a_run_never_begun_starts_it(tmp_path: Path) -> None:
    assert run(tmp_path, resume=True).row.status == "ok"


def test_again_adds_a_row_and_gives_the_same_numbers(tmp_path: Path) -> None:
    first = run(tmp_path)
    second = run(tmp_path, again=True)
    assert second.row.run != first.row.run
    assert second.row.confirmed == first.row.confirmed
    assert len(read_rows(first.leaderboard)) == 2


def test_a_row_lost_between_log_and_leaderboard_is_mended_by_resume(tmp_path: Path) -> None:
    first = run(tmp_path)
    first.leaderboard.unlink()
    run(tmp_path, resume=True)
    assert read_rows(first.leaderboard) == [first.row]


def test_one_folder_holds_runs_of_several_spaces(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, space_seed=1)
    assert len(list((tmp_path / "leaderboards").glob("*.csv"))) == 2


def test_an_interrupted_run_needs_resume(tmp_path: Path) -> None:
    interrupted(tmp_path)
    done = tdbench("run", *run_options(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "--resume" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_log_whose_space_cannot_be_rebuilt_is_an_error(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with sqlite3.connect(tmp_path / "log.sqlite") as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("UPDATE space SET identity = 'feedfeedfeed'")
        db.execute("UPDATE run SET space = 'feedfeedfeed'")
    done = tdbench("run", *run_options(tmp_path), "--resume")
    assert done.returncode == 2
    assert "feedfeedfeed" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_searcher_that_does_not_ask_the_same_again_is_reported_and_not_resumed(tmp_path: Path) -> None:
    extra = ("--plugin", MISBEHAVING, "--searcher", "not-reproducible")
    interrupted(tmp_path, *extra)
    done = tdbench("run", *run_options(tmp_path, *extra), "--resume")
    assert done.returncode == 1
    assert "not reproducible" in done.stdout
    assert [row["status"] for row in table(tmp_path)] == ["invalid"]


@pytest.mark.parametrize("searcher", ["twopointsde", "cmaes", "tpe", "clustered-random", "cmaes+ntk:4"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, searcher: str) -> None:
    searcher, _, reduction = searcher.partition("+")
    settings = ("--searcher", searcher, "--reduction", reduction or "identity")
    interrupted(tmp_path / "killed", *settings)
    assert tdbench("run", *run_options(tmp_path / "killed", *settings), "--resume").returncode == 0
    assert tdbench("run", *run_options(tmp_path / "whole", *settings)).returncode == 0
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    assert evaluations(tmp_path / "killed") == evaluations(tmp_path / "whole")


def test_ctrl_c_keeps_what_was_evaluated_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, "--budget", "100000")
    wait_for_evaluations(tmp_path, 30)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert len(evaluations(tmp_path)) >= 30


def test_workers_die_with_a_killed_run(tmp_path: Path) -> None:
    process = start(tmp_path, "--plugin", MISBEHAVING, "--searcher", "slow", "--budget", "100000")
    wait_for_evaluations(tmp_path, 10)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert workers
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(alive(int(pid)) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its arena"
        time.sleep(0.05)


def test_two_processes_add_to_one_leaderboard_and_lose_no_row(tmp_path: Path) -> None:
    processes = [start(tmp_path, "--seed", str(seed), "--budget", "20") for seed in range(4)]
    for process in processes:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert len(table(tmp_path)) == 4


def test_the_same_run_twice_at_a_time_is_an_error(tmp_path: Path) -> None:
    process = start(tmp_path, "--budget", "100000")
    try:
        wait_for_evaluations(tmp_path, 1)
        done = tdbench("run", *run_options(tmp_path, "--budget", "100000"), "--resume")
        assert done.returncode == 2
        assert "another tdbench process" in done.stderr
    finally:
        process.kill()
        process.communicate()


def test_runs_on_real_cifar_images(tmp_path: Path) -> None:
    path = ROOT.parent / "shared" / "data" / "cifar100-sample.npz"
    if not path.is_file():
        pytest.skip(f"no real images at {path}")
    result = run(tmp_path, data=str(path), n=50, budget=10, references="all")
    assert result.row.data == "cifar100-sample"
    assert len(result.reference("pixel")) == 9


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z")
