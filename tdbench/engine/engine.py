"""Engines: labels, masks and seeds in, validation curves out. All compute the same function; `reference` defines it.

`make_engine` is the only place that chooses one, by a fixed rule and never by timing.
"""

from __future__ import annotations

import functools
import typing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError, nearest
from tdbench.engine.networks import IMAGE_SHAPE
from tdbench.engine.protocol import Protocol

ENGINES = ("native", "batched", "reference")
DEVICES = ("cpu", "cuda")


class Engine(typing.Protocol):
    """Trains many networks side by side.

    Attributes:
        name: ``reference``, ``batched`` or ``native``.
        device: ``cpu`` or ``cuda``.
        best_batch: trainings in one call that are enough to use the hardware well.
        detail: what else the result may depend on in its last bits (chunk, instruction set), for the record.
    """

    name: str
    device: str
    best_batch: int

    @property
    def detail(self) -> str: ...

    def __hash__(self) -> int: ...

    def curves(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.uint8],
        train_mask: NDArray[np.bool_],
        seeds: NDArray[np.uint64],
        protocol: Protocol,
        image_set: NDArray[np.intp] | None = None,
    ) -> NDArray[np.float32]:
        """(B, steps) validation losses before each update, of B independent trainings.

        A training's curve does not depend, to the bit, on what else is in the batch.

        Args:
            images: (N, 3, 32, 32) standardized images, or (S, N, 3, 32, 32) for S image sets.
            labels: (B, N) classes 0 or 1.
            train_mask: (B, N) True for the training side; both sides must be non-empty.
            seeds: (B,) 64-bit seeds of the initial weights.
            protocol: steps and learning rate (its split rule is already in the mask).
            image_set: (B,) which of the S image sets a training uses; all zero when left out.

        Raises:
            ValueError: shapes do not fit, a label is not 0 or 1, or a side of a split is empty.
        """
        ...


@dataclass(frozen=True)
class TrainingBatch:
    """The checked arguments of `Engine.curves`: S image sets of N images, B trainings."""

    images: NDArray[np.float32]  # (S, N, 3, 32, 32), C-contiguous
    image_set: NDArray[np.intp]  # (B,)
    labels: NDArray[np.uint8]  # (B, N)
    train_mask: NDArray[np.bool_]  # (B, N)
    seeds: NDArray[np.uint64]  # (B,)

    @classmethod
    def checked(
        cls,
        images: NDArray[np.float32],
        labels: NDArray[np.uint8],
        train_mask: NDArray[np.bool_],
        seeds: NDArray[np.uint64],
        image_set: NDArray[np.intp] | None = None,
    ) -> TrainingBatch:
        images = np.ascontiguousarray(images, dtype=np.float32)
        if images.ndim == 4:
            images = images[None]
        if images.ndim != 5 or images.shape[2:] != IMAGE_SHAPE:
            raise ValueError(f"expected images with shape (N, 3, 32, 32) or (S, N, 3, 32, 32), got {images.shape}")
        labels, train_mask = np.asarray(labels), np.asarray(train_mask, dtype=np.bool_)
        shape = (len(labels), images.shape[1])
        if labels.shape != shape or train_mask.shape != shape:
            raise ValueError(
                f"expected labels and train_mask with shape (B, N={shape[1]}), "
                f"got {labels.shape} and {train_mask.shape}"
            )
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("labels must be 0 or 1")
        n_train = train_mask.sum(axis=1)
        if (n_train == 0).any() or (n_train == shape[1]).any():
            raise ValueError("each training needs images on both sides of its split")
        seeds = np.asarray(seeds, dtype=np.uint64)
        image_set = np.zeros(len(labels), dtype=np.intp) if image_set is None else np.asarray(image_set, dtype=np.intp)
        if seeds.shape != shape[:1] or image_set.shape != shape[:1]:
            raise ValueError(f"expected (B={shape[0]},) seeds and image_set, got {seeds.shape} and {image_set.shape}")
        if ((image_set < 0) | (image_set >= len(images))).any():
            raise ValueError(f"image_set must lie in 0..{len(images) - 1}")
        return cls(images, image_set, labels.astype(np.uint8), train_mask, seeds)

    def __len__(self) -> int:
        return len(self.labels)


def make_engine(name: str = "auto", device: str = "auto", threads: int | None = None) -> Engine:
    """The engine of that name on that device, one object a process; ``auto`` is resolved by a fixed rule.

    device ``auto``: ``cuda`` where torch sees one, else ``cpu``. engine ``auto``: ``batched`` on CUDA; on a CPU
    ``native`` where its kernel is built and the processor can run it, else ``batched``.

    Args:
        threads: CPU threads; one per available core by default.

    Raises:
        UserError: unknown name, no CUDA device, or a native kernel that is not there.
    """
    if name not in ("auto", *ENGINES):
        raise UserError(f"unknown engine {name!r}{nearest(name, ('auto', *ENGINES))}")
    if device not in ("auto", *DEVICES):
        raise UserError(f"unknown device {device!r}{nearest(device, ('auto', *DEVICES))}")
    if device == "cuda" and not cuda_available():
        raise UserError("device cuda was asked for, but torch sees no CUDA device here; use --device cpu")
    if device == "auto":
        device = "cuda" if name != "native" and cuda_available() else "cpu"
    if name == "auto":
        from tdbench.engine import native

        name = "native" if device == "cpu" and native.unavailable() is None else "batched"
    if name == "native" and device != "cpu":
        raise UserError("engine native runs on the CPU; use --engine batched with --device cuda")
    return _engine(name, device, threads)


@functools.cache
def _engine(name: str, device: str, threads: int | None) -> Engine:
    if name == "native":
        from tdbench.engine.native import NativeEngine

        return NativeEngine(threads)
    if name == "batched":
        from tdbench.engine.batched import BatchedEngine

        return BatchedEngine(device, threads)
    from tdbench.engine.reference import ReferenceEngine

    return ReferenceEngine(device, threads)


def cuda_available() -> bool:
    """Whether torch sees a CUDA device; false without importing torch where the driver is plainly absent."""
    import os

    if os.name != "nt" and not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()
