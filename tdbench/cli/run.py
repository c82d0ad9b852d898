"""`tdbench run`."""

from __future__ import annotations

from typing import Any

import click

from tdbench.cli.options import interruptible
from tdbench.cli.printing import conclude
from tdbench.cli.run_options import one_run_options, shared_options


@click.command()
@one_run_options
@shared_options
def run(**settings: Any) -> None:
    """Search one space with one searcher, and say what was found and how sure that is."""
    from tdbench.api import run as run_search
    from tdbench.leaderboard.summary import run_summary

    with interruptible("--resume"):
        result = run_search(**settings, progress=True)
    conclude(result, run_summary(result))
