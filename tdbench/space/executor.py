"""Where trainings take place: an executor takes requests and gives back futures of their validation curves.

It stands between the engines and the code that needs curves (a space, the arena, a study). The position of a request
decides which result it gets, never the order in which results arrive. Where several machines train, they are an engine
(`tdbench.cluster`), and so nothing that trains knows of them.
"""

from __future__ import annotations

import threading
import typing
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.rng import Stream, replicate_seeds
from tdbench.engine import Engine, Trained, TrainingBatch
from tdbench.engine.protocol import train_masks
from tdbench.space.image_set import ImageSet

Curves = NDArray[np.float32]
WAKE_SECONDS = 0.2  # a signal that arrives just before a wait begins does not end it, so waits are short


@dataclass(frozen=True)
class Request:
    """Label vectors to train.

    Attributes:
        image_set: the images that they label, and how networks are trained on them.
        labels: (n, N) label vectors; each is trained once for each of its replicates.
        seeds: (n, k) replicate seeds.
        fixed_mask: (n k, N) True on the training side. If None, each replicate's seed draws its split. A training whose
            images are all on the training side has a curve of NaN.
        weights: (n k, 61326) float32 initial weights. If None, each replicate's seed draws them.
        frozen: whether the convolutions keep their initial weights.
    """

    image_set: ImageSet
    labels: NDArray[np.uint8]
    seeds: NDArray[np.uint64]
    fixed_mask: NDArray[np.bool_] | None = None
    weights: NDArray[np.float32] | None = None
    frozen: bool = False

    @property
    def trainings(self) -> int:
        return self.seeds.size

    @cached_property
    def training_labels(self) -> NDArray[np.uint8]:
        """(n k, N) labels, one row for each training."""
        return np.repeat(self.labels, self.seeds.shape[1], axis=0)

    @cached_property
    def train_mask(self) -> NDArray[np.bool_]:
        """(n k, N) True on the training side."""
        if self.fixed_mask is not None:
            return self.fixed_mask
        return train_masks(self.training_labels, self.seeds.ravel(), self.image_set.protocol.split)

    @cached_property
    def validation_positives(self) -> NDArray[np.int64]:
        """(n k,) positives on the validation side of each training."""
        counts: NDArray[np.int64] = (self.training_labels * ~self.train_mask).sum(axis=1, dtype=np.int64)
        return counts


def study_request(image_set: ImageSet, labels: NDArray[Any], set_seed: int, replicates: int) -> Request:
    """A request for (n, N) label vectors, all on the study's replicates of that set seed, which no search ever saw."""
    seeds = replicate_seeds(Stream.STUDY, set_seed, 0, [0], replicates)
    return Request(image_set, image_set.checked_labels(labels), np.repeat(seeds, len(labels), axis=0))


class Executor(typing.Protocol):
    """Trains requests somewhere.

    Attributes:
        engine: the engine that trains; its name, device and detail are recorded with every result.
    """

    @property
    def engine(self) -> Engine: ...

    @property
    def at_once(self) -> int:
        """How many submissions should be under way, so that the engine is never without work."""
        ...

    def submit(self, requests: Sequence[Request]) -> list[Future[Curves]]:
        """The future of the (n, k, steps) curves of each request. Requests given together train together."""
        ...

    def cancel(self) -> None:
        """Cancel all requests that are not done. Returns when no training runs any more."""
        ...


class LocalExecutor:
    """Trains on one engine, in a thread of its own: one batch after another, or as many at a time as the engine takes.

    An engine takes one call at a time, unless it has the attribute `calls_at_once` (that of a cluster).
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.at_once: int = getattr(engine, "calls_at_once", 1)
        self._start()

    def submit(self, requests: Sequence[Request]) -> list[Future[Curves]]:
        futures: list[Future[Curves]] = [Future() for _ in requests]
        job = self._thread.submit(self._train, list(requests), futures, self._stop)
        job.add_done_callback(lambda job: [future.cancel() for future in futures] if job.cancelled() else None)
        return futures

    def cancel(self) -> None:
        self._stop.set()
        self._thread.shutdown(cancel_futures=True)
        self._start()

    def _start(self) -> None:
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(self.at_once, "tdbench-train")

    def _train(self, requests: list[Request], futures: list[Future[Curves]], stop: threading.Event) -> None:
        for future in futures:
            future.set_running_or_notify_cancel()
        try:
            all_curves = train(requests, self.engine, stop)
        except BaseException as error:  # any error is passed on to those who wait for the futures
            for future in futures:
                future.set_exception(error)
            return
        for future, curves in zip(futures, all_curves, strict=True):
            future.set_result(curves)


def results(executor: Executor, futures: Sequence[Future[Curves]]) -> list[Curves]:
    """Wait for all curves. Raises the error of a training that failed; Ctrl-C cancels all trainings of the executor."""
    try:
        while wait(futures, WAKE_SECONDS).not_done:
            pass
    except BaseException:
        executor.cancel()
        raise
    return [future.result() for future in futures]


def done(curves: Curves) -> Future[Curves]:
    """A future that holds these curves already."""
    future: Future[Curves] = Future()
    future.set_result(curves)
    return future


def train(requests: Sequence[Request], engine: Engine, stop: threading.Event | None = None) -> list[Curves]:
    """(n, k, steps) curves for each request.

    Requests train in one batch where they have the same N, steps and learning rate, are frozen or not, and either all
    bring initial weights or all draw them.
    """
    all_curves = [np.empty((*r.seeds.shape, r.image_set.protocol.steps), dtype=np.float32) for r in requests]
    groups: dict[tuple[int, int, float, bool, bool], list[int]] = {}
    for i, request in enumerate(requests):
        if request.trainings:
            protocol = request.image_set.protocol
            kind = (request.image_set.n, protocol.steps, protocol.lr, request.frozen, request.weights is None)
            groups.setdefault(kind, []).append(i)
    for members in groups.values():
        batch = _batch([requests[i] for i in members])
        curves = engine.curves(batch, requests[members[0]].image_set.protocol, stop)
        ends = np.cumsum([requests[i].trainings for i in members])[:-1]
        for i, part in zip(members, np.split(curves, ends), strict=True):
            all_curves[i][...] = part.reshape(all_curves[i].shape)
    return all_curves


def train_weights(request: Request, engine: Engine) -> Trained:
    """Curves and weights of the (n k) trainings of a request, in the order of `training_labels`. Ctrl-C ends it."""
    stop = threading.Event()
    with ThreadPoolExecutor(1, "tdbench-train") as thread:
        future = thread.submit(engine.train, _batch([request]), request.image_set.protocol, stop)
        try:
            while wait([future], WAKE_SECONDS).not_done:
                pass
        except BaseException:
            stop.set()
            raise
    return future.result()


def _batch(requests: Sequence[Request]) -> TrainingBatch:
    """One batch of the trainings of all requests, which are of one kind and whose image sets have the same size."""
    image_sets = list({request.image_set.fingerprint: request.image_set for request in requests}.values())
    position = {image_set.fingerprint: s for s, image_set in enumerate(image_sets)}
    weights = [request.weights for request in requests if request.weights is not None]
    which = [position[request.image_set.fingerprint] for request in requests]
    return TrainingBatch.checked(
        np.stack([image_set.images for image_set in image_sets]),
        np.concatenate([request.training_labels for request in requests]),
        np.concatenate([request.train_mask for request in requests]),
        None if weights else np.concatenate([request.seeds.ravel() for request in requests]),
        np.repeat(which, [request.trainings for request in requests]),
        weights=np.concatenate(weights) if weights else None,
        frozen=requests[0].frozen,
    )
