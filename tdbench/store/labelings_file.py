"""Labelings of a file that somebody else made: a CSV of labels, or an `.npz` such as a task library."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError, echo
from tdbench.base.files import read_npz
from tdbench.base.text import plain_line
from tdbench.space.seal import SEAL_DIGITS
from tdbench.store import csv_file

_NUMBERS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


@dataclass(frozen=True)
class Labelings:
    """Labelings of a file: (m, N) labels, and a name for each."""

    labels: NDArray[np.uint8]
    names: tuple[str, ...]


def read_start(path: Path, n: int, positives: int) -> NDArray[np.uint8]:
    """(m, N) labelings that a search begins from: those of a CSV, or the array ``labels`` of an `.npz`.

    Raises:
        UserError: the file cannot be read, or a labeling does not have N labels with P ones.
    """
    if path.suffix != ".npz":
        return read_labelings(path, n, positives).labels
    hint = "; expected a task library, or an array 'labels' (m, N) of zeros and ones"
    labels = read_npz(path, ["labels"], hint).get("labels")
    if labels is None or labels.ndim != 2 or not len(labels) or labels.dtype.kind not in "biuf":
        raise UserError(f"{path} has no labelings{hint}")
    if labels.shape[1] != n or not np.isin(labels, (0, 1)).all() or (labels.sum(axis=1) != positives).any():
        raise UserError(f"{path}: expected labelings of {n} zeros and ones, P = {positives} of them ones, in each row")
    return labels.astype(np.uint8)


def fingerprint(labels: NDArray[np.uint8]) -> str:
    """16 hex digits that tell (m, N) labelings, in their order, from others."""
    shape = f"{len(labels)} {labels.shape[1]} ".encode()
    return hashlib.sha256(shape + np.packbits(labels, axis=1).tobytes()).hexdigest()[:SEAL_DIGITS]


def read_labelings(path: Path, n: int, positives: int) -> Labelings:
    """The labelings of a CSV file: a line each, N cells of 0 and 1, before them a name if there is one more cell.

    A header is left out. If it has a column ``labels`` (as the CSV of a task library does), the labels are the
    zeros and ones of that column, and the names those of a column ``name`` or ``run``.

    Raises:
        UserError: the file cannot be read, or a labeling does not have N labels with P ones.
    """
    try:
        content = csv_file.read(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"the labelings in {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    rows = [[cell.strip() for cell in cells] for cells in (content.header, *content.lines) if any(cells)]
    if rows and "labels" in rows[0]:
        names, labels = _of_column(rows)
    else:
        rows = rows[1:] if rows and _is_header(rows[0], n) else rows
        names = [cells[0] if len(cells) == n + 1 else "" for cells in rows]
        labels = [cells[1:] if len(cells) == n + 1 else cells for cells in rows]
    if not labels:
        raise UserError(f"{path} has no labelings; expected a line of {n} cells of 0 and 1 for each")
    array = np.array([_parsed(path, i, cells, n, positives) for i, cells in enumerate(labels)], dtype=np.uint8)
    return Labelings(array, tuple(plain_line(name, 80) or str(i + 1) for i, name in enumerate(names)))


def _of_column(rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Names and labels by the columns of a header; a cell of labels is ``0 1 1`` or ``011``."""
    header = rows[0]
    at = header.index("labels")
    named = next((header.index(name) for name in ("name", "run") if name in header), None)
    lines = [cells + [""] * (len(header) - len(cells)) for cells in rows[1:]]
    names = ["" if named is None else cells[named].removeprefix("'") for cells in lines]
    return names, [list("".join(cells[at].removeprefix("'").split())) for cells in lines]


def _is_header(cells: list[str], n: int) -> bool:
    """Whether a first line has words, or the numbers of the images, where others have labels."""
    labels = cells[-n:]
    if labels in ([str(i) for i in range(n)], [str(i + 1) for i in range(n)]):
        return True
    try:
        [float(cell) for cell in labels]
    except ValueError:
        return True
    return False


def _parsed(path: Path, i: int, cells: list[str], n: int, positives: int) -> list[int]:
    what = f"{path}, labeling {i + 1}"
    if len(cells) != n:
        raise UserError(f"{what}: expected {n} labels (or a name and {n} labels), got {len(cells)} cells")
    wrong = next((cell for cell in cells if cell not in _NUMBERS), None)
    if wrong is not None:
        raise UserError(f"{what}: expected labels of 0 and 1, got {echo(wrong)}")
    labels = [_NUMBERS[cell] for cell in cells]
    if sum(labels) != positives:
        raise UserError(f"{what}: expected P = {positives} ones, got {sum(labels)}")
    return labels
