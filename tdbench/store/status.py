"""What the runs of an output folder have done and have left: the records and the table of `tdbench status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tdbench.base.table import Table
from tdbench.cluster.member import Work
from tdbench.store.log import Store

COLUMNS = ("space", "searcher", "seed", "status", "evaluations", "left", "error")
WORK_COLUMNS = ("worker", "host", "engine", "trainings", "seconds", "pieces", "lost pieces")
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


def work_table(done: Sequence[Work]) -> Table:
    """What each worker of a cluster has done, the busiest first."""
    rows = [
        (w.worker, w.host, w.engine, f"{w.trainings}", f"{w.seconds:.1f}", f"{w.pieces}", f"{w.lost}")
        for w in sorted(done, key=lambda w: (-w.trainings, w.worker))
    ]
    return Table("workers", WORK_COLUMNS, tuple(rows), text=(0, 1, 2))


def status_table(records: Sequence[dict[str, Any]]) -> Table:
    """The records as a table."""
    rows = [(*(str(record[column]) for column in COLUMNS[:-1]), record["error"][:_LONGEST_ERROR]) for record in records]
    return Table("", COLUMNS, tuple(rows), text=(0, 1, 3, 6))
