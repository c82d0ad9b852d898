"""`tdbench run`."""

from __future__ import annotations

import sys
from typing import Any

import click

from tdbench.base.errors import escaped
from tdbench.cli.options import interruptible
from tdbench.cli.run_options import one_run_options, shared_options


@click.command()
@one_run_options
@shared_options
def run(**settings: Any) -> None:
    """Search one space with one searcher, and say what was found and how sure that is."""
    from tdbench.api import run as run_search
    from tdbench.leaderboard.summary import replaced_rows, run_summary

    with interruptible("--resume"):
        result = run_search(**settings, progress=True)
    for line in run_summary(result):
        print(escaped(line))
    for line in replaced_rows([result]):
        print(escaped(line), file=sys.stderr)
    if result.row.status != "ok":
        raise click.exceptions.Exit(1)
