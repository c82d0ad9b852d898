"""kill -9 at random moments: nothing that was evaluated is lost, no process stays, and the result is the same."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import rude
from rude import CHEAPEST, OUT, TIMES, Running

TABLES = ("evaluation", "ask", "recommendation")
COMMANDS = {
    "bench": ("bench", "--searchers", "random,umda", "--seeds", "1"),
    "hunch": ("run", "--searcher", "hunch"),
}
STEPS = 30
SHORT = {"kills": 1, "budget": 200}
LONG = {"kills": 30, "budget": 1500}


def arguments(name: str, budget: int) -> list[str]:
    settings = {**CHEAPEST, "steps": STEPS, "budget": budget, "out": OUT}
    return [*COMMANDS[name], *rude.as_options(settings), *TIMES]


def log(results: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What the log has of evaluations, asks and recommendations, in a fixed order."""
    path = results / "log.sqlite"
    if not path.is_file():
        return {name: [] for name in TABLES}
    db = sqlite3.connect(path, timeout=30)
    try:
        return {name: db.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in TABLES}
    except sqlite3.OperationalError:  # its tables are not there yet
        return {name: [] for name in TABLES}
    finally:
        db.close()


def kill_at_a_random_moment(running: Running, results: Path, moments: random.Random, committed: int) -> bool:
    """While it starts, in its first batches, or later on; False where it ended before."""
    if moments.random() < 0.25:
        time.sleep(moments.uniform(0, 3))
    else:
        deadline = time.monotonic() + 60
        while len(log(results)["evaluation"]) <= committed and running.process.poll() is None:
            assert time.monotonic() < deadline, "it does not get on"
            time.sleep(0.01)
        time.sleep(moments.expovariate(20))
    if running.process.poll() is not None:
        return False
    assert running.kill().left == ()
    return True


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(LONG, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_killed_at_random_moments_equals_uninterrupted_to_the_bit(
    tmp_path: Path, name: str, form: dict[str, int]
) -> None:
    command = arguments(name, form["budget"])
    whole = rude.tdbench(tmp_path / "whole", *command)
    assert whole.code == 0, whole.err
    folder = tmp_path / "killed"
    results = folder / "work" / OUT
    moments, kills, committed = random.Random(12), 0, 0
    while kills < form["kills"]:
        running = Running(folder, *command, "--resume")
        if not kill_at_a_random_moment(running, results, moments, committed):
            break
        kills += 1
        now = len(log(results)["evaluation"])
        assert now >= committed, "an evaluation that was committed is gone"
        committed = now
    assert kills == form["kills"], f"it ended after {kills} kills; make it longer"
    done = rude.tdbench(folder, *command, "--resume")
    assert done.code == 0, done.err
    assert done.rows == whole.rows
    assert log(done.results) == log(whole.results)
    assert done.strewn == []


@pytest.mark.long
def test_what_rude_searchers_have_started_ends_with_a_killed_bench(tmp_path: Path) -> None:
    """A session, a daemon, a fork with the pipe, and searchers that wait, whose bench is killed without notice."""
    names = ["leaves-a-session-and-waits", "leaves-a-daemon", "fork-holds-the-pipe", "ignores-and-sleeps-in-ask"]
    command = rude.bench_arguments(tmp_path, [*names, "random"], budget=20_000)
    running = Running(tmp_path, *command, "--ask-timeout", "60")
    notes = tmp_path / "plugins" / "notes"
    deadline = time.monotonic() + 60
    while len(list(notes.glob("[0-9]*"))) < 3 and running.process.poll() is None:
        assert time.monotonic() < deadline, "the searchers do not get on"
        time.sleep(0.05)
    done = running.kill()
    assert len(list(notes.glob("[0-9]*"))) == 3, done.err
    assert done.left == ()
