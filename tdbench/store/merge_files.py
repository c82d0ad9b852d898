"""The files beside the logs of results folders that are joined: leaderboards, libraries and pictures."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tdbench.base.errors import UserError
from tdbench.base.files import whole_file
from tdbench.store import csv_file
from tdbench.store.csv_file import Content
from tdbench.store.library import TaskLibrary
from tdbench.store.rows import (
    COLUMNS,
    FOLDER,
    Row,
    columns_for,
    differing,
    leaderboard_path,
    line_of,
    read_rows,
    space_name,
)

_FOLDERS = ("libraries", "pictures")


class Boards:
    """The rows of the leaderboards of all folders. The log says what a run came to, where it has the run."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, Row, Path | None]] = {}  # run -> name of its space, row, file that has it
        self._foreign: dict[str, dict[str, str]] = {}  # run -> cells of columns that are not ours

    def add_logged(self, run: str, row: Row | None) -> None:
        """Add the row of a run in the log; None of a run that has not ended."""
        if row is not None:
            self._rows[run] = (space_name(row), row, None)

    def add_folder(self, folder: Path) -> None:
        """Add what the leaderboards of a folder have. Raises UserError where a row of a run differs from another."""
        for path in sorted((folder / FOLDER).glob("*.csv")):
            self._add_file(path)

    def write(self, out: Path) -> None:
        """Write the leaderboards of that folder, rows in the order of their times. Files that have them stay."""
        for name in sorted({name for name, _, _ in self._rows.values()}):
            path = leaderboard_path(out, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent / f".{path.name}.lock"):
                before = csv_file.read(path) if path.exists() else Content([], [], 0, b"")
                if path.exists():
                    self._add_file(path)  # another process may have added to it
                rows = [row for its_name, row, _ in self._rows.values() if its_name == name]
                rows.sort(key=lambda row: (row.timestamp, row.run))
                foreign = sorted({column for row in rows for column in self._foreign.get(row.run, {})})
                header = [*columns_for(rows), *foreign]
                lines = [self._line(row, header) for row in rows]
                if (before.header, before.lines) != (header, lines):
                    csv_file.write(path, Content(header, lines, 0, b"", before.bom, before.ending))

    def _add_file(self, path: Path) -> None:
        content = csv_file.read(path)
        for row, cells in zip(read_rows(path), content.lines, strict=False):
            _, known, source = self._rows.setdefault(row.run, (path.stem, row, path))
            if columns := differing(row, known):
                place = "the log" if source is None else source
                raise UserError(
                    f"run {row.run} ({row.searcher}, seed {row.seed}) in {path} differs from {place}: {columns}"
                )
            own = {column: cell for column, cell in zip(content.header, cells, strict=False) if column not in COLUMNS}
            self._foreign[row.run] = {**own, **self._foreign.get(row.run, {})}

    def _line(self, row: Row, header: Sequence[str]) -> list[str]:
        foreign = self._foreign.get(row.run, {})
        cells = zip(header, line_of(row, header), strict=True)
        return [ours if column in COLUMNS else foreign.get(column, "") for column, ours in cells]


@dataclass(frozen=True)
class Files:
    """Files to be copied: where each is, and where it goes."""

    copies: dict[Path, Path]

    def write(self) -> None:
        """Copy what is not there yet, each file whole or not at all."""
        for source, target in self.copies.items():
            with whole_file(target) as partial:
                shutil.copyfile(source, partial)


def join_files(folders: Sequence[Path], out: Path) -> Files:
    """The libraries and pictures of all folders that `out` does not have. Of two with one name the first is taken.

    Raises:
        UserError: two libraries of one name differ.
    """
    first: dict[Path, Path] = {}
    for folder in (out, *folders):
        for kind in _FOLDERS:
            for path in sorted((folder / kind).glob("[!.]*")):
                known = first.setdefault(out / kind / path.name, path) if path.is_file() else path
                if known != path and path.suffix == ".npz" and not _same_library(known, path):
                    raise UserError(f"the library {path} differs from {known}; merge one of them without the other")
    return Files({source: target for target, source in first.items() if source != target})


def _same_library(a: Path, b: Path) -> bool:
    return a.read_bytes() == b.read_bytes() or TaskLibrary.load(a) == TaskLibrary.load(b)
