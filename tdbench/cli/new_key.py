"""`tdbench new-key`."""

from __future__ import annotations

from pathlib import Path

import click

from tdbench.cli.options import PATH


@click.command(short_help="Make a key for --sealed")
@click.argument("file", type=PATH)
def new_key(file: Path) -> None:
    """Make a key for --sealed: 256 random bits in a new FILE that only you may read."""
    from tdbench.space.seal import write_new_key

    key = write_new_key(file)
    click.echo(f"wrote {file}; its seal, which results will name, is {key.seal}")
    click.echo(f"keep the file: a run begun with it can only go on with it. Use it with: --sealed {file}")
