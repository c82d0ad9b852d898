"""A table for people: cells of text, which `tdbench.cli.printing` prints."""

from __future__ import annotations

import html
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

    def __repr__(self) -> str:
        return f"Table({self.title!r}: {len(self.rows)} rows of {', '.join(filter(None, self.columns))})"

    def _repr_html_(self) -> str:
        """The table as a notebook shows it. Nothing in it is read as HTML."""
        sides = ["left" if i in self.text else "right" for i in range(len(self.columns))]
        head = "".join(_cell("th", column, side) for column, side in zip(self.columns, sides, strict=True))
        rows = ("".join(_cell("td", cell, side) for cell, side in zip(row, sides, strict=True)) for row in self.rows)
        return "".join(
            [
                f"<p><b>{html.escape(self.title)}</b></p>" if self.title else "",
                "<table>",
                f"<thead><tr>{head}</tr></thead>" if any(self.columns) else "",
                f"<tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>",
                *(f"<p><small>{html.escape(note)}</small></p>" for note in self.notes),
            ]
        )


def number(value: float, digits: int = 3) -> str:
    """A rounded number, or a dash if it is not finite. Minus zero is written as zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if math.isfinite(value) else "-"


def _cell(kind: str, text: str, side: str) -> str:
    return f'<{kind} style="text-align: {side}">{html.escape(text)}</{kind}>'
