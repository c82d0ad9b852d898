"""The contents of the page's tables, as plain values for the template: ranking, matrix, settings, found tasks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tdbench.base.stats import Estimate
from tdbench.leaderboard.boards import PROTOCOL_FIELDS
from tdbench.leaderboard.standings import SpaceTable, Standing
from tdbench.report.results import SpaceLog
from tdbench.space.settings import SPACE_COLUMNS
from tdbench.store.rows import DEFAULTS, Row

MOST_IMAGES = 60  # of one side of a labeling
_SETTINGS = (
    *("space", *SPACE_COLUMNS, *PROTOCOL_FIELDS),
    *("engine", "engine_detail", "device", "hardware", "versions"),
)


def ranking(table: SpaceTable) -> list[dict[str, Any]]:
    """Searchers and summaries of the reference tasks, in one order by confirmed taskness."""
    entries = [_ranked(standing) for standing in table.standings]
    for line in table.reference_summary:
        blank = dict.fromkeys(("rank", "told", "optimism", "distinct", "seeds", "failed"))
        none = Estimate(math.nan, math.nan, math.nan, 0)
        mean = Estimate(line.mean, math.nan, math.nan, 0)
        entries.append({**blank, "name": line.name, "mark": "", "confirmed": mean, "anytime": none, "reference": True})
    return sorted(entries, key=lambda entry: -entry["confirmed"].value)


def _ranked(standing: Standing) -> dict[str, Any]:
    return {
        "rank": standing.rank,
        "name": standing.searcher,
        "mark": "sees images" if standing.sees_images else "",
        "confirmed": standing.confirmed,
        "told": standing.told,
        "optimism": standing.optimism,
        "anytime": standing.anytime,
        "distinct": standing.distinct,
        "seeds": len(standing.runs),
        "failed": standing.failed,
        "reference": False,
    }


def matrix(table: SpaceTable) -> dict[str, Any] | None:
    """How often a run of one searcher confirms higher than a run of another; None if there is only one searcher."""
    if len(table.standings) < 2:
        return None
    names = [standing.searcher for standing in table.standings]
    rows = [
        {"name": name, "cells": [None if i == j else cell for j, cell in enumerate(table.improvement[i])]}
        for i, name in enumerate(names)
    ]
    return {"names": names, "rows": rows}


def settings_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Each setting with its value; if runs differ, each value with the number of runs that have it."""
    shown = []
    for name in _SETTINGS:
        counts = Counter(str(getattr(row, name)) for row in rows)
        if name in DEFAULTS and all(getattr(row, name) == DEFAULTS[name] for row in rows):
            continue
        several = "; ".join(f"{value or '-'} ({count(n, 'run')})" for value, n in counts.most_common())
        shown.append((name.replace("_", " "), several if len(counts) > 1 else next(iter(counts)) or "-"))
    versions = sorted({f"{row.searcher} {row.searcher_version}".strip() for row in rows})
    return [*shown, ("searchers", ", ".join(versions))]


def found_tasks(rows: Sequence[Row], log: SpaceLog) -> list[dict[str, Any]]:
    """The discovered task of each run, best confirmed first: indices of the images on each side."""
    shown = []
    for row in sorted(rows, key=lambda r: -np.nan_to_num(r.confirmed, nan=-9)):
        if row.run not in log.labels:
            continue
        card: dict[str, Any] = {"row": row}
        for name, value in (("positives", 1), ("negatives", 0)):
            index = np.flatnonzero(log.labels[row.run] == value).tolist()
            card |= {name: index[:MOST_IMAGES], f"all_{name}": len(index)}
        shown.append(card)
    return shown


def library_tasks(rows: Sequence[Row], log: SpaceLog) -> list[dict[str, Any]]:
    """The labelings of the best library of each searcher, the best library first: indices of their positives."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda r: -np.nan_to_num(r.confirmed, nan=-9)):
        if row.run in log.libraries:
            best.setdefault(row.searcher, row)
    return [
        {
            "row": row,
            "members": [
                {
                    "place": place,
                    "positives": np.flatnonzero(labels).tolist()[:MOST_IMAGES],
                    "all_positives": int(labels.sum()),
                    "confirmed": confirmed,
                    "confirmed_se": se,
                    "told": told,
                }
                for place, (labels, confirmed, se, told) in enumerate(
                    zip(library.labels, library.confirmed, library.confirmed_se, library.told, strict=True), start=1
                )
            ],
        }
        for row in best.values()
        for library in [log.libraries[row.run]]
    ]


def count(number: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {what}{'s' * (number != 1)}"
