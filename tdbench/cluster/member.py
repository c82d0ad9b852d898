"""A worker as the coordinator sees it: what it is, what it has been sent, how fast it is, what it has done."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from tdbench.cluster.pieces import Part
from tdbench.cluster.remote import Description, Done

PIECE_SECONDS = 1.0  # that a piece should take
IN_FLIGHT = 2  # pieces that a worker has: one that trains, and one that waits
_MOST_WEIGHTS = 256  # trainings of a piece whose weights come back or go out: 63 MB
_MOST_FAILURES = 3  # in a row, before a worker gets nothing any more
_LATEST = 0.5  # weight of the latest piece in the mean speed


@dataclass(frozen=True)
class Work:
    """What a worker has done: trainings that came back, the seconds that they took there, pieces that it lost."""

    worker: str
    host: str
    engine: str
    trainings: int = 0
    seconds: float = 0.0
    pieces: int = 0
    lost: int = 0


@dataclass(eq=False)
class Sent:
    """A part that a worker has."""

    part: Part
    keys: set[bytes]
    future: Future[Done]


@dataclass(eq=False)
class Member:
    """One worker.

    Attributes:
        address: in the cluster.
        name: as it joined.
        since: when it joined, or began with the first of `sent` (`time.monotonic`).
        description: what it says that it is; None before it has.
        refused: why it gets nothing; empty where it does.
        sent: what it has, the oldest first.
        images: digests of the image sets that it has.
        work: what it has done since that was last asked.
    """

    address: str
    name: str
    since: float = field(default_factory=time.monotonic)
    describing: Future[Description] | None = None
    description: Description | None = None
    refused: str = ""
    sent: deque[Sent] = field(default_factory=deque)
    images: set[bytes] = field(default_factory=set)
    work: Work = field(default_factory=lambda: Work("", "", ""))
    _speed: float = 0.0  # images x steps x trainings per second
    _failures: int = 0

    @property
    def usable(self) -> bool:
        return self.description is not None and not self.refused

    @property
    def place(self) -> str:
        """Its name and host, for a message."""
        host = self.description.host if self.description else self.address
        return f"worker {self.name} on {host}"

    def accept(self, description: Description) -> None:
        self.description = description
        kind = description.kind
        self.work = Work(self.name, description.host, f"{kind.engine} {kind.device} {kind.detail}".strip())

    def trainings(self, work: int, with_weights: bool) -> int:
        """How many trainings of that work (images x steps) make a good piece for this worker."""
        assert self.description is not None  # of those that are usable
        best = self.description.best_batch
        size = round(PIECE_SECONDS * self._speed / work) if self._speed else best
        if self.description.kind.device == "cuda":
            size = max(size, best)  # fewer would leave much of a GPU idle
        return max(1, min(size, _MOST_WEIGHTS if with_weights else size))

    def came_back(self, sent: Sent, done: Done) -> None:
        """Count a piece, and learn from it."""
        trainings = len(sent.part)
        self.images |= sent.keys
        self._failures = 0
        speed = trainings * sent.part.call.work / max(done.seconds, 1e-6)
        self._speed = _LATEST * speed + (1 - _LATEST) * self._speed if self._speed else speed
        self.work = replace(
            self.work,
            trainings=self.work.trainings + trainings,
            seconds=self.work.seconds + done.seconds,
            pieces=self.work.pieces + 1,
        )

    def lost_one(self) -> bool:
        """Count a piece that did not come back; whether there were too many in a row."""
        self.work = replace(self.work, lost=self.work.lost + 1)
        self._failures += 1
        return self._failures >= _MOST_FAILURES

    def take_work(self) -> Work:
        """What it has done since this was last asked."""
        work = self.work
        self.work = Work(work.worker, work.host, work.engine)
        return work

    def forget(self, *futures: Future[Any] | None) -> None:
        """Nobody waits for it any more."""
        for future in (*futures, self.describing, *(sent.future for sent in self.sent)):
            if future is not None:
                future.cancel()
