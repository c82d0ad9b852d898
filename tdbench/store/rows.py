"""The leaderboard CSV: one file per space, one row per run, appended under a lock. What is not ours in it is kept."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import math
import os
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from tdbench.base.errors import UserError
from tdbench.space.similarity import DEFAULT_MAX_SIMILARITY
from tdbench.store import csv_file
from tdbench.store.csv_file import UNFINISHED, Content

FOLDER = "leaderboards"
CHECKPOINTS = (0.1, 0.2, 0.5, 1.0)  # shares of the budget after which the recommendation is confirmed
_LONGEST_CELL = 30_000  # characters; a spreadsheet holds 32,767, the csv module reads 131,072
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
EACH = "|"  # between the values of a library's labelings
CLOCKS = ("seconds", "timestamp")  # columns in which two runs of the same settings differ
HOSTS = ("hardware", "versions")  # and those in which they may differ where two machines did them


def checkpoint_column(share: float) -> str:
    """The column of confirmed taskness after that share of the budget."""
    return "confirmed" if share == 1 else f"confirmed_{share * 100:.0f}"


@dataclass(frozen=True)
class Row:
    """One run. The field order is the column order; an empty number is NaN.

    A later version may add columns at the end, each with a default: it stands for the column in older files.

    Attributes:
        space, data, classes, n, ratio, space_seed, split, steps, lr: the space's identity and settings; classes are
            joined by ``|``.
        searcher, searcher_version, sees_images: who searched, and whether it looked at the images.
        seed, budget, batch, replicates, noise, confirm, recommend: the run's settings.
        told: best mean taskness that the searcher was told; the evaluations of a race were told to none.
        recommended_told: told value of the recommended labeling, where it was told one.
        confirmed, confirmed_se: mean taskness of the recommendation over `confirm` fresh replicates, and its
            standard error.
        optimism: told - confirmed.
        confirmed_10, confirmed_20, confirmed_50: confirmed taskness of the recommendation after that percentage of
            the budget (after 100 % it is `confirmed`).
        distinct: different labelings evaluated.
        evaluations, trainings: charged to the run; confirmation is not.
        seconds: wall time of the run, shared with the other runs of its benchmark.
        status, error: ok, crash, timeout or invalid, and what was the matter; of a run that is ok, what its searcher
            left of the budget, where it was done early.
        engine, engine_detail, device, hardware, versions: what computed it.
        timestamp: when the run ended, UTC.
        run: id in the evaluation log.
        sealed: the seal of the key that drew the confirmation replicates; empty where they follow from the space seed.
        tasks, protocol, max_similarity: of a run that discovers several labelings, a library (definitions, section 10);
            0 tasks otherwise. Of a library, told and confirmed are told QD and confirmed QD.
        told_each, confirmed_each, confirmed_se_each: of the library's labelings, joined by ``|``, the best confirmed
            first.
        effective_number: of the library's labelings (Vendi score).
        recalled, recalled_by_chance: reference tasks that the library hits, and how many chance would.
        refused: proposals that were too similar to what was found before, and were not trained.
        start: the fingerprint of the labelings that the search began from; empty without any.
    """

    space: str
    data: str
    classes: str
    n: int
    ratio: int
    space_seed: int
    split: str
    steps: int
    lr: float
    searcher: str
    searcher_version: str
    sees_images: bool
    seed: int
    budget: int
    batch: int
    replicates: int
    noise: str
    confirm: int
    recommend: str
    told: float
    recommended_told: float
    confirmed: float
    confirmed_se: float
    optimism: float
    confirmed_10: float
    confirmed_20: float
    confirmed_50: float
    distinct: int
    evaluations: int
    trainings: int
    seconds: float
    status: str
    error: str
    engine: str
    engine_detail: str
    device: str
    hardware: str
    versions: str
    timestamp: str
    run: str
    sealed: str = ""
    tasks: int = 0
    protocol: str = "joint"
    max_similarity: float = DEFAULT_MAX_SIMILARITY
    told_each: str = ""
    confirmed_each: str = ""
    confirmed_se_each: str = ""
    effective_number: float = 0.0
    recalled: int = 0
    recalled_by_chance: float = 0.0
    refused: int = 0
    start: str = ""

    @property
    def checkpoints(self) -> tuple[float, ...]:
        """Confirmed taskness at each share of `CHECKPOINTS`."""
        return tuple(getattr(self, checkpoint_column(share)) for share in CHECKPOINTS)

    @property
    def library_confirmed(self) -> tuple[float, ...]:
        """Confirmed taskness of each labeling of a library, the best first; empty where there is none."""
        return _values(self.confirmed_each)

    @property
    def library_confirmed_se(self) -> tuple[float, ...]:
        """(m,) standard errors of `library_confirmed`."""
        return _values(self.confirmed_se_each)

    @property
    def never_evaluated(self) -> bool:
        """Whether the run recommends a labeling that it never evaluated. The winner of a race always was."""
        if self.status != "ok" or self.recommend.startswith("race"):
            return False
        told = self.told_each.split(EACH) if self.tasks else ["" if math.isnan(self.recommended_told) else "told"]
        return "" in told


def _values(cell: str) -> tuple[float, ...]:
    return tuple(math.nan if value == "" else float(value) for value in cell.split(EACH)) if cell else ()


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_TYPES = typing.get_type_hints(Row)
_NO_DEFAULT = frozenset(field.name for field in dataclasses.fields(Row) if field.default is dataclasses.MISSING)
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Row) if field.name not in _NO_DEFAULT}


def space_name(row: Row) -> str:
    """The name of a row's space: that of `TaskSpace.name` and of its leaderboard file."""
    return f"{row.data}-n{row.n}-r{row.ratio}-s{row.space_seed}-{row.space}"


