"""`tdbench run`."""

from __future__ import annotations

import sys
from typing import Any

import click

from tdbench.base.errors import escaped
from tdbench.cli.options import interruptible
from tdbench.cli.run_options import default, shared_options


@click.command()
@click.option("--searcher", help="As `tdbench searchers` lists it.", **default("searcher"))
@click.option(
    "--reduction",
    help="Search fewer dimensions, such as ntk:20; as `tdbench searchers` lists them.",
    **default("reduction"),
)
@click.option("--data", help="digits, cifar10, cifar100 or the path of an .npz.", **default("data"))
@click.option("--n", type=int, help="Images in the space.", **default("n"))
@click.option("--ratio", type=int, help="Negatives per positive.", **default("ratio"))
@click.option("--space-seed", type=int, help="Draws the image set.", **default("space_seed"))
@click.option("--seed", type=int, help="Of the searcher and its replicates.", **default("seed"))
@click.option(
    "--threshold",
    metavar="auto|NUMBER",
    help="Say whether what was found counts as a task: whether it confirms above this taskness. auto calibrates it on "
    "random labelings, once for a setting: 2560 trainings at --confirm 32.",
)
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
