"""What runs in the process of a worker: its engine, what that is, and the training of pieces."""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from tdbench.base import environment
from tdbench.base.rng import Stream, replicate_seeds
from tdbench.engine import Engine, TrainingBatch, make_engine
from tdbench.engine.networks import IMAGE_SHAPE
from tdbench.engine.protocol import TrainingProtocol, train_masks

ENGINE_VARIABLE = "TDBENCH_WORKER_ENGINE"  # "NAME DEVICE THREADS", set by `tdbench worker`
_MOST_KEPT = 512 * 2**20  # bytes of image sets that a worker keeps
_PROBE_SECONDS, _PROBE_N, _PROBE_POSITIVES = 0.5, 50, 10

_training = threading.Lock()  # an engine takes one call at a time, and a Dask worker may have several threads
_image_sets: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()


@dataclass(frozen=True)
class Kind:
    """What all workers of a cluster must have in common, since the last bits of a result depend on it."""

    engine: str
    device: str
    detail: str
    torch: str
    tdbench: str

    def difference(self, other: Kind) -> str:
        """In which field another worker differs from this one, in words; empty where it does not."""
        for field in fields(self):
            own, theirs = getattr(self, field.name), getattr(other, field.name)
            if own != theirs:
                return f"its {field.name} is {theirs or 'none'}, expected {own or 'none'} as the other workers have"
        return ""


@dataclass(frozen=True)
class Description:
    """A worker: its kind, and what does not change a result.

    Attributes:
        name: of the worker, unique in its cluster.
        host: of its machine.
        hardware: of the device that trains.
        cores: that its process may run on.
        best_batch: of its engine.
    """

    kind: Kind
    name: str
    host: str
    hardware: str
    cores: int
    best_batch: int


@dataclass(frozen=True, eq=False)
class Piece:
    """Trainings that a worker does in one call.

    Attributes:
        batch: the trainings. Its images stay empty: image sets go to a worker once, and are kept there.
        image_keys: the digest of each image set that `image_set` of the batch counts.
        images: (N, 3, 32, 32) image sets by digest, those that the worker has not got yet.
        weights_wanted: whether the trained weights come back, too.
    """

    batch: TrainingBatch
    protocol: TrainingProtocol
    image_keys: tuple[bytes, ...]
    images: dict[bytes, NDArray[np.float32]]
    weights_wanted: bool


@dataclass(frozen=True, eq=False)
class Done:
    """What comes back of a piece; nothing but `missing` where the worker did not have its images.

    Attributes:
        curves: (n, steps).
        weights: (n, 61326) where they were wanted.
        seconds: that the training took.
    """

    curves: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None
    seconds: float = 0.0
    missing: bool = False


def worker_engine() -> Engine:
    """The engine of this worker: the one that `tdbench worker` was told, else the best one."""
    name, device, threads = os.environ.get(ENGINE_VARIABLE, "auto auto 0").split()
    return make_engine(name, device, int(threads) or _dask_threads())


def describe() -> Description:
    """This worker. Raises UserError where it cannot have the engine that it was told to have."""
    from distributed import get_worker

    engine = worker_engine()
    return Description(
        kind_of(engine),
        str(get_worker().name),
        socket.gethostname(),
        environment.hardware(engine.device),
        environment.available_cores(),
        engine.best_batch,
    )


def kind_of(engine: Engine) -> Kind:
    """The kind of a worker with that engine in this process."""
    versions = environment.version("torch"), environment.version("tdbench")
    return Kind(engine.name, engine.device, engine.detail, *versions)


def train_piece(piece: Piece) -> Done:
    """Train on this worker."""
    _keep(piece.images)
    if any(key not in _image_sets for key in piece.image_keys):
        return Done(missing=True)
    images = np.stack([_image_sets[key] for key in piece.image_keys])
    batch, engine = replace(piece.batch, images=images), worker_engine()
    with _training:
        start = time.perf_counter()
        if piece.weights_wanted:
            trained = engine.train(batch, piece.protocol)
            return Done(trained.curves, trained.weights, time.perf_counter() - start)
        return Done(engine.curves(batch, piece.protocol), None, time.perf_counter() - start)


def probe() -> float:
    """Trainings per second at N = 50 and 100 steps, from half a second of them."""
    engine, protocol = worker_engine(), TrainingProtocol()
    batch = _probe_batch(engine.best_batch)
    with _training:
        engine.curves(batch.part(slice(0, 1)), protocol)
        trained, start = 0, time.perf_counter()
        while time.perf_counter() - start < _PROBE_SECONDS:
            engine.curves(batch, protocol)
            trained += len(batch)
        return trained / (time.perf_counter() - start)


def _keep(images: dict[bytes, NDArray[np.float32]]) -> None:
    """Add image sets; those that were not added for longest go where there are too many."""
    for key, image_set in images.items():
        _image_sets[key] = image_set
        _image_sets.move_to_end(key)
    while len(_image_sets) > len(images) and sum(kept.nbytes for kept in _image_sets.values()) > _MOST_KEPT:
        _image_sets.popitem(last=False)


@functools.cache
def _dask_threads() -> int | None:
    try:
        from distributed import get_worker

        return int(get_worker().state.nthreads)
    except (ImportError, ValueError):
        return None


def _probe_batch(size: int) -> TrainingBatch:
    labels = np.tile((np.arange(_PROBE_N) < _PROBE_POSITIVES).astype(np.uint8), (size, 1))
    seeds = replicate_seeds(Stream.BLIND, 0, 0, [0], size)[0]
    images = np.zeros((_PROBE_N, *IMAGE_SHAPE), dtype=np.float32)
    return TrainingBatch.checked(images, labels, train_masks(labels, seeds, "stratified"), seeds)