def leaderboard_path(out: Path, space_name: str) -> Path:
    """Where the leaderboard of that space is kept."""
    return out / FOLDER / f"{space_name}.csv"


class Leaderboard:
    """A leaderboard file as one command adds rows to it: read once, and then only what other processes have added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: Content | None = None  # of the file as it was last seen, without its lines
        self._stamp: tuple[int, ...] = ()
        self._runs: dict[str, bytes] = {}  # run -> digest of its row

    def check(self) -> None:
        """Raises UserError where the file is there, and no row could be added to it. Writes nothing."""
        if not self.path.exists():
            return
        if not os.access(self.path, os.W_OK):
            raise UserError(f"the leaderboard {self.path} cannot be written: permission denied")
        self._look()

    def add(self, row: Row) -> bool:
        """Add a row. Safe against other processes and against being killed.

        A row of the same run that is there already is replaced where it differs in more than the time.

        Returns:
            Whether it replaced one.

        Raises:
            UserError: the file cannot be written, or it is not a leaderboard.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.parent / f".{self.path.name}.lock"):
                return self._add(row)
        except OSError as error:
            raise UserError(f"the leaderboard {self.path} cannot be written: {error.strerror or error}") from error

    def _add(self, row: Row) -> bool:
        self._look()
        known = self._runs.get(row.run)
        if known == _digest(row):
            return False
        content = self._content
        if content is None:
            columns = columns_for([row])
            self._rewrite(Content(columns, [line_of(row, columns)], 0, b""))
        elif known is not None or not set(columns_for([row])) <= set(content.header):
            content = _with_columns(_read(self.path), columns_for([row]))
            added = [line_of(row, content.header)] if known is None else []
            self._rewrite(replace(content, lines=[*_replaced(content, row), *added]))
        else:
            size, line = csv_file.append(self.path, content, line_of(row, content.header))
            self._content = replace(content, size=size, last=line)
            self._stamp = _stamp(self.path)
        self._runs[row.run] = _digest(row)
        return known is not None

    def _rewrite(self, content: Content) -> None:
        csv_file.write(self.path, content)
        self._content = replace(csv_file.read(self.path), lines=[])
        self._stamp = _stamp(self.path)

    def _look(self) -> None:
        """See what the file has now. Reads only what was appended where nothing else has changed."""
        if not self.path.exists():
            self._content, self._stamp, self._runs = None, (), {}
            return
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        more = None
        if self._content is not None and stamp[:2] == self._stamp[:2]:
            more = csv_file.read_more(self.path, self._content)
        content, known = (_read(self.path), {}) if more is None else (more, self._runs)
        rows = _rows(self.path, content, len(known))
        self._runs = {**known, **{row.run: _digest(row) for row in rows}}
        self._content, self._stamp = replace(content, lines=[]), stamp


def append_row(path: Path, row: Row) -> bool:
    """Add one row to a leaderboard file, as `Leaderboard.add` does."""
    return Leaderboard(path).add(row)


def read_rows(path: Path) -> list[Row]:
    """The rows of a leaderboard. A column that an older file does not have takes its default, where it has one.

    Columns that are not ours are left out, and so is a line that is being written.

    Raises:
        UserError: there is no such file, or it is not a leaderboard.
    """
    return _rows(path, _read(path))


def to_csv(rows: Iterable[Row]) -> str:
    """The text of a leaderboard file."""
    rows = list(rows)
    columns = columns_for(rows)
    return csv_file.text_of([columns, *(line_of(row, columns) for row in rows)])


def columns_for(rows: Sequence[Row]) -> list[str]:
    """The columns that a file of these rows needs: a later one only where a row has more there than its default."""
    return [c for c in COLUMNS if c in _NO_DEFAULT or not all(_is_default(row, c) for row in rows)]


def _read(path: Path) -> Content:
    try:
        content = csv_file.read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the leaderboard {path} cannot be read: {error}") from error
    except csv.Error as error:
        raise UserError(f"{path} is not a leaderboard: {error}") from error
    header = content.header
    if missing := [column for column in COLUMNS if column in _NO_DEFAULT and column not in header]:
        raise UserError(f"{path} is not a leaderboard of this version: it has no column {missing[0]!r}")
    if twice := [column for column in COLUMNS if header.count(column) > 1]:
        raise UserError(f"{path} is not a leaderboard: it has the column {twice[0]!r} twice")
    return content


