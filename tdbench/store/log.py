"""The evaluation log: one SQLite file per output folder. An evaluation is committed before its searcher is told.

A run is resumed by replay: a fresh searcher is asked again, what it asks is compared with the digests kept here,
and it is told the recorded losses.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import set_fields
from tdbench.base.database import Database
from tdbench.base.errors import UserError
from tdbench.cluster.member import Work
from tdbench.settings import RunSettings
from tdbench.space.labelings import LabelVectors
from tdbench.space.task_space import TaskSpace
from tdbench.store.cells import check_count, class_dtype, pack_labels, parsed_json, unpack_labels
from tdbench.store.locks import held, hold
from tdbench.store.rows import Row, row_from_json

VERSION = 1
TABLES_OF_RUNS = ("ask", "evaluation", "replicate", "recommendation", "refused", "search_end", "member")
FILE_NAME = "log.sqlite"
_LONGEST_ERROR = 300  # characters of what is the matter with a damaged cell

# status: running, ok, crash, timeout, invalid. Label vectors are packed bits; taskness arrays are float64 bytes.
SCHEMA = """
CREATE TABLE meta (version INTEGER NOT NULL);
CREATE TABLE space (
    identity TEXT PRIMARY KEY, name TEXT NOT NULL, source TEXT NOT NULL, settings TEXT NOT NULL,
    seed INTEGER NOT NULL, classes TEXT NOT NULL, class_of BLOB NOT NULL, pixels BLOB NOT NULL);
CREATE TABLE run (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL, space TEXT NOT NULL REFERENCES space(identity),
    settings TEXT NOT NULL, searcher_version TEXT NOT NULL, engine TEXT NOT NULL, device TEXT NOT NULL,
    engine_detail TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL DEFAULT '', seconds REAL NOT NULL DEFAULT 0,
    started REAL NOT NULL, row TEXT, UNIQUE (key, attempt));
CREATE TABLE ask (
    run TEXT NOT NULL REFERENCES run(id), first INTEGER NOT NULL, n INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (run, first)) WITHOUT ROWID;
CREATE TABLE evaluation (
    run TEXT NOT NULL REFERENCES run(id), evaluation INTEGER NOT NULL, labels BLOB NOT NULL, taskness REAL NOT NULL,
    PRIMARY KEY (run, evaluation)) WITHOUT ROWID;
CREATE TABLE recommendation (
    run TEXT NOT NULL REFERENCES run(id), share REAL NOT NULL, labels BLOB NOT NULL,
    PRIMARY KEY (run, share)) WITHOUT ROWID;
CREATE TABLE confirmation (
    space TEXT NOT NULL REFERENCES space(identity), engine TEXT NOT NULL, labels BLOB NOT NULL,
    replicates INTEGER NOT NULL, taskness BLOB NOT NULL,
    PRIMARY KEY (space, engine, labels, replicates)) WITHOUT ROWID;
