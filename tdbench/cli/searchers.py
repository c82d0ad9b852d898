"""`tdbench searchers` (reductions too), `check` and `new-searcher`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tdbench.base.errors import UserError

MAX_TIMEOUT = 86400
_LOOKS = " [looks at the images]"


@click.command()
@click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load one more plugin; repeatable.")
def searchers(plugins: tuple[str, ...]) -> None:
    """The searchers and reductions there are, where they come from, and every plugin that failed to load."""
    from tdbench.searchers.registry import load_plugins

    found = load_plugins(plugins)
    rows = []
    for name, r in sorted(found.searchers.items()):
        shown = f"{name}:NAME ({len(r.variants())})" if r.variants is not None else name
        notes = [_LOOKS] * r.sees_images + [" [can use no reduction]"] * (not r.reducible)
        rows.append((shown, r.version, r.origin, "".join((r.summary, *notes))))
    _print_listing("searcher", rows)
    click.echo()
    _print_listing(
        "reduction",
        [
            (r.shown, r.version, r.origin, r.summary + _LOOKS * r.sees_images)
            for _, r in sorted(found.reductions.items())
        ],
    )
    for name, error in sorted(found.failures.items()):
        click.echo(f"failed to load: plugin {name}: {error}")
    for registrations in found.kinds:
        what = registrations.kind.what
        for name, owners in sorted(registrations.conflicts.items()):
            click.echo(f"claimed twice: {what} {name!r} by {' and '.join(owners)}; it cannot be run until one goes")


def _print_listing(what: str, rows: Sequence[tuple[str, str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(what, "version", "from", "what it is", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if Console().is_terminal else 200).print(table)


@click.command()
@click.argument("name")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load one more plugin; repeatable.")
@click.option("--timeout", type=float, default=120, show_default=True, help="Seconds that one check may take.")
@click.option("--deterministic", is_flag=True, help="Nothing in it is random: all seeds may lead to the same asks.")
def check(name: str, plugins: tuple[str, ...], timeout: float, deterministic: bool) -> None:
    """Run the contract that every searcher holds on NAME (or family:VARIANT), or a reduction's on a reduction.

    Exits with 0 where it holds, 1 where a check fails, and 2 where there is nothing of that name.
    """
    from tdbench.testing.check_run import CheckRun

    if not 0 < timeout <= MAX_TIMEOUT:
        raise UserError(f"timeout must be a number of seconds above 0 and at most {MAX_TIMEOUT}, got {timeout:g}")
    checks = CheckRun(name, plugins, timeout=timeout, deterministic=deterministic)
    count, width = len(checks.names), max(map(len, checks.names))
    passed: list[bool] = []
    for result in checks:
        verdict = "ok" if result.passed else "FAILED"
        message = "".join(c if c.isprintable() else " " for c in result.message)
        click.echo(f"{verdict:<7} {result.name:<{width}}  {message}")
        sys.stdout.flush()
        passed.append(result.passed)
    if len(passed) == sum(passed) == count:
        click.echo(f"{name} holds the contract: all {count} checks passed")
        return
    not_run = f", {count - len(passed)} were not run" if len(passed) < count else ""
    click.echo(f"{name} does not hold the contract: {len(passed) - sum(passed)} of {count} checks failed{not_run}")
    raise click.exceptions.Exit(1)


@click.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), help="The folder to make; tdbench-NAME by default.")
def new_searcher(name: str, to: Path | None) -> None:
    """Write a small package to start from: one module, its entry point and its contract test."""
    import shlex

    from tdbench.searchers.scaffold import NewSearcher, write_package

    folder = write_package(name, to)
    click.echo(f"wrote {folder}: {', '.join(NewSearcher(name).files.values())}")
    click.echo(f'next: cd {shlex.quote(str(folder))} && pip install -e ".[dev]" && python -m pytest')
