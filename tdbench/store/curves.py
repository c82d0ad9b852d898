"""Trainings that are done once: every curve is kept in a SQLite file, so a second call goes on where one stopped."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.database import Database
from tdbench.base.progress import Counting
from tdbench.engine import Engine
from tdbench.space.evaluate import Evaluator
from tdbench.space.executor import Curves, LocalExecutor, Request, done, results
from tdbench.store.confirmations import tag_of

FILE_NAME = "studies.sqlite"
_BATCHES = 4  # fillings of the engine between two commits: seconds of work, on a CPU


class RememberedTrainings:
    """Trains requests and remembers their curves in a folder. Nothing is written before something is trained.

    Attributes:
        folder: where they are kept.
        engine: what trains.
        evaluator: scores requests, remembering what it trains too.
    """

    def __init__(self, folder: Path, engine: Engine, progress: bool = False) -> None:
        self.folder, self.engine = folder, engine
        self.evaluator = Evaluator(_Remembering(self))
        self._executor = LocalExecutor(engine)
        self._memory = _Memory(folder / FILE_NAME)
        self._progress = Counting(progress)

    def close(self) -> None:
        self._progress.stop()
        self._memory.close()

    def curves(self, requests: Sequence[Request], what: str = "trainings") -> list[Curves]:
        """(n, k, steps) validation curves for each request; only those that are not remembered are trained."""
        keys = [_keys(request, self.engine) for request in requests]
        missing = [(i, j) for i, row in enumerate(keys) for j, key in enumerate(row) if not self._memory.knows(key)]
        with self.counting(what, sum(requests[i].seeds.shape[1] for i, _ in missing)) as advance:
            while missing:
                part, trainings = [], 0
                while missing and trainings < _BATCHES * self.engine.best_batch:
                    i, j = missing.pop(0)
                    part.append((i, j))
                    trainings += requests[i].seeds.shape[1]
                trained = results(self._executor, self._executor.submit([_row(requests[i], j) for i, j in part]))
                self._memory.add([(keys[i][j], curves) for (i, j), curves in zip(part, trained, strict=True)])
                advance(trainings)
        return [
            np.stack([self._memory.get(key) for key in row]).reshape(*r.seeds.shape, r.image_set.protocol.steps)
            for r, row in zip(requests, keys, strict=True)
        ]

    def taskness(self, requests: Sequence[Request], what: str = "trainings") -> list[NDArray[np.float64]]:
        """(n, k) taskness for each request."""
        return self.evaluator.score(requests, self.curves(requests, what))

    def remembered(self, key: str, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """The array that `compute` gave for this key when it was first asked for, in this call or an earlier one.

        The key must name everything that the array depends on.
        """
        digest = hashlib.sha256(key.encode()).digest()
        if not self._memory.knows(digest):
            self._memory.add([(digest, np.asarray(compute(), dtype=np.float64))])
        return self._memory.get(digest)

    def knows(self, digest: bytes) -> bool:
        """Whether there is an array under this digest of all that it depends on."""
        return self._memory.knows(digest)

    def known(self, digest: bytes) -> NDArray[Any]:
        """The array that was kept under this digest."""
        return self._memory.get(digest)

    def keep(self, arrays: Sequence[tuple[bytes, NDArray[Any]]]) -> None:
        """Remember arrays, each under its digest."""
        self._memory.add(arrays)

    def counting(self, what: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """A progress bar for so many pieces of work; gives what to call when some are done."""
        return self._progress.counting(what, total)


class _Remembering:
    """The executor of an evaluator whose trainings are remembered: baselines, and what is asked of it directly."""

    def __init__(self, trainings: RememberedTrainings) -> None:
        self.engine, self.at_once = trainings.engine, 1
        self._trainings = trainings

    def submit(self, requests: Sequence[Request]) -> list[Future[Curves]]:
        return [done(curves) for curves in self._trainings.curves(requests, "baselines")]

    def cancel(self) -> None:
        """Nothing is under way between calls."""


class _Memory:
    """Arrays by digest, in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def _db(self) -> Database:
        db = Database(self._path, "the studies' memory")
        db.rows(
            "CREATE TABLE IF NOT EXISTS array (key BLOB PRIMARY KEY, dtype TEXT NOT NULL, shape TEXT NOT NULL, "
            "data BLOB NOT NULL) WITHOUT ROWID"
        )
        return db

    def knows(self, key: bytes) -> bool:
        return bool(self._db.rows("SELECT 1 FROM array WHERE key = ?", key))

    def get(self, key: bytes) -> NDArray[Any]:
        [(dtype, shape, data)] = self._db.rows("SELECT dtype, shape, data FROM array WHERE key = ?", key)
        return np.frombuffer(data, dtype=dtype).reshape([int(side) for side in shape.split()])

    def add(self, items: Sequence[tuple[bytes, NDArray[Any]]]) -> None:
        rows = [(k, a.dtype.str, " ".join(map(str, a.shape)), np.ascontiguousarray(a).tobytes()) for k, a in items]
        with self._db.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO array VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        if "_db" in self.__dict__:  # opened
            self._db.close()


def _row(request: Request, j: int) -> Request:
    k = request.seeds.shape[1]
    own = slice(j * k, (j + 1) * k)
    return replace(
        request,
        labels=request.labels[j : j + 1],
        seeds=request.seeds[j : j + 1],
        fixed_mask=None if request.fixed_mask is None else request.fixed_mask[own],
        weights=None if request.weights is None else request.weights[own],
    )


def _keys(request: Request, engine: Engine) -> list[bytes]:
    """For each label vector a digest of all that its curves depend on."""
    common = hashlib.sha256(request.image_set.fingerprint)
    common.update(f"{asdict(request.image_set.protocol)} {tag_of(engine)}".encode())
    keys = []
    for j, (labels, seeds) in enumerate(zip(request.labels, request.seeds, strict=True)):
        digest = common.copy()
        digest.update(np.packbits(labels).tobytes())
        digest.update(np.ascontiguousarray(seeds).tobytes())
        if request.fixed_mask is not None:
            digest.update(np.packbits(request.fixed_mask).tobytes())
        if request.weights is not None:
            weights = _row(request, j).weights
            digest.update(b"weights" + hashlib.sha256(np.asarray(weights, dtype=np.float32).tobytes()).digest())
        if request.frozen:
            digest.update(b"frozen")
        keys.append(digest.digest())
    return keys
