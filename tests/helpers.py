"""What the end-to-end tests share: a cheap run, the command line as a user has it, and tables without their clocks."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

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
