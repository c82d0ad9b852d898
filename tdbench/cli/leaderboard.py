"""`tdbench leaderboard`."""

from __future__ import annotations

from pathlib import Path

import click

from tdbench.cli.options import PATH
from tdbench.cli.printing import format_option, show
from tdbench.settings import DEFAULT_OUT


@click.command(short_help="Rank searchers by confirmed taskness")
@click.argument("paths", nargs=-1, type=PATH)
@click.option(
    "--out", type=PATH, help=f"Output folder of run or bench, read where no PATHS are given [default: {DEFAULT_OUT}]."
)
@click.option("--seeds", is_flag=True, help="Show the confirmed taskness of every seed (csv and json always have it).")
@click.option("--threshold", type=click.FloatRange(-1, 1), help="T_task: count the labelings of libraries above it.")
@format_option
def leaderboard(paths: tuple[Path, ...], out: Path | None, seeds: bool, threshold: float | None, form: str) -> None:
    """Rank searchers by confirmed taskness, per space and over spaces.

    PATHS are leaderboard CSVs, output folders, or folders of leaderboard CSVs.
    """
    from tdbench.leaderboard.boards import load_boards
    from tdbench.leaderboard.records import standing_records, standings_document
    from tdbench.leaderboard.standings import standings
    from tdbench.leaderboard.tables import standings_tables

    if paths and out is not None:
        raise click.UsageError("give PATHS or --out, not both")
    result = standings(load_boards(paths or (out or Path(DEFAULT_OUT),)))
    tables = standings_tables(result, seeds=seeds, threshold=threshold)
    show(form, tables, standing_records(result), document=standings_document(result))
