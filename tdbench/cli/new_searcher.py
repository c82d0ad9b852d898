"""`tdbench new-searcher` and `new-reduction`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tdbench.cli.options import PATH

if TYPE_CHECKING:
    from tdbench.searchers.scaffold import NewPlugin

_TO = click.option("--to", type=PATH, help="The folder to make; tdbench-NAME by default.")


@click.command(short_help="Write a small package to start a searcher from")
@click.argument("name")
@_TO
def new_searcher(name: str, to: Path | None) -> None:
    """Write a small package to start a searcher from: module, test, CI."""
    from tdbench.searchers.scaffold import NewSearcher

    _write(NewSearcher(name), to)


@click.command(short_help="Write a small package to start a reduction from")
@click.argument("name")
@_TO
def new_reduction(name: str, to: Path | None) -> None:
    """Write a small package to start a reduction from: module, test, CI."""
    from tdbench.searchers.scaffold import NewReduction

    _write(NewReduction(name), to)


def _write(new: NewPlugin, to: Path | None) -> None:
    from tdbench.searchers.scaffold import write_package

    folder = write_package(new, to)
    click.echo(f"wrote {folder}: {', '.join(new.files.values())}")
    click.echo(f'next: cd {shlex.quote(str(folder))} && pip install -e ".[dev]" && python -m pytest')
    click.echo("tdbench is on no package index yet: .github/workflows/test.yml says where to put its address")
