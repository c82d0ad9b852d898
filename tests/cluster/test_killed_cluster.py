"""kill -9 of workers and of the coordinator at random moments: the tables are those of a run without a cluster."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from helpers import as_options, command, environment, evaluations, table, tdbench
from processes import alive, local_workers, wait_until
from test_commands import log

SETTINGS = {"n": 20, "steps": 30, "confirm": 8, "batch": 32, "references": "few"}
SHORT = {"kills": 2, "budget": 256}
LONG = {"kills": 14, "budget": 3200}


def progress(out: Path) -> int:
    """Evaluations that are committed."""
    return len(evaluations(out))


def kill_one(process: subprocess.Popen[str], moments: random.Random, coordinator: bool) -> bool:
    """Kill the coordinator, or a worker that has joined; False where there is nothing left to kill."""
    workers = local_workers(process.pid)
    if process.poll() is not None or not workers:
        return False
    try:
        (psutil.Process(process.pid) if coordinator else moments.choice(workers)).kill()
    except psutil.NoSuchProcess:
        return False
    return True


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(LONG, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_killed_workers_and_coordinators_leave_the_tables_as_they_are_without_a_cluster(
    tmp_path: Path, form: dict[str, int]
) -> None:
    words = ["bench", "--searchers", "random,umda", "--seeds", "1"]
    words += as_options({**SETTINGS, "budget": form["budget"]})
    assert tdbench(*words, "--threads", 1, "--out", tmp_path / "whole", timeout=900).returncode == 0
    out, moments, kills = tmp_path / "killed", random.Random(16), 0
    coordinators = set(range(1, form["kills"], 2))  # which of the kills are of the coordinator
    while True:
        before = progress(out)
        process = subprocess.Popen(
            command(*words, "--out", out, "--cluster", "local:3", "--resume"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        started: set[int] = set()
        while kills < form["kills"] and process.poll() is None:
            wait_until(lambda p=process, b=before: progress(out) > b or p.poll() is not None)
            time.sleep(moments.uniform(0, 0.5))
            started |= {worker.pid for worker in local_workers(process.pid)}
            coordinator = kills in coordinators
            before = progress(out)
            if kill_one(process, moments, coordinator):
                kills += 1
                if coordinator:
                    break
        _, said = process.communicate(timeout=900)
        wait_until(lambda s=started: alive(sorted(s)) == [], 10, "workers outlive who started them")
        if process.returncode == 0:
            break
        assert process.returncode == -9, said
    assert kills == form["kills"], f"it ended after {kills} kills; make it longer"
    assert table(out) == table(tmp_path / "whole")
    assert log(out) == log(tmp_path / "whole")
