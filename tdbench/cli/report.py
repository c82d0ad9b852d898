"""`tdbench report`."""

from __future__ import annotations

from pathlib import Path

import click

from tdbench.cli.options import PATH
from tdbench.settings import DEFAULT_OUT


@click.command(short_help="Write one HTML page of all results")
@click.option("--out", type=PATH, default=DEFAULT_OUT, show_default=True, help="Folder with the results.")
@click.option("--to", type=PATH, help="The page to write [default: OUT/report.html].")
@click.option("--figures", type=PATH, help="Also write the main figures into this folder.")
@click.option(
    "--as",
    "kinds",
    multiple=True,
    type=click.Choice(("png", "svg", "pdf")),
    default=("png",),
    show_default=True,
    help="Kind of their files; repeatable.",
)
def report(out: Path, to: Path | None, figures: Path | None, kinds: tuple[str, ...]) -> None:
    """Write one HTML page of all results: rankings, curves, and what each run found.

    The page is self-contained: it opens from disk, without a network.
    """
    from tdbench.report.page import write_figures, write_report

    click.echo(f"wrote {write_report(out, to)}")
    for path in write_figures(out, figures, kinds) if figures is not None else ():
        click.echo(f"wrote {path}")
