"""What the runs of an output folder have done and have left: the records and the table of `tdbench status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from filelock import FileLock, Timeout

from tdbench.base.table import Table
from tdbench.settings import RunSettings
from tdbench.store.log import RunRecord, Store

COLUMNS = ("space", "searcher", "seed", "status", "evaluations", "left", "error")
_LONGEST_ERROR = 60  # characters of it in the table


def status_records(store: Store) -> list[dict[str, Any]]:
    """A record with `COLUMNS` for each run of the log, in the order they were begun."""
    records = []
    for record in store.runs():
        settings = _settings(record)
        done = store.evaluated(record.id)
        values = (
            record.space,
            settings.full_name,
            settings.seed,
            record.status if record.ended else "running" if _is_running(store, record) else "interrupted",
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


def _settings(record: RunRecord) -> RunSettings:
    classes = record.settings["classes"]
    return RunSettings(**{**record.settings, "classes": None if classes is None else tuple(classes)})


def _is_running(store: Store, record: RunRecord) -> bool:
    """Whether another process holds the lock of the run."""
    path = store.path.parent / ".locks" / f"{record.key}.lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True
