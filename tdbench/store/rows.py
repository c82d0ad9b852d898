"""The leaderboard CSV: one file per space, one row per run, appended under a lock and never rewritten by hand."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from tdbench.base.errors import UserError

FOLDER = "leaderboards"
CHECKPOINTS = (0.1, 0.2, 0.5, 1.0)  # shares of the budget after which the recommendation is confirmed
_LONGEST_CELL = 30_000  # characters; a spreadsheet holds 32,767, the csv module reads 131,072
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


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
        status, error: ok, crash, timeout or invalid, and what was the matter.
        engine, engine_detail, device, hardware, versions: what computed it.
        timestamp: when the run ended, UTC.
        run: id in the evaluation log.
        sealed: the seal of the key that drew the confirmation replicates; empty where they follow from the space seed.
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

    @property
    def checkpoints(self) -> tuple[float, ...]:
        """Confirmed taskness at each share of `CHECKPOINTS`."""
        return tuple(getattr(self, checkpoint_column(share)) for share in CHECKPOINTS)

    @property
    def never_evaluated(self) -> bool:
        """Whether the run recommends a labeling that it never evaluated. The winner of a race always was."""
        return self.status == "ok" and math.isnan(self.recommended_told) and not self.recommend.startswith("race")


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_TYPES = typing.get_type_hints(Row)
_NO_DEFAULT = frozenset(field.name for field in dataclasses.fields(Row) if field.default is dataclasses.MISSING)
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Row) if field.name not in _NO_DEFAULT}


def leaderboard_path(out: Path, space_name: str) -> Path:
    """Where the leaderboard of that space is kept."""
    return out / FOLDER / f"{space_name}.csv"


def append_row(path: Path, row: Row) -> None:
    """Add a row unless its run is there already. Safe against other processes and against being killed.

    Raises:
        UserError: the file cannot be written, or it is not a leaderboard.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{path.name}.lock"):
            rows = read_rows(path) if path.exists() else []
            if any(other.run == row.run for other in rows):
                return
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(to_csv([*rows, row]), encoding="utf-8", newline="")
            partial.replace(path)
    except OSError as error:
        raise UserError(f"the leaderboard {path} cannot be written: {error.strerror or error}") from error


def read_rows(path: Path) -> list[Row]:
    """The rows of a leaderboard. A column that an older file does not have takes its default, where it has one.

    Raises:
        UserError: there is no such file, or it is not a leaderboard.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the leaderboard {path} cannot be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        header = reader.fieldnames or ()
    except csv.Error as error:
        raise UserError(f"{path} is not a leaderboard: {error}") from error
    columns = [column for column in COLUMNS if column in header]
    missing = [column for column in COLUMNS if column in _NO_DEFAULT - set(columns)]
    if missing:
        raise UserError(f"{path} is not a leaderboard of this version: it has no column {missing[0]!r}")
    rows: list[Row] = []
    try:
        for cells in reader:
            rows.append(Row(**{column: _parse(cells[column], _TYPES[column]) for column in columns}))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}, row {len(rows) + 1}: {error}") from error
    return rows


def to_csv(rows: Iterable[Row]) -> str:
    """The text of a leaderboard file. A later column is in it where a row has more there than the default."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    rows = list(rows)
    columns = [c for c in COLUMNS if c in _NO_DEFAULT or not all(_is_default(row, c) for row in rows)]
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_format(getattr(row, column)) for column in columns])
    return out.getvalue()


def row_to_json(row: Row) -> dict[str, Any]:
    """Plain values; NaN becomes None. A later column is there where it is not the default."""
    values = {k: v for k, v in dataclasses.asdict(row).items() if not _is_default(row, k)}
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def row_from_json(values: dict[str, Any]) -> Row:
    """The row that `row_to_json` took apart."""
    cells: dict[str, Any] = {k: math.nan if v is None and _TYPES[k] is float else v for k, v in values.items()}
    return Row(**cells)


def _is_default(row: Row, column: str) -> bool:
    """Whether a later column has nothing to say in that row."""
    return column not in _NO_DEFAULT and _format(getattr(row, column)) == _format(getattr(type(row), column))


def _format(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    if not isinstance(value, str):
        return str(value)
    text = value.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace").decode()[:_LONGEST_CELL]
    # A spreadsheet runs a cell that begins like a formula, and it and pandas round text that looks like a number
    # (version 1.10, identity 0012345678e9); a leading apostrophe makes both text.
    return "'" + text if text.startswith((*_FORMULA, "'")) or _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse(cell: str | None, kind: type) -> Any:
    if cell is None:
        raise ValueError("the row has too few cells")
    if kind is float:
        return float(cell) if cell else math.nan
    if kind is bool:
        return cell.lower() == "true"
    if kind is int:
        return int(cell)
    return cell[1:] if cell.startswith("'") else cell
