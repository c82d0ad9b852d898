"""`tdbench status`."""

from __future__ import annotations

from pathlib import Path

import click

from tdbench.cli.options import PATH
from tdbench.cli.printing import format_option, show
from tdbench.settings import DEFAULT_OUT


@click.command(short_help="How far the runs of a results folder are")
@click.option("--out", type=PATH, default=DEFAULT_OUT, show_default=True, help="Output folder of run or bench.")
@format_option
def status(out: Path, form: str) -> None:
    """What the runs in a results folder have done, are doing, and have left."""
    from tdbench.store.log import Store
    from tdbench.store.status import UNFINISHED, status_records, status_table, work_table

    with Store(out, read_only=True) as store:
        runs, work = status_records(store), store.work()
    ended = sum(run["status"] not in UNFINISHED for run in runs)
    left = sum(run["left"] for run in runs)
    line = f"{ended} of {len(runs)} runs ended, {left} evaluations left in the runs that have begun"
    tables = ([status_table(runs)] if runs else []) + ([work_table(work)] if work else [])
    show(form, tables, runs, lines=[line if runs else f"no run has been begun in {out}"])
