"""`--threshold`: whether what a run found counts as a task, and that asking changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import CHEAP, MISBEHAVING, as_options, table, tdbench

import tdbench as package
from tdbench import UserError

SETTINGS: dict[str, Any] = {**CHEAP, "steps": 5, "confirm": 2, "budget": 20}


def run(out: Path, **settings: Any) -> Any:
    return package.run(**{"searcher": "random", "out": out, **SETTINGS, **settings})


def test_a_run_that_is_not_asked_says_nothing_of_tasks(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.threshold is None
    assert result.is_task is None
    assert not (tmp_path / "studies.sqlite").exists()


def test_what_confirms_above_a_given_threshold_is_a_task(tmp_path: Path) -> None:
    confirmed = run(tmp_path).row.confirmed
    assert run(tmp_path, resume=True, threshold=confirmed - 0.001).is_task is True
    assert run(tmp_path, resume=True, threshold=confirmed).is_task is False
    assert run(tmp_path, resume=True, threshold=str(confirmed - 0.001)).threshold.n == 0


def test_a_calibrated_threshold_is_kept_and_changes_no_result(tmp_path: Path, monkeypatch: Any) -> None:
    asked = run(tmp_path / "asked", threshold="auto")
    run(tmp_path / "plain")
    assert table(tmp_path / "asked") == table(tmp_path / "plain")
    assert asked.threshold.low <= asked.threshold.value <= asked.threshold.high
    assert asked.is_task == (asked.row.confirmed > asked.threshold.value)
    monkeypatch.setattr("tdbench.store.curves._Memory.add", lambda *_: pytest.fail("trained again"))
    assert run(tmp_path / "asked", resume=True, threshold="auto").threshold == asked.threshold
    assert run(tmp_path / "asked", space_seed=7, threshold="auto").threshold == asked.threshold  # one setting


def test_other_settings_of_the_space_are_calibrated_anew(tmp_path: Path) -> None:
    first = run(tmp_path, threshold="auto").threshold
    assert run(tmp_path, ratio=1, threshold="auto").threshold.value != first.value
    assert run(tmp_path, steps=8, threshold="auto").threshold.value != first.value


def test_the_command_says_whether_it_is_a_task_and_what_the_threshold_rests_on(tmp_path: Path) -> None:
    words = ["run", "--searcher", "random", *as_options(SETTINGS), "--out", tmp_path]
    done = tdbench(*words, "--threshold", "auto")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("task?")]
    assert "above T_task" in line
    assert "5 % of 80 random labelings exceed it, 16 of each of 5 image sets: 160 trainings" in done.stdout
    assert "T_task" in done.stderr  # a progress bar
    again = tdbench(*words, "--threshold", "auto", "--resume")
    assert line in again.stdout
    assert "T_task" not in again.stderr


@pytest.mark.parametrize("threshold", ["soon", "nan", "inf", "2", ""])
def test_a_threshold_that_cannot_be_is_one_line_and_nothing_is_begun(tmp_path: Path, threshold: str) -> None:
    done = tdbench("run", "--searcher", "random", "--out", tmp_path / "out", "--threshold", threshold)
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: threshold must be auto or a number from -1 to 1, got {threshold!r}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("threshold", [True, [0.4], object()])
def test_a_threshold_of_another_type_is_an_error(tmp_path: Path, threshold: object) -> None:
    with pytest.raises(UserError, match="threshold must be auto or a number"):
        run(tmp_path, threshold=threshold)


def test_a_failed_run_is_compared_with_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, searcher="raises-in-ask", plugins=(MISBEHAVING,), threshold="auto")
    assert result.row.status == "crash"
    assert result.threshold is None
    assert not (tmp_path / "studies.sqlite").exists()


def test_bench_takes_no_threshold(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bench takes no threshold"):
        package.bench("random", out=tmp_path, threshold="auto")
