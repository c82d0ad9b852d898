"""What the end-to-end tests share: a cheap run, the command line as a user has it, and tables without their clocks."""

from __future__ import annotations

import csv
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tdbench.cli import main
from tdbench.engine import Engine
from tdbench.space.evaluate import Evaluator
from tdbench.space.executor import LocalExecutor, Request

ROOT = Path(__file__).parents[1]
MISBEHAVING = str(ROOT / "tests" / "fixtures" / "misbehaving.py")
CLOCKS = ("seconds", "timestamp")

# Ten images and few steps: an evaluation takes milliseconds, and everything else is as in a real run.
CHEAP = {"n": 10, "steps": 6, "confirm": 4, "batch": 10, "budget": 60}


def as_options(settings: dict[str, object]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def tdbench(*args: object, timeout: float = 120, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """`tdbench ARGS` in a process of its own."""
    return subprocess.run(
        command(*args), capture_output=True, text=True, timeout=timeout, env=environment(), check=False, **kwargs
    )


def command(*args: object) -> list[str]:
    return [sys.executable, "-c", "from tdbench.cli import main; main()", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def table(out: Path) -> list[dict[str, str]]:
    """Every leaderboard row under a results folder, without the columns that tell the time; sorted by run."""
    rows = []
    for path in sorted((out / "leaderboards").glob("*.csv")):
        with path.open(newline="") as file:
            rows += [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]
    return sorted(rows, key=lambda row: row["run"])


def called(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `tdbench ARGS`, in this process."""
    with pytest.raises(SystemExit) as exit_:
        main([str(arg) for arg in args])
    printed = capsys.readouterr()
    return int(exit_.value.code or 0), printed.out, printed.err


def one_error(code: int, error: str) -> str:
    assert code == 2
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    return line


def run_options(out: Path, *extra: str) -> list[str]:
    settings = as_options({**CHEAP, "budget": 400, "searcher": "random", "out": out})
    return [*settings, *extra]


def start(out: Path, *extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", *run_options(out, *extra)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def interrupted(out: Path, *extra: str) -> None:
    """A run killed with SIGKILL somewhere between its first evaluations and its end."""
    process = start(out, *extra)
    wait_for_evaluations(out, 30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with sqlite3.connect(out / "log.sqlite") as db:
        assert db.execute("SELECT status FROM run").fetchall() == [("running",)], "it was not killed in time"


def wait_for_evaluations(out: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while len(evaluations(out)) < count:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


def evaluations(out: Path) -> list[tuple[object, ...]]:
    path = out / "log.sqlite"
    if not path.is_file():
        return []
    db = sqlite3.connect(path, timeout=30)
    try:
        return db.execute("SELECT evaluation, labels, taskness FROM evaluation ORDER BY evaluation").fetchall()
    except sqlite3.OperationalError:  # its tables are not there yet
        return []
    finally:
        db.close()


def evaluate(requests: list[Request], engine: Engine) -> list[np.ndarray]:
    """(n, k) taskness for each request."""
    return Evaluator(LocalExecutor(engine)).evaluate(requests)
