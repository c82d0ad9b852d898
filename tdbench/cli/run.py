"""`tdbench run`."""

from __future__ import annotations

from typing import Any

import click

from tdbench.cli.options import interruptible
from tdbench.cli.printing import conclude
from tdbench.cli.run_options import one_run_options, shared_options


@click.command(short_help="Search one space with one searcher")
@one_run_options
@shared_options
@click.option("--in-process", is_flag=True, help="Run the searcher in this process, for debugging; nothing is written.")
def run(in_process: bool, **settings: Any) -> None:
    """Search one space with one searcher, and say what was found and how sure that is."""
    from tdbench.api import run as run_search
    from tdbench.leaderboard.summary import run_summary

    if in_process:
        _run_in_process(settings)
        return
    with interruptible("--resume"):
        result = run_search(**settings, progress=True)
    conclude(result, run_summary(result))


def _run_in_process(settings: dict[str, Any]) -> None:
    from tdbench.api import run_in_process
    from tdbench.base.errors import UserError
    from tdbench.space.score import standard_error

    if settings.pop("threshold") is not None:
        raise UserError("--in-process is for debugging and takes no --threshold")
    trial = run_in_process(**settings)
    click.echo(f"searcher    {trial.settings.full_name} on {trial.space.name}, in this process")
    click.echo(f"told        {trial.told.max():.3f}   the best the searcher was told in {len(trial.told)} evaluations")
    confirmed, se = trial.confirmed.mean(), standard_error(trial.confirmed)
    click.echo(f"confirmed   {confirmed:.3f} +- {se:.3f}   over {trial.settings.confirm} fresh replicates")
    if trial.note:
        click.echo(f"done        {trial.note}")
