"""`tdbench export`."""

from __future__ import annotations

from pathlib import Path

import click

from tdbench.base.errors import escaped
from tdbench.cli.options import PATH
from tdbench.settings import DEFAULT_OUT


@click.command(short_help="Results for IOHanalyzer, data frames, or Optuna")
@click.option("--format", "form", type=click.Choice(("ioh", "parquet", "optuna")), required=True, help="What to write.")
@click.option("--out", type=PATH, default=DEFAULT_OUT, show_default=True, help="Output folder of run or bench.")
@click.option("--to", type=PATH, required=True, help="A folder for ioh and parquet, a file for optuna.")
@click.option("--force", is_flag=True, help="Replace an earlier export there.")
def export(form: str, out: Path, to: Path, force: bool) -> None:
    """Write the evaluation log for IOHanalyzer (ioh), data frames (parquet) or Optuna's dashboard (optuna)."""
    from tdbench.export.export import export as write

    written = write(out, to, form, force=force)
    for note in written.notes:
        click.echo(f"note: {escaped(note)}", err=True)
    for file in written.files:
        click.echo(f"wrote {file}")
