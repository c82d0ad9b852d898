"""The results in a report: the ranked tables of an output folder, and what its evaluation log adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdbench.leaderboard.boards import PROTOCOL_FIELDS, load_boards
from tdbench.leaderboard.standings import CountedRun, SpaceTable, Standings, standings
from tdbench.store.confirmations import space_references
from tdbench.store.library import TaskLibrary
from tdbench.store.log import FILE_NAME, RunRecord, Store
from tdbench.store.result import library_path
from tdbench.store.rows import Row, space_name


@dataclass(frozen=True)
class SpaceLog:
    """What the evaluation log adds to a table's rows; everything is empty if there is no log.

    Attributes:
        pixels: (N, 32, 32, 3) image set.
        told: run id -> (evaluations,) told taskness.
        labels: run id -> (N,) recommended labeling.
        evaluated: run id -> (evaluations, N) labelings of `told`, of runs that discover several.
        libraries: run id -> what it discovered, of runs that discover several.
        references: name of a reference task -> (N,) labels.
        unfinished: number of runs of the table's settings that have started and not ended.
    """

    pixels: NDArray[np.uint8] | None = None
    told: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    labels: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    evaluated: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    libraries: dict[str, TaskLibrary] = field(default_factory=dict)
    references: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    unfinished: int = 0


def read_results(out: Path) -> tuple[Standings, list[SpaceLog]]:
    """The ranked tables of an output folder, and a log for each table of a space. Raises UserError without results."""
    ranked = standings(load_boards([out]))
    if not (out / FILE_NAME).is_file():
        return ranked, [SpaceLog() for _ in ranked.tables]
    with Store(out, read_only=True) as store:
        records: dict[str, list[RunRecord]] = {}
        for record in store.runs():
            records.setdefault(record.space, []).append(record)
        return ranked, [_space_log(table, store, records.get(table.space, []), out) for table in ranked.tables]


def _space_log(table: SpaceTable, store: Store, records: Sequence[RunRecord], out: Path) -> SpaceLog:
    """What the log adds to a table; `records` are all of its space."""
    if not records:
        return SpaceLog()
    shown = {run.row.run for run in runs_of(table)}
    logged = [record for record in records if record.id in shown]
    labels = {record.id: store.recommended(record) for record in logged}
    protocol = {name: getattr(table.protocol, name) for name in PROTOCOL_FIELDS}
    return SpaceLog(
        store.pixels(table.space),
        {record.id: store.told_taskness(record) for record in logged},
        {run: recommended[1.0] for run, recommended in labels.items() if 1.0 in recommended},
        {record.id: store.told(record)[0] for record in logged if record.settings.tasks},
        _libraries([run.row for run in runs_of(table)], out),
        {task.name: task.labels for task in space_references(store, table.space)},
        sum(not r.ended and all(getattr(r.settings, k) == v for k, v in protocol.items()) for r in records),
    )


def _libraries(rows: Sequence[Row], out: Path) -> dict[str, TaskLibrary]:
    """Run id -> its library, of those that are still in the folder."""
    paths = {row.run: library_path(out, space_name(row), row.searcher, row.run) for row in rows if row.tasks}
    return {run: TaskLibrary.load(path) for run, path in paths.items() if path.is_file()}


def runs_of(table: SpaceTable) -> list[CountedRun]:
    """All runs of a table, searcher by searcher."""
    return [run for standing in table.standings for run in standing.runs]
