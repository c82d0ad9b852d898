"""`tdbench perf --bookkeeping`: what everything but training costs, by the size of the results folder.

Nothing is trained: rows, runs and evaluations are made up, and the functions are those that `run`, `bench`, `status`
and `leaderboard` call. An operation whose cost does not grow with the folder has the same number on each line.
"""

from __future__ import annotations

import dataclasses
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tdbench.base.errors import UserError
from tdbench.settings import RunSettings
from tdbench.space.task_space import TaskSpace
from tdbench.store.log import Asked, RunRecord, Store, digest
from tdbench.store.rows import Leaderboard, Row, leaderboard_path, read_rows, row_to_json
from tdbench.store.status import status_records

RUNS = (100, 1_000, 10_000)
EVALUATIONS = (1_000, 10_000, 100_000, 1_000_000)
BATCH = 32  # evaluations of a recorded ask
REPEATS = 20  # of what changes the folder by one row or one ask; the median counts
_ENGINE = ("native", "cpu", "avx2")
_ASKS = 1_000  # in one transaction, while a log is made up
_MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """One operation at one size.

    Attributes:
        operation: what was done.
        runs, evaluations: what the folder held, all of them in one space.
        items: how many things the operation went through: 1, or all runs or evaluations of the folder.
        ms: milliseconds it took: of one, the median.
        peak_mib: the most memory that the process had taken until then, MiB.
    """

    operation: str
    runs: int
    evaluations: int
    items: int
    ms: float
    peak_mib: float

    @property
    def each_us(self) -> float:
        """Microseconds for each item."""
        return 1e3 * self.ms / self.items


def measure_bookkeeping(
    runs: Sequence[int] = RUNS,
    evaluations: Sequence[int] = EVALUATIONS,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Cost]:
    """The costs at each number of runs, with one ask each, and at each number of evaluations of one run.

    Raises:
        UserError: a size is below 1, or there is no room for the folder that is measured.
    """
    if any(size < 1 for size in (*runs, *evaluations)):
        raise UserError("sizes must be at least 1")
    space = TaskSpace("digits")
    costs: list[Cost] = []
    for size in sorted(runs):
        tell(f"{size:,} runs")
        with tempfile.TemporaryDirectory() as folder:
            costs += _costs_of_runs(space, Path(folder), size)
    for size in sorted(evaluations):
        tell(f"{size:,} evaluations")
        with tempfile.TemporaryDirectory() as folder:
            costs += _costs_of_evaluations(space, Path(folder), size)
    return costs


def _costs_of_runs(space: TaskSpace, folder: Path, size: int) -> Iterator[Cost]:
    def cost(operation: str, items: int, ms: float) -> Cost:
        return Cost(operation, size, size * BATCH, items, ms, peak_mib())

    board = Leaderboard(leaderboard_path(folder, space.name))
    with Store(folder) as store:
        keys = _make_runs(space, store, board.path, size)
        ms, _ = _timed(board.check)
        yield cost("check the leaderboard", size, ms)
        yield cost("append a row", 1, _median(lambda i: board.add(_row(space, f"new{i}-1", size + i))))
        yield cost("read the leaderboard", size, _timed(lambda: read_rows(board.path))[0])
        yield cost("find the runs of a bench", size, _timed(lambda: [store.latest(key) for key in keys])[0])
        yield cost("read the run records", size, _timed(store.runs)[0])
        yield cost("status", size, _timed(lambda: status_records(store))[0])
        lock = store.lock(keys)
        ms, _ = _timed(lock.__enter__)
        yield cost("lock the runs", size, ms)
        yield cost("see which runs are locked", size, _timed(store.held)[0])
        lock.__exit__(None, None, None)


def _costs_of_evaluations(space: TaskSpace, folder: Path, size: int) -> Iterator[Cost]:
    def cost(operation: str, items: int, ms: float) -> Cost:
        return Cost(operation, 1, size, items, ms, peak_mib())

    with Store(folder) as store:
        store.add_space(space)
        record = _begin(space, store, 0)
        batch = _asked(space, 0, BATCH)
        for start in range(0, size, BATCH * _ASKS):
            firsts = range(start, min(start + BATCH * _ASKS, size), BATCH)
            asks = [dataclasses.replace(batch, first=first) for first in firsts]
            store.append([(record.id, _cut(ask, size)) for ask in asks], {record.id: 1.0})
        yield cost("best told", size, _timed(lambda: store.told_taskness(record).max())[0])
        yield cost("read the asks of a resumed run", size, _timed(lambda: store.asked(record))[0])
        one = _asked(space, size, 1)

        def commit(i: int) -> None:
            store.append([(record.id, dataclasses.replace(one, first=size + i))], {record.id: 1.0})

        yield cost("commit an ask of 1", 1, _median(commit))


def _make_runs(space: TaskSpace, store: Store, board: Path, size: int) -> list[str]:
    """So many ended runs of one ask each, with their rows; gives their keys."""
    store.add_space(space)
    asked = _asked(space, 0, BATCH)
    adding = Leaderboard(board)
    with store.together():
        records = [_begin(space, store, seed) for seed in range(size)]
        store.append([(record.id, asked) for record in records], {})
        for seed, record in enumerate(records):
            row = _row(space, record.id, seed)
            store.finish(record.id, "ok", "", 1.0, row_to_json(row), {1.0: asked.labels[0]})
            adding.add(row)
    return [record.key for record in records]


def _begin(space: TaskSpace, store: Store, seed: int) -> RunRecord:
    settings = RunSettings(searcher="random", seed=seed, budget=10**9)
    return store.begin(f"{seed:012x}", 1, space.identity, settings, "1.0", _ENGINE)


def _asked(space: TaskSpace, first: int, n: int) -> Asked:
    labels = space.random_labelings(n, seed=first)
    return Asked(first, digest(labels.astype(np.float64)), labels, np.random.default_rng(first).normal(size=n))


def _cut(asked: Asked, end: int) -> Asked:
    """The ask without evaluations beyond the end."""
    n = min(len(asked.labels), end - asked.first)
    return Asked(asked.first, asked.digest, asked.labels[:n], asked.taskness[:n])


def _row(space: TaskSpace, run: str, seed: int) -> Row:
    numbers = {field.name: 0.5 for field in dataclasses.fields(Row) if field.type == "float"}
    wholes = {field.name: seed for field in dataclasses.fields(Row) if field.type == "int"}
    words = {field.name: "as long as a word" for field in dataclasses.fields(Row) if field.type == "str"}
    return Row(**{**numbers, **wholes, **words, "sees_images": False, **space.columns, "run": run})


def _timed(call: Callable[[], object]) -> tuple[float, object]:
    """Milliseconds that a call took, and what it gave."""
    start = time.perf_counter()
    result = call()
    return 1e3 * (time.perf_counter() - start), result


def _median(call: Callable[[int], object]) -> float:
    return statistics.median(_timed(lambda i=i: call(i))[0] for i in range(REPEATS))  # type: ignore[misc]


def peak_mib() -> float:
    """The most memory that this process has taken so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)
