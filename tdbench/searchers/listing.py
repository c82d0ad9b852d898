"""What is installed: the records and the tables of `tdbench searchers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tdbench.base.table import Table
from tdbench.searchers.registry import Plugins

_LOOKS = "looks at the images"


def plugin_records(plugins: Plugins) -> list[dict[str, Any]]:
    """A record for each searcher and each reduction, by name.

    ``kind`` is searcher or reduction, and ``from`` the distribution or file that it comes from. ``variants`` is the
    number of members of a family, and ``reducible`` whether a searcher can use a reduction; None where neither applies.
    """
    searchers = [
        {
            "kind": "searcher",
            "name": name if r.variants is None else f"{name}:NAME",
            "variants": None if r.variants is None else len(r.variants()),
            "version": r.version,
            "from": r.origin,
            "summary": r.summary,
            "sees_images": r.sees_images,
            "reducible": r.reducible,
        }
        for name, r in sorted(plugins.searchers.items())
    ]
    reductions = [
        {
            "kind": "reduction",
            "name": r.shown,
            "variants": None,
            "version": r.version,
            "from": r.origin,
            "summary": r.summary,
            "sees_images": r.sees_images,
            "reducible": None,
        }
        for _, r in sorted(plugins.reductions.items())
    ]
    return [*searchers, *reductions]


def plugin_tables(records: Sequence[dict[str, Any]]) -> list[Table]:
    """The records as two tables."""
    return [
        Table(
            "",
            (kind, "version", "from", "what it is"),
            tuple(_row(record) for record in records if record["kind"] == kind),
            text=(0, 1, 2, 3),
        )
        for kind in ("searcher", "reduction")
    ]


def plugin_problems(plugins: Plugins) -> list[str]:
    """A line for each plugin that failed to load, and for each name that two plugins claim."""
    lines = [f"failed to load: plugin {name}: {error}" for name, error in sorted(plugins.failures.items())]
    for what, conflicts in (("searcher", plugins.conflicts), ("reduction", plugins.reduction_conflicts)):
        lines += [
            f"claimed twice: {what} {name!r} by {' and '.join(owners)}; it cannot be run until one goes"
            for name, owners in sorted(conflicts.items())
        ]
    return lines


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    name = record["name"] if record["variants"] is None else f"{record['name']} ({record['variants']})"
    notes = [f" [{_LOOKS}]"] * record["sees_images"] + [" [can use no reduction]"] * (record["reducible"] is False)
    return name, record["version"], record["from"], "".join((record["summary"], *notes))
