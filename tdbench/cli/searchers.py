"""`tdbench searchers`, `check` and `new-searcher`."""

from __future__ import annotations

import click


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
