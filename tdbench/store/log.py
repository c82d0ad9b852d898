"""The evaluation log: one SQLite file per output folder. An evaluation is committed before its searcher is told.

A run is resumed by replay: a fresh searcher is asked again, what it asks is compared with the digests kept here,
and it is told the recorded losses.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.database import Database
from tdbench.base.errors import UserError
from tdbench.settings import RunSettings
from tdbench.space.labelings import LabelVectors
from tdbench.space.task_space import TaskSpace
from tdbench.store.locks import hold, is_held

VERSION = 1
FILE_NAME = "log.sqlite"

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


@dataclass(frozen=True)
class RunRecord:
    """A run as the log has it; `row` is its leaderboard row once it has ended."""

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


@dataclass(frozen=True)
class Asked:
    """One recorded ask: where it begins, a digest of its scores, and what came of it."""

    first: int
    digest: bytes
    labels: LabelVectors  # (n, N)
    taskness: NDArray[np.float64]  # (n,)


def digest(scores: NDArray[np.float64]) -> bytes:
    """16 bytes that tell one ask from another."""
    return hashlib.sha256(np.ascontiguousarray(scores, dtype=np.float64).tobytes()).digest()[:16]


class Store:
    """The log of an output folder."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Opens the log, or makes it, unless it is only to be read.

        Raises:
            UserError: there is no log to be read, or one that this version cannot read.
        """
        self.path = folder / FILE_NAME
        if read_only and not self.path.is_file():
            raise UserError(f"there is no {FILE_NAME} in {folder}; give the --out folder of a run")
        self._db = Database(self.path, "the evaluation log", read_only=read_only)
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

    def lock(self, keys: Iterable[str]) -> AbstractContextManager[None]:
        """Hold the runs with these keys against other processes. Raises UserError where another one has one of them."""
        return hold([self._lock_file(key) for key in keys])

    def is_running(self, record: RunRecord) -> bool:
        """Whether a process is at this run now."""
        return not record.ended and is_held(self._lock_file(record.key))

    def _lock_file(self, key: str) -> Path:
        return self.path.parent / ".locks" / f"{key}.lock"

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
                    space.class_of.astype(_class_dtype(len(space.classes))).tobytes(),
                    space.pixels.tobytes(),
                ),
            )

    def pixels(self, identity: str) -> NDArray[np.uint8]:
        """(N, 32, 32, 3) of a recorded space."""
        [(blob,)] = self._db.rows("SELECT pixels FROM space WHERE identity = ?", identity)
        return np.frombuffer(blob, dtype=np.uint8).reshape(-1, 32, 32, 3)

    def classes(self, identity: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Class names of a recorded space, and (N,) the class of each image."""
        [(names, blob)] = self._db.rows("SELECT classes, class_of FROM space WHERE identity = ?", identity)
        classes = tuple(json.loads(names))
        return classes, np.frombuffer(blob, dtype=_class_dtype(len(classes))).astype(np.int64)

    def runs(self) -> list[RunRecord]:
        """All runs, in the order they were begun."""
        return [_record(row) for row in self._db.rows("SELECT * FROM run ORDER BY started, id")]

    def latest(self, key: str) -> RunRecord | None:
        """The latest attempt at the run with that key."""
        rows = self._db.rows("SELECT * FROM run WHERE key = ? ORDER BY attempt DESC LIMIT 1", key)
        return _record(rows[0]) if rows else None

    def begin(
        self, key: str, attempt: int, space: str, settings: RunSettings, version: str, engine: tuple[str, str, str]
    ) -> RunRecord:
        """Record a new run; `engine` is its name, device and detail."""
        run_id = f"{key}-{attempt}"
        with self._db.transaction() as db:
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', '', 0, ?, NULL)",
                (run_id, key, attempt, space, json.dumps(settings.recorded()), version, *engine, time.time()),
            )
        record = self.latest(key)
        assert record is not None  # just written
        return record

    def record(self, run: str) -> RunRecord:
        """The run with that id, which the log must have."""
        [row] = self._db.rows("SELECT * FROM run WHERE id = ?", run)
        return _record(row)

    def asked(self, run: str) -> list[Asked]:
        """The committed asks of a run, in order."""
        labels, values = self.evaluations(run)
        asks = self._db.rows("SELECT first, n, digest FROM ask WHERE run = ? ORDER BY first", run)
        return [Asked(first, d, labels[first : first + n], values[first : first + n]) for first, n, d in asks]

    def evaluations(self, run: str) -> tuple[LabelVectors, NDArray[np.float64]]:
        """(n, N) label vectors and (n,) taskness of a run so far, those of a race among them."""
        n_images = self.record(run).settings.n
        rows = self._db.rows("SELECT labels, taskness FROM evaluation WHERE run = ? ORDER BY evaluation", run)
        return unpack_labels([row[0] for row in rows], n_images), np.array([row[1] for row in rows], dtype=np.float64)

    def told(self, run: str) -> tuple[LabelVectors, NDArray[np.float64]]:
        """(n, N) label vectors and (n,) taskness that the run's searcher was told; those of a race it was not."""
        searched = self.record(run).settings.search_budget
        labels, taskness = self.evaluations(run)
        return labels[:searched], taskness[:searched]

    def evaluated(self, run: str) -> int:
        """How many evaluations of a run are committed."""
        return int(self._db.rows("SELECT COUNT(*) FROM evaluation WHERE run = ?", run)[0][0])

    def append(self, asked: list[tuple[str, Asked]], seconds: dict[str, float]) -> None:
        """Commit evaluated asks of any number of runs, and the seconds each has taken so far, all or nothing."""
        with self._db.transaction() as db:
            for run, ask in asked:
                db.execute("INSERT INTO ask VALUES (?, ?, ?, ?)", (run, ask.first, len(ask.labels), ask.digest))
                db.executemany(
                    "INSERT INTO evaluation VALUES (?, ?, ?, ?)",
                    [
                        (run, ask.first + i, blob, float(value))
                        for i, (blob, value) in enumerate(zip(pack_labels(ask.labels), ask.taskness, strict=True))
                    ],
                )
            db.executemany("UPDATE run SET seconds = ? WHERE id = ?", [(s, run) for run, s in seconds.items()])

    def finish(
        self,
        run: str,
        status: str,
        error: str,
        seconds: float,
        row: dict[str, Any],
        recommended: dict[float, LabelVectors] | None = None,
    ) -> None:
        """End a run: its status, its leaderboard row, and its (N,) recommendations by share of the budget."""
        with self._db.transaction() as db:
            db.executemany(
                "INSERT INTO recommendation VALUES (?, ?, ?)",
                [(run, share, pack_labels(y[None])[0]) for share, y in (recommended or {}).items()],
            )
            db.execute(
                "UPDATE run SET status = ?, error = ?, seconds = ?, row = ? WHERE id = ?",
                (status, error, seconds, json.dumps(row), run),
            )

    def recommended(self, run: str) -> dict[float, LabelVectors]:
        """Share of the budget -> (N,) label vector that an ended run recommended after it; 1.0 is its result."""
        n_images = self.record(run).settings.n
        rows = self._db.rows("SELECT share, labels FROM recommendation WHERE run = ? ORDER BY share", run)
        return {share: unpack_labels([blob], n_images)[0] for share, blob in rows}

    def confirmed(self, space: str, engine: str, labels: LabelVectors, replicates: int) -> NDArray[np.float64] | None:
        """(replicates,) taskness of an (N,) label vector on the space's confirmation, where it is known."""
        rows = self._db.rows(
            "SELECT taskness FROM confirmation WHERE space = ? AND engine = ? AND labels = ? AND replicates = ?",
            space,
            engine,
            pack_labels(labels[None])[0],
            replicates,
        )
        return np.frombuffer(rows[0][0], dtype=np.float64) if rows else None

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


def pack_labels(labels: LabelVectors) -> list[bytes]:
    """One packed blob per row of (n, N) label vectors."""
    return [row.tobytes() for row in np.packbits(labels, axis=1)]


def unpack_labels(blobs: list[bytes], n_images: int) -> LabelVectors:
    """(n, N) label vectors from their blobs."""
    packed = np.frombuffer(b"".join(blobs), dtype=np.uint8).reshape(len(blobs), -(-n_images // 8))
    return np.unpackbits(packed, axis=1, count=n_images)


def _class_dtype(classes: int) -> str:
    return "u1" if classes <= 256 else "<u4"


def _record(row: tuple[Any, ...]) -> RunRecord:
    values = list(row)
    values[4] = RunSettings.from_recorded(json.loads(values[4]))
    values[13] = None if values[13] is None else json.loads(values[13])
    return RunRecord(*values)
