"""`tdbench searchers`, which lists reductions too."""

from __future__ import annotations

import click

from tdbench.cli.options import plugin_option
from tdbench.cli.printing import format_option, show


@click.command(short_help="List the searchers and reductions that there are")
@plugin_option
@format_option
def searchers(plugins: tuple[str, ...], form: str) -> None:
    """The searchers and reductions there are, where they come from, and every plugin that failed to load."""
    from tdbench.searchers.catalogue import find_plugins
    from tdbench.searchers.listing import plugin_problems, plugin_records, plugin_tables

    found = find_plugins(plugins)
    records = plugin_records(found)
    show(form, plugin_tables(records), records, lines=plugin_problems(found))
