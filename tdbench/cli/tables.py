"""Tables of results on the terminal, as Markdown, and as CSV. What a cell says is decided before it comes here."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tdbench.base.stats import Estimate

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Section:
    """A titled table with lines below it; the first `text_columns` columns hold text, the rest numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    text_columns: int = 1


def number(value: float, digits: int = 3) -> str:
    """A rounded number; a dash where there is none. Minus zero is zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if math.isfinite(value) else "-"


def with_interval(estimate: Estimate, digits: int = 3) -> str:
    """``0.412 [0.350, 0.470]``, or the value with a dash for an interval that there is not."""
    if not estimate.has_interval:
        return f"{number(estimate.value, digits)} [-]" if math.isfinite(estimate.value) else "-"
    return f"{number(estimate.value, digits)} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def p_value(p: float) -> str:
    """Three digits, or that it is below them."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def print_terminal(sections: Sequence[Section], lines: Sequence[str] = ()) -> None:
    """Tables where they fit, else one paragraph for each row: a number is never cut. In a pipe, lines have no limit."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
    for section in sections:
        console.print(Text(section.title, style="bold"), soft_wrap=True)
        if section.rows:
            table = _table(section)
            natural = console.measure(table, options=console.options.update(width=10_000)).maximum
            if natural <= console.width:
                console.print(table)
            else:
                for row in section.rows:
                    cells = zip(section.columns, row, strict=True)
                    paragraph = "; ".join(f"{name} {cell}".strip() for name, cell in cells if cell)
                    console.print(Text(paragraph), soft_wrap=False)
                console.print()
        for note in section.notes:
            console.print(Text(f"  {note}", style="dim"), soft_wrap=True)
        console.print()
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _table(section: Section) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for i, column in enumerate(section.columns):
        table.add_column(Text(column), justify="left" if i < section.text_columns else "right", no_wrap=True)
    for row in section.rows:
        table.add_row(*map(Text, row))
    return table


def print_markdown(sections: Sequence[Section], lines: Sequence[str] = ()) -> None:
    for section in sections:
        click.echo(f"## {_escaped(section.title)}\n")
        if section.rows:
            click.echo("| " + " | ".join(map(_escaped, section.columns)) + " |")
            aligned = ("---" if i < section.text_columns else "---:" for i in range(len(section.columns)))
            click.echo("|" + "|".join(aligned) + "|")
            for row in section.rows:
                click.echo("| " + " | ".join(map(_escaped, row)) + " |")
            click.echo()
        for note in section.notes:
            click.echo(f"- {_escaped(note)}")
        click.echo()
    for line in lines:
        click.echo(f"- {_escaped(line)}")


def print_csv(records: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(record[column]) for column in columns] for record in records)
    click.echo(out.getvalue(), nl=False)


def plain(value: Any) -> Any:
    """The value with NaN and infinities as None, for JSON, which has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    text = " ".join(str(value).split())
    # As in leaderboard files: a spreadsheet runs a cell that begins like a formula; an apostrophe makes it text.
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "'")) else text


def _escaped(text: str) -> str:
    # Names come from plugins and files: no HTML, no cell borders, no emphasis, no links.
    text = html.escape(" ".join(text.split()), quote=False)
    text = "".join(f"\\{character}" if character in "\\|*_`" else character for character in text)
    return text.replace("](", "]\\(")
