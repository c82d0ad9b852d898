"""Engines: a `TrainingBatch` in, validation curves and weights out. All compute what `reference` defines.

`make_engine` is the only place that chooses one, by a fixed rule and never by timing.
"""

from __future__ import annotations

import functools
import sys
import threading
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import text
from tdbench.base.errors import UserError, nearest
from tdbench.engine.batch import TrainingBatch
from tdbench.engine.networks import N_PARAMETERS
from tdbench.engine.protocol import TrainingProtocol

ENGINES = ("native", "cuda", "batched", "reference")
DEVICES = ("cpu", "cuda")


class Stopped(Exception):
    """An engine ended early, because its argument `stop` was set. The trainings of that call are lost."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The results of B trainings.

    Attributes:
        curves: (B, steps) float32 validation losses before each update, in nats; NaN without a validation side.
        weights: (B, 61326) float32 weights after the last update, in the flat layout of `networks.LAYERS`.
    """

    curves: NDArray[np.float32]
    weights: NDArray[np.float32]


class Engine(typing.Protocol):
    """Trains many networks side by side. A run uses nothing of an engine but the members below.

    All engines compute what `reference` computes, up to rounding: each network of a batch starts from its weights (or
    from those that its seed draws, `networks.initial_weights`) and takes `protocol.steps` full-batch steps of Adam on
    the mean cross-entropy of its training side. In a `frozen` batch both convolutions stay as they are. Two promises
    hold to the bit, on one machine, device and `detail`:

    - a training's result does not depend on what else is in the batch, nor on its place in it;
    - `curves` and `train` give the same curves, and a batch with ``weights=initial_weights(seeds)`` the same as one
      with these seeds.

    Any thread may call an engine, but only one at a time. An engine may assume that `TrainingBatch.checked` made the
    batch. It does not change the arrays of the batch, and keeps none of them.

    Attributes:
        name: ``reference``, ``batched``, ``native`` or ``cuda``.
        device: ``cpu`` or ``cuda``.
        best_batch: a number of trainings in one call that uses the hardware well.
        detail: what else may change the last bits of a result (chunk, instruction set); recorded with each result.
    """

    name: str
    device: str
    best_batch: int

    @property
    def detail(self) -> str: ...

    def __hash__(self) -> int: ...

    def curves(
        self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        """(B, steps) validation losses before each update, in nats; NaN for a training without a validation side.

        Args:
            batch: B trainings.
            protocol: steps and learning rate (its split rule is already in the masks).
            stop: another thread may set it to end the call early. The networks in training then end after their
                current step.

        Raises:
            Stopped: `stop` was set before the last training ended.
            MemoryError: not even one network fits.
        """
        ...

    def train(self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None = None) -> Trained:
        """The same curves, and the weights after the last update.

        The weights take 245 KB a training (1 GB for B = 4,096), so ask for large numbers in parts. An engine holds a
        second copy only of the networks in training.

        To continue from these weights is a new training: Adam starts again, without the moments of the first.

        Raises:
            Stopped, MemoryError: as `curves` does.
        """
        ...


class TrainsOnce(ABC):
    """`curves` and `train` of an engine that has one way to train, `_run`."""

    def curves(
        self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        """See `Engine.curves`."""
        return self._run(batch, protocol, stop, None)

    def train(self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None = None) -> Trained:
        """See `Engine.train`."""
        weights = np.empty((len(batch), N_PARAMETERS), dtype=np.float32)
        return Trained(self._run(batch, protocol, stop, weights), weights)

    @abstractmethod
    def _run(
        self,
        batch: TrainingBatch,
        protocol: TrainingProtocol,
        stop: threading.Event | None,
        weights: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        """(B, steps) curves; the last weights are written into the (B, 61326) `weights` where they are wanted."""


def check_stop(stop: threading.Event | None) -> None:
    """For engines: raises Stopped if `stop` is set."""
    if stop is not None and stop.is_set():
        raise Stopped("the training was stopped")


def make_engine(name: str = "auto", device: str = "auto", threads: int | None = None) -> Engine:
    """The engine of that name on that device, one object per process; ``auto`` is resolved by a fixed rule.

    device ``auto``: ``cuda`` if torch sees a CUDA device, else ``cpu``. engine ``auto``: on a CPU ``native`` if its
    kernel is built and the processor can run it, on CUDA ``cuda`` if its kernel compiles there and agrees with
    ``reference``, else ``batched``; a line on stderr then says why.

    Args:
        threads: CPU threads; one per available core by default.

    Raises:
        UserError: unknown name, no CUDA device, or no kernel for an engine that is asked for by name.
    """
    check_engine(name, device)
    if "cuda" in (name, device) and device != "cpu" and not cuda_available():
        asked = "device cuda" if device == "cuda" else "engine cuda"
        raise UserError(f"{asked} was asked for, but torch sees no CUDA device here; use --device cpu")
    if device == "auto":
        device = "cuda" if name != "native" and cuda_available() else "cpu"
    if name == "auto":
        name = _best_engine(device)
    if name == "native" and device != "cpu":
        raise UserError("engine native runs on the CPU; use --engine cuda with --device cuda")
    if name == "cuda" and device != "cuda":
        raise UserError("engine cuda runs on a GPU; use --engine native with --device cpu")
    return _engine(name, device, threads)


def _best_engine(device: str) -> str:
    from tdbench.engine import cuda, native

    if device == "cpu":
        if (reason := native.unavailable()) is None:
            return "native"
        _say_once(f"engine batched is used instead of native, which is about 9 times faster: {reason}")
        return "batched"
    reason = cuda.unavailable()
    if reason is None:
        return "cuda"
    _say_once(f"engine batched is used on this GPU instead of cuda, which is faster: {reason}")
    return "batched"


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def check_engine(name: str, device: str) -> None:
    """Raises UserError for names that no engine and no device has, without making one."""
    if text("engine", name) not in ("auto", *ENGINES):
        raise UserError(f"unknown engine {name!r}{nearest(name, ('auto', *ENGINES))}")
    if text("device", device) not in ("auto", *DEVICES):
        raise UserError(f"unknown device {device!r}{nearest(device, ('auto', *DEVICES))}")


@functools.cache
def _engine(name: str, device: str, threads: int | None) -> Engine:
    if name == "native":
        from tdbench.engine.native import NativeEngine

        return NativeEngine(threads)
    if name == "cuda":
        from tdbench.engine.cuda import the_engine

        return the_engine()
    if name == "batched":
        from tdbench.engine.batched import BatchedEngine

        return BatchedEngine(device, threads)
    from tdbench.engine.reference import ReferenceEngine

    return ReferenceEngine(device, threads)


def cuda_available() -> bool:
    """Whether torch sees a CUDA device. If no driver is installed, the answer is False and torch is not imported."""
    import os

    if os.name != "nt" and not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()
