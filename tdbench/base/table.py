"""A table as people read it. What fills one decides what its cells say; `tdbench.cli.printing` prints it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A titled table of text, with notes below it.

    Attributes:
        title: may be empty.
        rows: one text for each column.
        text: positions of the columns that hold words; the others hold numbers and are aligned to the right. A last
            column of words may be broken into lines, no other column is.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    text: tuple[int, ...] = (0,)


def number(value: float, digits: int = 3) -> str:
    """A rounded number; a dash where there is none. Minus zero is zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if math.isfinite(value) else "-"
