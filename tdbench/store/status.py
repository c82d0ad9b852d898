"""What the runs of an output folder have done and have left: the records and the table of `tdbench status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tdbench.base.table import Table
from tdbench.store.log import Store

COLUMNS = ("space", "searcher", "seed", "status", "evaluations", "left", "error")
UNFINISHED = ("running", "interrupted")  # what is said of a run that has not ended
_LONGEST_ERROR = 60  # characters of it in the table


def status_records(store: Store) -> list[dict[str, Any]]:
    """A record with `COLUMNS` for each run of the log, in the order they were begun."""
    records = []
    evaluated, held = store.all_evaluated(), store.held()
    for record in store.runs():
        settings, done = record.settings, evaluated.get(record.id, 0)
        values = (
            record.space,
            settings.full_name,
            settings.seed,
            record.status if record.ended else "running" if record.key in held else "interrupted",
            done,
            0 if record.ended else settings.budget - done,
            record.error,
        )
        records.append(dict(zip(COLUMNS, values, strict=True)))
    return records


def status_table(records: Sequence[dict[str, Any]]) -> Table:
    """The records as a table."""
    rows = [(*(str(record[column]) for column in COLUMNS[:-1]), record["error"][:_LONGEST_ERROR]) for record in records]
    return Table("", COLUMNS, tuple(rows), text=(0, 1, 3, 6))
