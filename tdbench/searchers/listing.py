"""What is installed: the records and the tables of `tdbench searchers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tdbench.base.errors import UserError
from tdbench.base.table import Table
from tdbench.searchers.registry import Plugins, Registered, Registration, known_variants


def plugin_records(plugins: Plugins) -> list[dict[str, Any]]:
    """A record for each searcher and each reduction, by name.

    ``kind`` is searcher or reduction, and ``from`` the distribution or file that it comes from. ``variants`` is the
    number of members of a family, and ``reducible`` whether a searcher can use a reduction; None where neither applies.
    """
    return [
        _record(registrations.kind.what, registration)
        for registrations in plugins.kinds
        for _, registration in sorted(registrations.items())
    ]


def plugin_tables(records: Sequence[dict[str, Any]]) -> list[Table]:
    """The records as a table for each kind."""
    return [
        Table(
            "",
            (kind, "version", "from", "what it is"),
            tuple(_row(record) for record in records if record["kind"] == kind),
            text=(0, 1, 2, 3),
        )
        for kind in dict.fromkeys(record["kind"] for record in records)
    ]


def plugin_problems(plugins: Plugins) -> list[str]:
    """A line for each plugin that failed to load, and for each name that two plugins claim."""
    lines = [f"failed to load: plugin {name}: {error}" for name, error in sorted(plugins.failures.items())]
    for registrations in plugins.kinds:
        what = registrations.kind.what
        lines += [
            f"claimed twice: {what} {name!r} by {' and '.join(owners)}; it cannot be run until one goes"
            for name, owners in sorted(registrations.conflicts.items())
        ]
    return lines


def _record(kind: str, registration: Registered) -> dict[str, Any]:
    family = getattr(registration, "variants", None) is not None
    try:
        variants = len(known_variants(registration)) if isinstance(registration, Registration) and family else None
        summary = registration.summary
    except UserError as error:
        variants, summary = 0, f"{registration.summary} ({error})"
    return {
        "kind": kind,
        "name": f"{registration.name}:NAME" if family else registration.shown,
        "variants": variants,
        "version": registration.version,
        "from": registration.origin,
        "summary": summary,
        "sees_images": registration.sees_images,
        "reducible": getattr(registration, "reducible", None),
    }


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    name = record["name"] if record["variants"] is None else f"{record['name']} ({record['variants']})"
    looks = " [looks at the images]" if record["sees_images"] else ""
    alone = " [can use no reduction]" if record["reducible"] is False else ""
    return name, record["version"], record["from"], record["summary"] + looks + alone
