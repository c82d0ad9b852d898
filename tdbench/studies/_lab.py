"""Lab: what a study works with. It trains in large batches and remembers every curve, so a second call goes on."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tdbench.base.database import Database
from tdbench.engine import Engine, make_engine
from tdbench.searchers.registry import Plugins, load_plugins
from tdbench.settings import Options
from tdbench.space.image_set import Request, score, train
from tdbench.space.sources import Source, load_source
from tdbench.store.confirmations import tag_of

MEMORY = "studies.sqlite"
_BATCHES = 4  # fillings of the engine between two commits: seconds of work, on a CPU


@dataclass(frozen=True)
class Findings:
    """What a study ends with.

    Attributes:
        table: one row per point of the figure, and what else belongs to it; becomes the CSV.
        figure: axes with units, intervals drawn.
        paragraph: what was found and how sure that is, made from the numbers of this very call.
    """

    table: pd.DataFrame
    figure: Figure
    paragraph: str


class Lab:
    """Trains for a study and remembers the results in its folder.

    Attributes:
        folder: where the study's files go.
        engine: what trains.
        options: where data is found, threads and plugins, for studies that make runs.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        """Nothing is written before something is trained."""
        self.folder, self.engine, self.options = options.folder, engine, options
        self._memory = _Memory(options.folder / MEMORY)
        self._sources: dict[str, Source] = {}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not options.progress,
            speed_estimate_period=120,
        )

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._memory.close()

    def source(self, data: str) -> Source:
        """The source of that name or path, read once."""
        if data not in self._sources:
            self._sources[data] = load_source(data, self.options.data_dir, self.options.download)
        return self._sources[data]

    def curves(self, requests: Sequence[Request], what: str = "trainings") -> list[NDArray[np.float32]]:
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
                rows = [_row(requests[i], j) for i, j in part]
                trained = train(rows, self.engine)
                self._memory.add([(keys[i][j], curves) for (i, j), curves in zip(part, trained, strict=True)])
                advance(trainings)
        return [
            np.stack([self._memory.get(key) for key in row]).reshape(*r.seeds.shape, r.image_set.protocol.steps)
            for r, row in zip(requests, keys, strict=True)
        ]

    def taskness(self, requests: Sequence[Request], what: str = "trainings") -> list[NDArray[np.float64]]:
        """(n, k) taskness for each request."""
        return [score(r, c, self.engine) for r, c in zip(requests, self.curves(requests, what), strict=True)]

    def remembered(self, key: str, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """The array that `compute` gave for this key when it was first asked for, in this call or an earlier one.

        The key must name everything that the array depends on.
        """
        digest = hashlib.sha256(key.encode()).digest()
        if not self._memory.knows(digest):
            self._memory.add([(digest, np.asarray(compute(), dtype=np.float64))])
        return self._memory.get(digest)

    def run_options(self, folder: str) -> Options:
        """Options for runs of a study: they go to this subfolder, and go on where they stopped."""
        return replace(self.options, out=self.folder / folder, resume=True, threshold=None)

    def plugins(self) -> Plugins:
        """Searchers and reductions for these runs. Raises UserError where one of the options' plugins fails."""
        return load_plugins(self.options.plugins, extra_must_load=True)

    @property
    def engine_words(self) -> tuple[str, str]:
        """Engine and device as a run asks for them: ``auto`` where that gives the lab's."""
        if self.engine is make_engine(threads=self.options.threads):
            return "auto", "auto"
        return self.engine.name, self.engine.device

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar for so many pieces of work; yields what to call when some are done."""
        if not total:
            yield lambda done: None
            return
        self._bars.start()
        task: TaskID = self._bars.add_task(what, total=total)
        try:
            yield lambda done: self._bars.advance(task, done)
        finally:
            self._bars.stop()
            self._bars.remove_task(task)


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
    return replace(request, labels=request.labels[j : j + 1], seeds=request.seeds[j : j + 1])


def _keys(request: Request, engine: Engine) -> list[bytes]:
    """For each label vector a digest of all that its curves depend on."""
    common = hashlib.sha256(request.image_set.fingerprint)
    common.update(f"{asdict(request.image_set.protocol)} {tag_of(engine)}".encode())
    keys = []
    for labels, seeds in zip(request.labels, request.seeds, strict=True):
        digest = common.copy()
        digest.update(np.packbits(labels).tobytes())
        digest.update(np.ascontiguousarray(seeds).tobytes())
        keys.append(digest.digest())
    return keys
