"""How every command prints its table: `--format table`, `csv`, `md` or `json`. What it says is decided elsewhere."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tdbench.base.errors import escaped, printable
from tdbench.base.table import Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from tdbench.store.result import Result

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("table", "csv", "md", "json")
_PROSE_WIDTH = 30  # characters that a last column of words keeps on a narrow terminal


def format_option(command: F) -> F:
    """The option ``--format``, which the command gets as `form`."""
    return click.option(
        "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print it."
    )(command)


def conclude(result: Result, lines: Sequence[str]) -> None:
    """Print what a run has come to, and end with status 1 where it failed."""
    from tdbench.leaderboard.summary import replaced_rows

    for line in lines:
        print(escaped(line))
    if result.was_finished:
        print("this run was finished before; this is its result, --again runs it once more", file=sys.stderr)
    for line in replaced_rows([result]):
        print(escaped(line), file=sys.stderr)
    if result.row.status != "ok":
        raise click.exceptions.Exit(1)


def show(
    form: str,
    tables: Sequence[Table],
    records: Sequence[dict[str, Any]],
    *,
    document: Any = None,
    lines: Sequence[str] = (),
) -> None:
    """Print one result in one of `FORMATS`.

    Args:
        tables: for ``table`` and ``md``.
        records: for ``csv`` a line each, all with the same keys; for ``json`` a list of objects.
        document: for ``json``, in place of the records.
        lines: below the tables. They go to standard error where the output is for programs, unless a document has
            their content.
    """
    lines = [escaped(line) for line in lines]
    if form == "table":
        _print_terminal([_printable(table) for table in tables], lines)
        return
    if form == "md":
        _print_markdown(tables, lines)
        return
    if form == "csv":
        _print_csv(records)
    else:
        click.echo(json.dumps(_plain(records if document is None else document), indent=2))
    if form == "csv" or document is None:
        for line in lines:
            click.echo(line, err=True)


def _print_terminal(tables: Sequence[Table], lines: Sequence[str]) -> None:
    """Tables where they fit, else one paragraph for each row: a number is never cut. In a pipe, lines have no limit."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
    for table in tables:
        if table.title:
            console.print(Text(table.title, style="bold"), soft_wrap=True)
        if table.rows:
            drawn = _drawn(table)
            natural = console.measure(drawn, options=console.options.update(width=10_000)).maximum
            if natural - _can_shrink(table) <= console.width:
                console.print(drawn)
            else:
                for row in table.rows:
                    cells = zip(table.columns, row, strict=True)
                    paragraph = "; ".join(f"{name} {cell}".strip() for name, cell in cells if cell)
                    console.print(Text(paragraph), soft_wrap=False)
                console.print()
        for note in table.notes:
            console.print(Text(f"  {note}", style="dim"), soft_wrap=True)
        console.print()
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _printable(table: Table) -> Table:
    """Names and errors come from plugins and files: nothing in them drives the terminal."""
    return replace(
        table,
        title=escaped(table.title),
        columns=tuple(map(escaped, table.columns)),
        rows=tuple(tuple(map(printable, row)) for row in table.rows),
        notes=tuple(map(escaped, table.notes)),
    )


def _drawn(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for i, column in enumerate(table.columns):
        justify, prose = "left" if i in table.text else "right", _is_prose(table, i)
        drawn.add_column(Text(column), justify=justify, no_wrap=not prose, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _is_prose(table: Table, column: int) -> bool:
    return column == len(table.columns) - 1 and column in table.text and column > 0


def _can_shrink(table: Table) -> int:
    """Characters by which the last column may become narrower."""
    if not _is_prose(table, len(table.columns) - 1):
        return 0
    return max(0, max(len(row[-1]) for row in table.rows) - _PROSE_WIDTH)


def _print_markdown(tables: Sequence[Table], lines: Sequence[str]) -> None:
    for table in tables:
        if table.title:
            click.echo(f"## {_escaped(table.title)}\n")
        if table.rows:
            click.echo("| " + " | ".join(map(_escaped, table.columns)) + " |")
            aligned = ("---" if i in table.text else "---:" for i in range(len(table.columns)))
            click.echo("|" + "|".join(aligned) + "|")
            for row in table.rows:
                click.echo("| " + " | ".join(map(_escaped, row)) + " |")
            click.echo()
        for note in table.notes:
            click.echo(f"- {_escaped(note)}")
        if table.notes or table.title:
            click.echo()
    for line in lines:
        click.echo(f"- {_escaped(line)}")


def _print_csv(records: Sequence[dict[str, Any]]) -> None:
    if not records:
        return
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(records[0])
    writer.writerows([_cell(record[column]) for column in records[0]] for record in records)
    click.echo(out.getvalue(), nl=False)


def _plain(value: Any) -> Any:
    """The value with NaN and infinities as None, for JSON, which has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return repr(value)
    text = printable(str(value))
    # As in leaderboard files: a spreadsheet runs a cell that begins like a formula; an apostrophe makes it text.
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "'")) else text


def _escaped(text: str) -> str:
    # Names come from plugins and files: no HTML, no cell borders, no emphasis, no links.
    text = html.escape(printable(text), quote=False)
    text = "".join(f"\\{character}" if character in "\\|*_`" else character for character in text)
    return text.replace("](", "]\\(")