"""
# Tables that came after 0.1.0. They are made when there is something to be written into them; no table is ever changed.
LATER_SCHEMA = """
CREATE TABLE IF NOT EXISTS refused (
    run TEXT NOT NULL REFERENCES run(id), evaluation INTEGER NOT NULL,
    PRIMARY KEY (run, evaluation)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS search_end (
    run TEXT PRIMARY KEY REFERENCES run(id), evaluations INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replicate (
    run TEXT NOT NULL REFERENCES run(id), evaluation INTEGER NOT NULL, taskness BLOB NOT NULL,
    PRIMARY KEY (run, evaluation)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS member (
    run TEXT NOT NULL REFERENCES run(id), place INTEGER NOT NULL, labels BLOB NOT NULL, told REAL,
    evaluations INTEGER NOT NULL, PRIMARY KEY (run, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS work (
    worker TEXT NOT NULL, host TEXT NOT NULL, engine TEXT NOT NULL, trainings INTEGER NOT NULL, seconds REAL NOT NULL,
    pieces INTEGER NOT NULL, lost INTEGER NOT NULL, PRIMARY KEY (worker, host, engine)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class RunRecord:
    """A run as the log has it; `row` is its leaderboard row as JSON once it has ended (`Store.row` checks it)."""

    id: str
    key: str
    attempt: int
    space: str
    settings: RunSettings
    searcher_version: str
    engine: str
    device: str
    engine_detail: str
    status: str
    error: str
    seconds: float
    started: float
    row: dict[str, Any] | None

    @property
    def ended(self) -> bool:
        return self.status != "running"


# The columns of the table, as SQLite gives them.
_RUN_TYPES: dict[str, tuple[type, ...]] = {
    **{field.name: (str,) for field in dataclasses.fields(RunRecord)},
    **{"attempt": (int,), "seconds": (float,), "started": (float,), "row": (str, type(None))},
}


@dataclass(frozen=True)
class Asked:
    """One recorded ask: where it begins, a digest of its scores, and what came of it.

    Attributes:
        labels: (n, N).
        taskness: (n,) that was told.
        refused: (n,) which labelings were not evaluated, because they are too similar to what was found before; none
            by default.
        replicates: (n, k) taskness of single replicates, where the searcher was told them; else None.
    """

    first: int
    digest: bytes
    labels: LabelVectors
    taskness: NDArray[np.float64]
    refused: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    replicates: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if not len(self.refused):
            set_fields(self, refused=np.zeros(len(self.labels), dtype=np.bool_))


@dataclass(frozen=True)
class Member:
    """A labeling of the library that a run has discovered: (N,) labels, mean told taskness (NaN where it was never
    told), and how often it was evaluated."""

    labels: LabelVectors
    told: float
    evaluations: int


@dataclass(frozen=True)
class Told:
    """What a run was told of each labeling that was evaluated.

    Attributes:
        labels: (m, N) distinct labelings, in the order in which they were first evaluated.
        taskness: (m,) mean over its evaluations.
        evaluations: (m,) how many there were.
    """

    labels: LabelVectors
    taskness: NDArray[np.float64]
    evaluations: NDArray[np.int64]

    @classmethod
    def of(cls, labels: LabelVectors, taskness: NDArray[np.float64]) -> Told:
        """Of the (n, N) labelings of n evaluations, and their (n,) taskness."""
        _, first, which, counts = np.unique(labels, axis=0, return_index=True, return_inverse=True, return_counts=True)
        sums = np.bincount(which.ravel(), taskness, minlength=len(counts))
        order = np.argsort(first)
        return cls(labels[first[order]], (sums / counts)[order], counts[order])

    @property
    def best_first(self) -> LabelVectors:
        """(m, N) labelings by mean taskness; of equals the one that was evaluated first."""
        best: LabelVectors = self.labels[np.argsort(-self.taskness, kind="stable")]
        return best

    def member(self, labels: LabelVectors) -> Member:
        """An (N,) labeling as a member of a library."""
        found = np.flatnonzero((self.labels == labels).all(axis=1))
        if not len(found):
            return Member(labels, math.nan, 0)
        return Member(labels, float(self.taskness[found[0]]), int(self.evaluations[found[0]]))


def run_attempt(run: str) -> tuple[str, int]:
    """Key and attempt of a run's id, ``KEY-ATTEMPT``; attempt 0 of anything else that stands in a leaderboard."""
    key, _, attempt = run.rpartition("-")
    return (key, int(attempt)) if key and attempt.isdecimal() and len(attempt) < 10 else (run, 0)


class Replay:
    """The committed asks of a run that goes on, to be taken one by one. They are read when the first is needed."""

    def __init__(self, store: Store, record: RunRecord) -> None:
        self._store, self._record = store, record

    @functools.cached_property
    def _left(self) -> deque[Asked]:
        return deque(self._store.asked(self._record))

    @functools.cached_property
    def search_end(self) -> int | None:
        """After how many evaluations the searcher was done, before its budget was used; None where it was not."""
        return self._store.search_end(self._record)

    def __len__(self) -> int:
        return len(self._left)

    def popleft(self) -> Asked:
        return self._left.popleft()


def digest(scores: NDArray[np.float64]) -> bytes:
    """16 bytes that tell one ask from another."""
    return hashlib.sha256(np.ascontiguousarray(scores, dtype=np.float64).tobytes()).digest()[:16]


class Store:
    """The log of an output folder."""

    def __init__(self, folder: Path, *, read_only: bool = False, copy: Path | None = None) -> None:
        """Opens the log, or makes it, unless it is only to be read.

        Args:
            copy: a copy of the log's file that is read in its place.

        Raises:
            UserError: there is no log to be read, or one that this version cannot read.
        """
        self.path = folder / FILE_NAME
        if read_only and not self.path.is_file():
            raise UserError(f"there is no {FILE_NAME} in {folder}; give the --out folder of a run")
        self._db = Database(copy or self.path, "the evaluation log", read_only=read_only)
        try:
            if not read_only:
                self._make()
            self._check_version()
            if not read_only:
                self._db.rows("PRAGMA journal_mode=WAL")  # readers and other runs are not held up by a commit
        except BaseException:
            self._db.close()
            raise

    def _make(self) -> None:
        with self._db.transaction() as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES (?)", (VERSION,))

    def _make_later_tables(self) -> None:
        with self._db.transaction() as db:
            for statement in LATER_SCHEMA.split(";"):
                db.execute(statement)

    def _check_version(self) -> None:
        rows = self._db.rows("SELECT version FROM meta")
        version = rows[0][0] if rows else None
        if version != VERSION:
            raise UserError(
                f"{self.path} was written by another version of tdbench (log version {version}, this one reads "
                f"{VERSION}); use that version, or another --out"
            )

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def together(self) -> AbstractContextManager[object]:
        """What is written within the block is committed at its end, or not at all."""
        return self._db.transaction()

    def freeze(self) -> None:
        """From here on this reader sees the log as it is now, whatever is committed to it."""
        self._db.rows("BEGIN")

    def table(self, name: str, run: str | None = None) -> list[tuple[Any, ...]]:
        """The rows of a table as they are kept, all or those of a run; none where the log does not have the table."""
        if not self._has(name):
            return []
        if run is None:
            return self._db.rows(f"SELECT * FROM {name}")
        return self._db.rows(f"SELECT * FROM {name} WHERE {'id' if name == 'run' else 'run'} = ?", run)

    def put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write rows as `table` gives them; they take the place of rows with the same key."""
        if not rows:
            return
        if not self._has(table):
            self._make_later_tables()
        with self._db.transaction() as db:
            db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)

    def lock(self, keys: Iterable[str]) -> AbstractContextManager[None]:
        """Hold the runs with these keys against other processes. Raises UserError where another one has one of them."""
        return hold(self._locks, keys)

    def held(self) -> set[str]:
        """The keys of all runs that processes are at now."""
        return held(self._locks)

    @property
    def _locks(self) -> Path:
        return self.path.parent / ".locks"

    @contextmanager
    def _readable(self, table: str, name: str, what: str = "run") -> Iterator[None]:
        """What the block cannot make sense of becomes a UserError that names the file, the table and the run."""
        try:
            yield
        except (UserError, ValueError, TypeError, OverflowError) as error:
            message = " ".join(str(error).split())[:_LONGEST_ERROR]
            raise UserError(
                f"{self.path} is damaged: table {table}, {'space' if table == 'space' else what} {name}: {message}"
            ) from error

    def _record(self, row: tuple[Any, ...]) -> RunRecord:
        with self._readable("run", str(row[0])):
            values = dict(zip(_RUN_TYPES, row, strict=True))
            for name, kinds in _RUN_TYPES.items():
                if not isinstance(values[name], kinds):
                    raise ValueError(f"{name} must be of type {kinds[0].__name__}, got {values[name]!r}")
            values["settings"] = RunSettings.from_recorded(parsed_json(values["settings"], dict, "settings"))
            if values["row"] is not None:
                values["row"] = parsed_json(values["row"], dict, "row")
            return RunRecord(**values)

    def add_space(self, space: TaskSpace) -> None:
        with self._db.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO space VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    space.identity,
                    space.name,
                    space.source,
                    json.dumps(space.settings),
                    space.seed,
                    json.dumps(space.classes),
                    space.class_of.astype(class_dtype(len(space.classes))).tobytes(),
                    space.pixels.tobytes(),
                ),
            )

    def has_space(self, identity: str) -> bool:
        """Whether a run on that space was ever begun."""
        return bool(self._db.rows("SELECT 1 FROM space WHERE identity = ?", identity))

    def pixels(self, identity: str) -> NDArray[np.uint8]:
        """(N, 32, 32, 3) of a recorded space."""
        rows = self._db.rows("SELECT pixels FROM space WHERE identity = ?", identity)
        with self._readable("space", identity):
            [(blob,)] = rows
            return np.frombuffer(blob, dtype=np.uint8).reshape(-1, 32, 32, 3)

    def classes(self, identity: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Class names of a recorded space, and (N,) the class of each image."""
        rows = self._db.rows("SELECT classes, class_of FROM space WHERE identity = ?", identity)
        with self._readable("space", identity):
            [(names, blob)] = rows
            classes = tuple(parsed_json(names, list, "classes"))
            class_of = np.frombuffer(blob, dtype=class_dtype(len(classes))).astype(np.int64)
            if not all(isinstance(name, str) for name in classes) or class_of.max() >= len(classes):
                raise ValueError("classes and class_of do not belong together")
            return classes, class_of

    def runs(self, status: str | None = None) -> list[RunRecord]:
        """All runs, or those of one status, in the order they were begun."""
        where, values = ("", ()) if status is None else ("WHERE status = ?", (status,))
        return [self._record(row) for row in self._db.rows(f"SELECT * FROM run {where} ORDER BY started, id", *values)]

    def latest(self, key: str) -> RunRecord | None:
        """The latest attempt at the run with that key."""
        rows = self._db.rows("SELECT * FROM run WHERE key = ? ORDER BY attempt DESC LIMIT 1", key)
        return self._record(rows[0]) if rows else None

    def begin(
        self, key: str, attempt: int, space: str, settings: RunSettings, version: str, engine: tuple[str, str, str]
    ) -> RunRecord:
        """Record a new run; `engine` is its name, device and detail."""
        run_id = f"{key}-{attempt}"  # `run_attempt` takes it apart
        with self._db.transaction() as db:
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', '', 0, ?, NULL)",
                (run_id, key, attempt, space, json.dumps(settings.recorded()), version, *engine, time.time()),
            )
        return self.record(run_id)

    def record(self, run: str) -> RunRecord:
        """The run with that id. Raises UserError where the log does not have it."""
        rows = self._db.rows("SELECT * FROM run WHERE id = ?", run)
        if not rows:
            raise UserError(f"{self.path} has no run {run}")
        return self._record(rows[0])

    def row(self, record: RunRecord) -> Row:
        """The leaderboard row of a run that has ended."""
        with self._readable("run", record.id):
            if record.row is None:
                raise ValueError("it has no leaderboard row")
            return row_from_json(record.row)

    def asked(self, record: RunRecord) -> list[Asked]:
        """The committed asks of a run, in order."""
        labels, values = self.evaluations(record)
        asks = self._db.rows("SELECT first, n, digest FROM ask WHERE run = ? ORDER BY first", record.id)
        with self._readable("ask", record.id):
            ends = np.cumsum([n for _, n, _ in asks], dtype=np.int64).tolist()
            if [first for first, _, _ in asks] != [0, *ends][:-1] or [0, *ends][-1] != len(labels):
                raise ValueError("its asks and its evaluations do not belong together")
        refused, replicates = self._refused(record, len(labels)), self._replicates(record)
        return [
            Asked(
                first,
                d,
                labels[first : first + n],
                values[first : first + n],
                refused[first : first + n],
                np.stack([replicates[first + i] for i in range(n)]) if first in replicates else None,
            )
            for first, n, d in asks
        ]

    def evaluations(self, record: RunRecord) -> tuple[LabelVectors, NDArray[np.float64]]:
        """(n, N) label vectors and (n,) taskness of a run so far, those of a race among them."""
        rows = self._db.rows(
            "SELECT evaluation, labels, taskness FROM evaluation WHERE run = ? ORDER BY evaluation", record.id
        )
        with self._readable("evaluation", record.id):
            check_count(rows)
            labels = unpack_labels([row[1] for row in rows], record.settings.n)
            return labels, np.array([row[2] for row in rows], dtype=np.float64)

    def told(self, record: RunRecord) -> tuple[LabelVectors, NDArray[np.float64]]:
        """(n, N) label vectors and (n,) taskness that the run's searcher was told of labelings that were evaluated.

        Those of a race it was not told, and those that were too similar to what was found before were not evaluated.
        """
        searched = self._searched(record)
        labels, taskness = self.evaluations(record)
        evaluated = ~self._refused(record, len(labels))[:searched]
        return labels[:searched][evaluated], taskness[:searched][evaluated]

    def told_taskness(self, record: RunRecord) -> NDArray[np.float64]:
        """(n,) taskness as `told` gives it, without the label vectors."""
        rows = self._db.rows(
            "SELECT evaluation, taskness FROM evaluation WHERE run = ? ORDER BY evaluation LIMIT ?",
            record.id,
            self._searched(record),
        )
        with self._readable("evaluation", record.id):
            check_count(rows)
            return np.array([row[1] for row in rows], dtype=np.float64)[~self._refused(record, len(rows))]

    def end_search(self, run: str, evaluations: int) -> None:
        """Record that the run's searcher was done after so many evaluations."""
        self._make_later_tables()
        with self._db.transaction() as db:
            db.execute("INSERT OR REPLACE INTO search_end VALUES (?, ?)", (run, evaluations))

    def search_end(self, record: RunRecord) -> int | None:
        """After how many evaluations the run's searcher was done; None where it was asked for its whole budget."""
        if not self._has("search_end"):
            return None
        rows = self._db.rows("SELECT evaluations FROM search_end WHERE run = ?", record.id)
        return int(rows[0][0]) if rows else None

    def _searched(self, record: RunRecord) -> int:
        """The most evaluations of the run that its searcher was told."""
        end = self.search_end(record)
        return record.settings.search_budget if end is None else end

    def _replicates(self, record: RunRecord) -> dict[int, NDArray[np.float64]]:
        """Evaluation -> (k,) taskness of its replicates, of those that have been kept."""
        if record.settings.replicates == 1 or not self._has("replicate"):
            return {}
        rows = self._db.rows("SELECT evaluation, taskness FROM replicate WHERE run = ?", record.id)
        with self._readable("replicate", record.id):
            values = {evaluation: np.frombuffer(blob, dtype=np.float64) for evaluation, blob in rows}
            if any(len(v) != record.settings.replicates for v in values.values()):
                raise ValueError(f"expected {record.settings.replicates} values for each evaluation")
            return values

    def _refused(self, record: RunRecord, evaluations: int) -> NDArray[np.bool_]:
        """(evaluations,) which labelings were too similar to what the run had found before, and were not evaluated."""
        refused = np.zeros(evaluations, dtype=np.bool_)
        if record.settings.tasks and self._has("refused"):
            found = self._db.rows(
                "SELECT evaluation FROM refused WHERE run = ? AND evaluation < ?", record.id, evaluations
            )
            refused[[evaluation for (evaluation,) in found]] = True
        return refused

    def _has(self, table: str) -> bool:
        return bool(self._db.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", table))

    def evaluated(self, run: str) -> int:
        """How many evaluations of a run are committed."""
        return int(self._db.rows("SELECT COUNT(*) FROM evaluation WHERE run = ?", run)[0][0])

    def all_evaluated(self) -> dict[str, int]:
        """How many evaluations of each run are committed; runs without one are not there."""
        return dict(self._db.rows("SELECT run, COUNT(*) FROM evaluation GROUP BY run"))

    def append(self, asked: list[tuple[str, Asked]], seconds: dict[str, float]) -> None:
        """Commit evaluated asks of any number of runs, and the seconds each has taken so far, all or nothing."""
        with self._db.transaction() as db:
            if any(ask.refused.any() or ask.replicates is not None for _, ask in asked):
                self._make_later_tables()
            for run, ask in asked:
                refused = (ask.first + np.flatnonzero(ask.refused)).tolist()
                if refused:
                    db.executemany("INSERT INTO refused VALUES (?, ?)", [(run, evaluation) for evaluation in refused])
                if ask.replicates is not None:
                    each = [(run, ask.first + i, values.tobytes()) for i, values in enumerate(ask.replicates)]
                    db.executemany("INSERT INTO replicate VALUES (?, ?, ?)", each)
                db.execute("INSERT INTO ask VALUES (?, ?, ?, ?)", (run, ask.first, len(ask.labels), ask.digest))
                db.executemany(
                    "INSERT INTO evaluation VALUES (?, ?, ?, ?)",
                    [
                        (run, ask.first + i, blob, float(value))
                        for i, (blob, value) in enumerate(zip(pack_labels(ask.labels), ask.taskness, strict=True))
                    ],
                )
            db.executemany("UPDATE run SET seconds = ? WHERE id = ?", [(s, run) for run, s in seconds.items()])

    def add_work(self, done: Sequence[Work]) -> None:
        """Add what workers of a cluster have done to what they had done before."""
        if not done:
            return
        with self._db.transaction() as db:
            self._make_later_tables()
            db.executemany(
                "INSERT INTO work VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "trainings = trainings + excluded.trainings, seconds = seconds + excluded.seconds, "
                "pieces = pieces + excluded.pieces, lost = lost + excluded.lost",
                [dataclasses.astuple(work) for work in done],
            )

    def work(self) -> list[Work]:
        """What each worker of a cluster has done for these runs; empty where they were trained without one."""
        return [Work(*row) for row in self._db.rows("SELECT * FROM work")] if self._has("work") else []

    def finish(
        self,
        run: str,
        status: str,
        error: str,
        seconds: float,
        row: dict[str, Any],
        recommended: dict[float, LabelVectors] | None = None,
        members: Sequence[Member] = (),
    ) -> None:
        """End a run: its status, its leaderboard row, its (N,) recommendations by share of the budget, its library."""
        with self._db.transaction() as db:
            if members:
                self._make_later_tables()
                db.executemany(
                    "INSERT INTO member VALUES (?, ?, ?, ?, ?)",
                    [
                        (
                            run,
                            place,
                            pack_labels(m.labels[None])[0],
                            None if math.isnan(m.told) else m.told,
                            m.evaluations,
                        )
                        for place, m in enumerate(members)
                    ],
                )
            db.executemany(
                "INSERT INTO recommendation VALUES (?, ?, ?)",
                [(run, share, pack_labels(y[None])[0]) for share, y in (recommended or {}).items()],
            )
            db.execute(
                "UPDATE run SET status = ?, error = ?, seconds = ?, row = ? WHERE id = ?",
                (status, error, seconds, json.dumps(row), run),
            )

    def recommended(self, record: RunRecord) -> dict[float, LabelVectors]:
        """Share of the budget -> (N,) label vector that an ended run recommended after it; 1.0 is its result."""
        rows = self._db.rows("SELECT share, labels FROM recommendation WHERE run = ? ORDER BY share", record.id)
        with self._readable("recommendation", record.id):
            return {share: unpack_labels([blob], record.settings.n)[0] for share, blob in rows}

    def members(self, record: RunRecord) -> list[Member]:
        """The library that an ended run has discovered, in the order in which it was chosen; empty if it failed."""
        if not record.settings.tasks or not self._has("member"):
            return []
        rows = self._db.rows("SELECT labels, told, evaluations FROM member WHERE run = ? ORDER BY place", record.id)
        with self._readable("member", record.id):
            labels = unpack_labels([blob for blob, _, _ in rows], record.settings.n)
            return [
                Member(own, math.nan if told is None else float(told), int(evaluations))
                for own, (_, told, evaluations) in zip(labels, rows, strict=True)
            ]

    def confirmed(self, space: str, engine: str, labels: LabelVectors, replicates: int) -> NDArray[np.float64] | None:
        """(replicates,) taskness of an (N,) label vector on the space's confirmation, where it is known."""
        rows = self._db.rows(
            "SELECT taskness FROM confirmation WHERE space = ? AND engine = ? AND labels = ? AND replicates = ?",
            space,
            engine,
            pack_labels(labels[None])[0],
            replicates,
        )
        if not rows:
            return None
        with self._readable("confirmation", space, "space"):
            values = np.frombuffer(rows[0][0], dtype=np.float64)
            if len(values) != replicates:
                raise ValueError(f"expected {replicates} taskness values, got {len(values)}")
            return values

    def add_confirmations(self, space: str, engine: str, labels: LabelVectors, values: NDArray[np.float64]) -> None:
        """Keep (n, replicates) confirmed taskness of (n, N) label vectors."""
        with self._db.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO confirmation VALUES (?, ?, ?, ?, ?)",
                [
                    (space, engine, blob, values.shape[1], np.ascontiguousarray(v, dtype=np.float64).tobytes())
                    for blob, v in zip(pack_labels(labels), values, strict=True)
                ],
            )
