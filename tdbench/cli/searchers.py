"""`tdbench searchers`, `check` and `new-searcher`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tdbench.errors import UserError

MAX_TIMEOUT = 86400


@click.command()
@click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load one more plugin; repeatable.")
def searchers(plugins: tuple[str, ...]) -> None:
    """What is installed, where it comes from, and every plugin that failed to load."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tdbench.plugins import load_plugins

    found = load_plugins(plugins)
    table = Table("name", "version", "from", "what it is", box=None, pad_edge=False)
    for name, r in sorted(found.searchers.items()):
        shown = f"{name}:NAME ({len(r.variants())})" if r.variants is not None else name
        looks = " [looks at the images]" if r.sees_images else ""
        table.add_row(*(Text(cell) for cell in (shown, r.version, r.origin, r.summary + looks)))
    Console(width=None if Console().is_terminal else 200).print(table)
    for name, error in sorted(found.failures.items()):
        click.echo(f"failed to load: plugin {name}: {error}")
    for name, owners in sorted(found.conflicts.items()):
        click.echo(f"claimed twice: searcher {name!r} by {' and '.join(owners)}; it cannot be run until one goes")


@click.command()
@click.argument("name")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load one more plugin; repeatable.")
@click.option("--timeout", type=float, default=120, show_default=True, help="Seconds that one check may take.")
@click.option("--deterministic", is_flag=True, help="Nothing in it is random: all seeds may lead to the same asks.")
def check(name: str, plugins: tuple[str, ...], timeout: float, deterministic: bool) -> None:
    """Run the contract that every searcher holds on NAME (or family:VARIANT).

    Exits with 0 where it holds, 1 where a check fails, and 2 where there is no such searcher.
    """
    from tdbench.checking import NAMES, check_apart

    if not 0 < timeout <= MAX_TIMEOUT:
        raise UserError(f"timeout must be a number of seconds above 0 and at most {MAX_TIMEOUT}, got {timeout:g}")
    width = max(map(len, NAMES))
    passed: list[bool] = []
    for result in check_apart(name, plugins, timeout=timeout, deterministic=deterministic):
        verdict = "ok" if result.passed else "FAILED"
        message = "".join(c if c.isprintable() else " " for c in result.message)
        click.echo(f"{verdict:<7} {result.name:<{width}}  {message}")
        sys.stdout.flush()
        passed.append(result.passed)
    if len(passed) == sum(passed) == len(NAMES):
        click.echo(f"{name} holds the contract: all {len(NAMES)} checks passed")
        return
    not_run = f", {len(NAMES) - len(passed)} were not run" if len(passed) < len(NAMES) else ""
    click.echo(f"{name} does not hold the contract: {len(passed) - sum(passed)} of {len(NAMES)} checks failed{not_run}")
    raise click.exceptions.Exit(1)


@click.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), help="The folder to make; tdbench-NAME by default.")
def new_searcher(name: str, to: Path | None) -> None:
    """Write a small package to start from: one module, its entry point and its contract test."""
    import shlex

    from tdbench.scaffold import NewSearcher, write_package

    folder = write_package(name, to)
    click.echo(f"wrote {folder}: {', '.join(NewSearcher(name).files.values())}")
    click.echo(f'next: cd {shlex.quote(str(folder))} && pip install -e ".[dev]" && python -m pytest')
