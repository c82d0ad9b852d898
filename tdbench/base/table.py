"""A table for people: cells of text, which `tdbench.cli.printing` prints."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A titled table of text, with notes below it.

    Attributes:
        title: may be empty.
        rows: each has one text for each column.
        text: positions of the columns that hold words; the others hold numbers and are aligned to the right. Only the
            last column, if it holds words, may be broken into several lines.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    text: tuple[int, ...] = (0,)


def number(value: float, digits: int = 3) -> str:
    """A rounded number, or a dash if it is not finite. Minus zero is written as zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if math.isfinite(value) else "-"
