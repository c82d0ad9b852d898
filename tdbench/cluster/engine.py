"""`ClusterEngine`: an engine whose trainings take place on the workers of a cluster."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.cluster.member import Work
from tdbench.cluster.pieces import Call
from tdbench.cluster.pool import Pool
from tdbench.cluster.remote import Description, Kind
from tdbench.cluster.spec import Cluster
from tdbench.engine import Trained, TrainingBatch
from tdbench.engine.engine import check_stop
from tdbench.engine.protocol import TrainingProtocol

_WAKE_SECONDS = 0.2  # between two looks at `stop`
_MUCH_WAITED = 0.1  # share of the workers' time from which the end line says what to raise


class ClusterEngine:
    """Trains as its workers' engine does, to the bit. Several threads may call it at a time.

    Attributes:
        name, device, detail: of the workers' engine.
        hardware: of the workers.
        best_batch: trainings that give every worker a piece of about a second.
        calls_at_once: calls that should be under way, so that workers need not wait for the end of one.
    """

    calls_at_once = 3

    def __init__(self, cluster: Cluster, name: str, device: str, threads: int | None) -> None:
        """Connects, and waits for workers.

        Raises:
            UserError: as `Pool`.
        """
        self._arguments = (cluster, name, device, threads or 1)
        self._opening = threading.Lock()
        self._pool: Pool | None = Pool(*self._arguments)
        kind = self._pool.kind
        assert kind is not None  # a pool that is open has one
        self._kind: Kind = kind
        self.name, self.device, self.detail = kind.engine, kind.device, kind.detail
        self.hardware = _joined(self._pool.descriptions())
        self.best_batch = self._pool.best_batch(None)

    def curves(
        self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        """See `Engine.curves`. Raises UserError where the cluster is lost, or a piece of the batch again and again."""
        return self._run(batch, protocol, stop, False).curves

    def train(self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None = None) -> Trained:
        """See `Engine.train`. Raises UserError as `curves` does."""
        call = self._run(batch, protocol, stop, True)
        return Trained(call.curves, call.weights)

    def take_work(self) -> list[Work]:
        """What each worker has done since this was last asked."""
        return self._pool.take_work() if self._pool is not None else []

    def summary(self) -> str:
        """How busy the workers were, in one line, and what to raise where they waited for much of the time."""
        pool = self._pool
        if pool is None or not pool.present:
            return ""
        share, workers = pool.waited / pool.present, len(pool.descriptions())
        line = f"cluster: {workers} workers waited {100 * share:.0f} % of their time for something to train"
        if share > _MUCH_WAITED:
            line += "; raise --workers (searchers alive at a time), or run more seeds side by side"
        return line

    def close(self) -> None:
        """End the connection, and the workers that this process has started. A later call connects anew."""
        with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _run(
        self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None, weights_wanted: bool
    ) -> Call:
        call = Call(batch, tuple(map(_digest, batch.images)), protocol, weights_wanted)
        if not len(batch):
            return call
        pool = self._opened()
        pool.submit(call)
        try:
            while not call.over.wait(_WAKE_SECONDS):
                check_stop(stop)
                pool.check()
        except BaseException:
            call.fail(UserError("stopped"))
            pool.drop(call)
            raise
        if call.error is not None:
            raise call.error
        self.best_batch = pool.best_batch(call.work)
        return call

    def _opened(self) -> Pool:
        with self._opening:
            if self._pool is None:
                pool = Pool(*self._arguments)
                if pool.kind != self._kind:
                    pool.close()
                    raise UserError(f"the cluster's workers were {self._kind}, and are {pool.kind} now")
                self._pool = pool
            return self._pool


def _digest(image_set: NDArray[np.float32]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image_set).data).digest()


def _joined(workers: list[Description]) -> str:
    """The hardware of all workers in one cell."""
    counts = Counter(worker.hardware for worker in workers)
    return "; ".join(sorted(counts))