def _rows(path: Path, content: Content, before: int = 0) -> list[Row]:
    """The rows of lines, of which there were so many before."""
    rows: list[Row] = []
    try:
        for cells in content.lines:
            rows.append(row_of(cells, content.header))
    except ValueError as error:
        raise UserError(f"{path}, row {before + len(rows) + 1}: {error}") from error
    return rows


def _with_columns(content: Content, needed: Sequence[str]) -> Content:
    """The content with the columns that a row needs and the file does not have yet, after all others."""
    missing = [column for column in needed if column not in content.header]
    width = len(content.header)
    defaults = {field.name: field.default for field in dataclasses.fields(Row)}
    added = [cell_text(defaults[column]) for column in missing]
    lines = [[*cells[:width], *added, *cells[width:]] for cells in content.lines]
    return replace(content, header=[*content.header, *missing], lines=lines)


def _replaced(content: Content, row: Row) -> list[list[str]]:
    """The lines with another row for its run, once; the cells of columns that are not ours stay."""
    lines, new = [], line_of(row, content.header)
    for cells in content.lines:
        if row_of(cells, content.header).run != row.run:
            lines.append(cells)
        elif new:
            own = zip(content.header, new, cells, strict=False)
            lines.append([ours if column in COLUMNS else theirs for column, ours, theirs in own])
            new = []
    return lines


def _stamp(path: Path) -> tuple[int, ...]:
    """Equal while nobody else has written the file; the first two say which file it is."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _digest(row: Row) -> bytes:
    """16 bytes that are equal where a run has the same result, whenever that was."""
    cells = [cell_text(getattr(row, column)) for column in COLUMNS if column not in CLOCKS]
    return hashlib.sha256("\n".join(cells).encode()).digest()[:16]


def differing(a: Row, b: Row) -> str:
    """The first column in which two rows of a run differ, with its values, but for times and hosts; empty if none."""
    for column in COLUMNS:
        ours, theirs = cell_text(getattr(a, column)), cell_text(getattr(b, column))
        if ours != theirs and column not in (*CLOCKS, *HOSTS):
            return f"{column} {ours[:60]} and {theirs[:60]}"
    return ""


def line_of(row: Row, header: Sequence[str]) -> list[str]:
    """The cells of a row in the order of a file's header; empty in columns that are not ours."""
    return [cell_text(getattr(row, column)) if column in COLUMNS else "" for column in header]


def row_of(cells: Sequence[str], header: Sequence[str]) -> Row:
    """The row of a line of a file with that header. Raises ValueError where a cell is missing or cannot be read."""
    if len(cells) < len(header):
        raise ValueError("the row has too few cells")
    return Row(**{name: _parse(cell, name) for name, cell in zip(header, cells, strict=False) if name in COLUMNS})


def row_to_json(row: Row) -> dict[str, Any]:
    """Plain values; NaN becomes None. A later column is there where it is not the default."""
    values = {k: v for k, v in dataclasses.asdict(row).items() if not _is_default(row, k)}
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def row_from_json(values: dict[str, Any]) -> Row:
    """The row that `row_to_json` took apart. Raises ValueError where there is another column, or another type."""
    if unknown := [name for name in values if name not in COLUMNS]:
        raise ValueError(f"this version has no column {unknown[0]!r}")
    if missing := [name for name in COLUMNS if name in _NO_DEFAULT and name not in values]:
        raise ValueError(f"there is no column {missing[0]!r}")
    return Row(**{name: _of_json(name, value) for name, value in values.items()})


def _of_json(column: str, value: Any) -> Any:
    kind = _TYPES[column]
    if kind is float and value is None:
        return math.nan
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"column {column!r} must be of type {kind.__name__}, got {value!r}")
    return value


def _is_default(row: Row, column: str) -> bool:
    """Whether a later column has nothing to say in that row."""
    return column not in _NO_DEFAULT and cell_text(getattr(row, column)) == cell_text(getattr(type(row), column))


def cell_text(value: Any) -> str:
    """A value as the text of a cell, which spreadsheets and pandas leave as it is."""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    if not isinstance(value, str):
        return str(value)
    text = value.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace").decode()[:_LONGEST_CELL]
    # A spreadsheet runs a cell that begins like a formula, and it and pandas round text that looks like a number
    # (version 1.10, identity 0012345678e9); a leading apostrophe makes both text.
    return "'" + text if text.startswith((*_FORMULA, "'", UNFINISHED)) or _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse(cell: str, column: str) -> Any:
    kind = _TYPES[column]
    try:
        if kind is float:
            return float(cell) if cell else math.nan
        if kind is bool:
            return {"true": True, "false": False}[cell.lower()]
        if kind is int:
            return int(cell)
    except (ValueError, KeyError):
        raise ValueError(f"column {column!r} must be of type {kind.__name__}, got {cell[:60]!r}") from None
    return cell[1:] if cell.startswith("'") else cell
