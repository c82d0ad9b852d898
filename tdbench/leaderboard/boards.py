"""Reading leaderboards from files and folders, and grouping their rows by the settings that must agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tdbench.base.errors import UserError
from tdbench.space.similarity import DEFAULT_MAX_SIMILARITY
from tdbench.store.log import FILE_NAME, run_attempt
from tdbench.store.rows import FOLDER, Row, read_rows


@dataclass(frozen=True)
class Board:
    """The rows of one leaderboard file or folder; `log` is the folder of its evaluation log, None without one."""

    label: str
    rows: tuple[Row, ...]
    log: Path | None


@dataclass(frozen=True, order=True)
class RunProtocol:
    """The settings in which runs must agree so that their results may stand in one table."""

    budget: int
    batch: int
    replicates: int
    noise: str
    confirm: int
    recommend: str
    sealed: str = ""
    tasks: int = 0
    protocol: str = "joint"
    max_similarity: float = DEFAULT_MAX_SIMILARITY
    start: str = ""

    @classmethod
    def of(cls, row: Row) -> RunProtocol:
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls)})

    def __str__(self) -> str:
        parts = [
            f"budget {self.budget}, batch {self.batch}, replicates {self.replicates}, {self.noise} noise, "
            f"confirm {self.confirm}, recommend {self.recommend}"
        ]
        if self.sealed:
            parts.append(f"sealed {self.sealed}")
        if self.tasks:
            parts.append(f"{self.tasks} tasks, {self.protocol}, similarity at most {self.max_similarity:g}")
        if self.start:
            parts.append(f"start {self.start}")
        return ", ".join(parts)

    def record(self) -> dict[str, Any]:
        """The settings by name, for programs; those that came after 0.1.0 only where they differ from their default."""
        later = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}


PROTOCOL_FIELDS = tuple(RunProtocol.__dataclass_fields__)
Group = tuple[str, RunProtocol]  # space identity and protocol


def load_boards(paths: Sequence[Path], *, empty: bool = False) -> list[Board]:
    """One board for each path: a leaderboard CSV, an output folder, or a folder of leaderboard CSVs.

    Args:
        empty: a folder may have no leaderboard, and a leaderboard no rows.

    Raises:
        UserError: there is nothing at a path, or what is there is not a leaderboard.
    """
    boards = []
    for label, path in zip(_labels(paths), paths, strict=True):
        if path.is_dir():
            folder = path / FOLDER if (path / FOLDER).is_dir() else path
            files = sorted(folder.glob("*.csv"))
            if not files and not empty:
                raise UserError(f"there is no leaderboard (*.csv) in {folder}; give a leaderboard or an --out folder")
        elif path.exists():
            files = [path]
        else:
            raise UserError(f"there is no {path}; give a leaderboard CSV, or the --out folder of a run")
        rows = tuple(row for file in files for row in read_rows(file))
        if not rows and not empty:
            raise UserError(f"{path} holds no finished run yet; see tdbench status")
        folders = [path, *(folder for file in files[:1] for folder in file.parents[:2])]
        log = next((folder for folder in folders if (folder / FILE_NAME).is_file()), None)
        boards.append(Board(label, rows, log))
    return boards


def group_rows(rows: Iterable[Row]) -> dict[Group, list[Row]]:
    """The rows that may stand in one table, for each space and protocol, in order."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.space, RunProtocol.of(row)), []).append(row)
    return groups


def latest_runs(rows: Iterable[Row]) -> list[Row]:
    """The latest row for each space, protocol, searcher and seed, in order.

    A later run of the same settings replaces the earlier one, because it is not another sample: a run that is repeated
    with `--again` counts once, and a failure that was repaired no longer counts. Of the
    attempts at one run the last counts, whatever the clock said; the time decides between runs that differ in what no
    table tells apart, such as the engine.
    """
    groups: dict[tuple[str, RunProtocol, str, int], dict[str, tuple[int, Row]]] = {}
    for row in rows:
        attempts = groups.setdefault((row.space, RunProtocol.of(row), row.searcher, row.seed), {})
        key, attempt = run_attempt(row.run)
        known = attempts.get(key)
        if known is None or (attempt, row.timestamp) >= (known[0], known[1].timestamp):
            attempts.pop(key, None)  # to the end: of equal times, the row that came last counts
            attempts[key] = (attempt, row)
    return [
        max(reversed([row for _, row in attempts.values()]), key=lambda row: row.timestamp)
        for attempts in groups.values()
    ]


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that are all different."""
    parts = [path.resolve().with_suffix("").parts if path.suffix == ".csv" else path.resolve().parts for path in paths]
    labels = []
    for i, own in enumerate(parts):
        others = [other for j, other in enumerate(parts) if j != i]
        for length in range(1, len(own) + 1):
            if all(other[-length:] != own[-length:] for other in others):
                break
        labels.append("/".join(own[-length:]))
    return labels
