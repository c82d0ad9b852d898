"""`tdbench new-searcher`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tdbench.cli.options import PATH


@click.command()
@click.argument("name")
@click.option("--to", type=PATH, help="The folder to make; tdbench-NAME by default.")
def new_searcher(name: str, to: Path | None) -> None:
    """Write a small package to start from: one module, its entry point and its contract test."""
    from tdbench.searchers.scaffold import NewSearcher, write_package

    folder = write_package(name, to)
    click.echo(f"wrote {folder}: {', '.join(NewSearcher(name).files.values())}")
    click.echo(f'next: cd {shlex.quote(str(folder))} && pip install -e ".[dev]" && python -m pytest')
