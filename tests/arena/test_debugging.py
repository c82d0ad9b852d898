"""A plugin's author sees what the searcher prints, logs and raises, and can stop in it with a debugger."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CHEAP, as_options, command, environment, tdbench

from tdbench import UserError, bench, run, run_in_process

PLUGIN = """
import logging
import sys

import numpy as np
from tdbench import hookimpl

class Talks:
    def __init__(self, problem):
        self.problem, self.rng, self.asks = problem, np.random.default_rng(problem.seed), 0
        print("made with", problem.dim)
    def ask(self, n):
        self.asks += 1
        print("ask", self.asks)
        return self.rng.random((n, self.problem.dim))
    def tell(self, scores, loss):
        logging.getLogger("talks").info("told %d", len(loss))
        print("to stderr", file=sys.stderr)

class Raises(Talks):
    def tell(self, scores, loss):
        number = self.asks - 1
        1 / number

class Stops(Talks):
    def tell(self, scores, loss):
        breakpoint()

class Wrong(Talks):
    def ask(self, n):
        return self.rng.random((n, self.problem.dim)) * 2

@hookimpl
def register_searchers(register):
    for name, cls in (("talks", Talks), ("raises", Raises), ("stops", Stops), ("wrong", Wrong)):
        register(name, cls)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "talks.py"
    path.write_text(PLUGIN)
    return str(path)


def test_what_searchers_print_and_log_is_in_the_file_line_by_line(tmp_path: Path, plugin: str) -> None:
    log = tmp_path / "searchers.txt"
    bench("talks", seeds=2, plugins=[plugin], searcher_log=log, out=tmp_path / "out", **CHEAP)
    lines = log.read_text().splitlines()
    for seed in (0, 1):
        own = [line.partition(" | ")[2] for line in lines if line.startswith(f"talks, seed {seed} | ")]
        assert own[:4] == ["made with 10", "ask 1", "INFO talks: told 10", "to stderr"]
        assert own.count("to stderr") == 6
    assert len(lines) == 2 * (1 + 3 * 6)


def test_the_traceback_of_a_crash_is_in_the_file(tmp_path: Path, plugin: str) -> None:
    log = tmp_path / "searchers.txt"
    result = run("raises", plugins=[plugin], searcher_log=log, out=tmp_path / "out", **CHEAP)
    assert (result.row.status, result.row.error) == ("crash", "ZeroDivisionError: division by zero")
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "1 / number" in text


def test_a_log_changes_no_result(tmp_path: Path, plugin: str) -> None:
    with_log = run("talks", plugins=[plugin], searcher_log=tmp_path / "log", out=tmp_path / "a", **CHEAP)
    without = run("talks", plugins=[plugin], out=tmp_path / "b", **CHEAP)
    assert with_log.row.run == without.row.run
    assert np.array_equal(with_log.told, without.told)


def test_a_log_that_cannot_be_written_is_an_error_before_anything_is(tmp_path: Path, plugin: str) -> None:
    with pytest.raises(UserError, match="is a folder; give the name of a file"):
        run("talks", plugins=[plugin], searcher_log=tmp_path, out=tmp_path / "out", **CHEAP)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more", [{}, {"recommend": "race:0.25"}, {"noise": "frozen", "replicates": 2}, {"reduction": "pca:3"}], ids=str
)
def test_a_run_in_this_process_finds_what_the_run_finds_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plugin: str, more: Any
) -> None:
    result = run("talks", plugins=[plugin], out=tmp_path / "out", **CHEAP, **more)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    trial = run_in_process("talks", plugins=[plugin], **CHEAP, **more)
    assert np.array_equal(trial.told, result.told)
    assert np.array_equal(trial.labels, result.labels)
    assert trial.confirmed.mean() == result.row.confirmed
    assert trial.evaluations == result.row.evaluations
    assert list(work.iterdir()) == []
    printed = capsys.readouterr()
    assert "ask 1\n" in printed.out
    assert "no log and no row is written" in printed.err


def test_a_debugger_stops_in_the_searcher(tmp_path: Path, plugin: str) -> None:
    words = [*as_options(CHEAP), "--out", str(tmp_path / "out"), "--plugin", plugin]
    done = subprocess.run(
        command("run", "--searcher", "stops", "--in-process", *words),
        input="p len(loss)\nq\n",
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert "(Pdb) 10\n" in done.stdout
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_came_of_it(tmp_path: Path, plugin: str) -> None:
    words = [*as_options(CHEAP), "--out", str(tmp_path / "out"), "--plugin", plugin]
    done = tdbench("run", "--searcher", "talks", "--in-process", *words)
    assert done.returncode == 0, done.stderr
    assert "confirmed " in done.stdout and "ask 6\n" in done.stdout
    raised = tdbench("run", "--searcher", "raises", "--in-process", *words)
    assert "1 / number" in raised.stderr
    assert not (tmp_path / "out").exists()


def test_what_it_answers_wrongly_is_one_line(plugin: str) -> None:
    with pytest.raises(UserError, match=r"wrong: invalid after 0 evaluations: ask must return values in \[0, 1\]"):
        run_in_process("wrong", plugins=[plugin], **CHEAP)


def test_a_class_can_be_run_and_run_says_how() -> None:
    class Mine:
        def __init__(self, problem: Any) -> None:
            self.problem = problem

        def ask(self, n: int) -> Any:
            assert self.problem.images is not None
            return np.random.default_rng(n).random((n, self.problem.dim))

        def tell(self, scores: Any, loss: Any) -> None:
            pass

    trial = run_in_process(Mine, sees_images=True, **CHEAP)
    assert trial.evaluations == 60
    assert "Mine" in repr(trial)
    with pytest.raises(UserError, match=r"tdbench.run_in_process takes a class"):
        run(Mine, **CHEAP)  # type: ignore[arg-type]
