"""`tdbench compare`."""

from __future__ import annotations

from pathlib import Path

import click

from tdbench.cli.options import PATH
from tdbench.cli.printing import format_option, show


@click.command(short_help="Differences between leaderboards, and how sure they are")
@click.argument("paths", nargs=-1, type=PATH, required=True, metavar="A.csv [B.csv ...]")
@click.option("--force", is_flag=True, help="Compare different spaces, budgets or protocols as well, with a warning.")
@format_option
def compare(paths: tuple[Path, ...], force: bool, form: str) -> None:
    """Compare leaderboards: differences, what is more than chance, and what could have been seen.

    A.csv and B.csv are leaderboard CSVs or output folders. A searcher that both have is compared with itself, one that
    only one has with every searcher of the other. A single path has its own searchers compared.
    """
    from tdbench.leaderboard.boards import load_boards
    from tdbench.leaderboard.compare import compare as compare_boards
    from tdbench.leaderboard.records import comparison_records, comparisons_document
    from tdbench.leaderboard.tables import comparison_tables

    result = compare_boards(load_boards(paths), force=force)
    warnings = list(result.warnings)
    if form == "csv":  # it has no place for those of a table
        warnings += [warning for table in result.tables for warning in table.warnings]
    show(
        form,
        comparison_tables(result),
        comparison_records(result),
        document=comparisons_document(result),
        lines=[f"warning: {warning}" for warning in warnings],
    )
