"""Made-up leaderboard rows, for tests of what is concluded from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tdbench.leaderboard.boards import Board
from tdbench.store.rows import FOLDER, Row, append_row


def row(searcher: str = "random", seed: int = 0, confirmed: float = 0.3, **changes: Any) -> Row:
    """A run that went well on a space of ten images; any column can be given."""
    values: dict[str, Any] = {
        "space": "0123456789ab",
        "data": "digits",
        "classes": "0|1|2|3|4",
        "n": 10,
        "ratio": 4,
        "space_seed": 0,
        "split": "stratified",
        "steps": 100,
        "lr": 1e-3,
        "searcher": searcher,
        "searcher_version": "1.0",
        "sees_images": False,
        "seed": seed,
        "budget": 100,
        "batch": 10,
        "replicates": 1,
        "noise": "fresh",
        "confirm": 4,
        "recommend": "searcher",
        "told": confirmed + 0.5,
        "recommended_told": confirmed + 0.5,
        "confirmed": confirmed,
        "confirmed_se": 0.01,
        "optimism": 0.5,
        "confirmed_10": confirmed,
        "confirmed_20": confirmed,
        "confirmed_50": confirmed,
        "distinct": 90,
        "evaluations": 100,
        "trainings": 100,
        "seconds": 1.0,
        "status": "ok",
        "error": "",
        "engine": "reference",
        "engine_detail": "",
        "device": "cpu",
        "hardware": "a processor (2 cores)",
        "versions": "python=3.11.7 torch=2.13.0",
        "timestamp": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    return Row(**{"run": "-".join(str(values[k]) for k in ("space", "searcher", "seed", "budget")), **values})


def rows(searcher: str, values: Sequence[float], **changes: Any) -> list[Row]:
    """One run for each confirmed value, seeds 0, 1, ..."""
    return [row(searcher, seed, float(value), **changes) for seed, value in enumerate(values)]


def failed(searcher: str = "random", seed: int = 0, **changes: Any) -> Row:
    """A run that crashed: it has no confirmed value."""
    nan = float("nan")
    return row(searcher, seed, **{"confirmed": nan, "told": nan, "status": "crash", "error": "it broke", **changes})


def board(*members: Row, label: str = "board") -> Board:
    return Board(label, members, None)


def write(folder: Path, name: str, members: Sequence[Row]) -> Path:
    """A leaderboard file of these rows in the leaderboards of an output folder."""
    path = folder / FOLDER / f"{name}.csv"
    for member in members:
        append_row(path, member)
    return path
