"""ImageSet: images with a number of positives and a protocol, on which label vectors are scored by training."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.rng import Stream, replicate_seeds
from tdbench.engine import Engine, TrainingBatch
from tdbench.engine.networks import IMAGE_SHAPE
from tdbench.engine.protocol import Protocol, train_masks, validation_counts, validation_size
from tdbench.space.score import generalization_level, informed_baseline, taskness

BLIND_SEEDS = 8


class ImageSet:
    """What a label vector is scored on; a `TaskSpace` is one, and studies make others.

    Attributes:
        images: (N, 3, 32, 32) float32 as networks see them, read-only.
        n, n_positives: N and P.
        protocol: how networks are trained.
    """

    def __init__(self, images: NDArray[np.float32], n_positives: int, protocol: Protocol) -> None:
        """Raises ValueError where images have another shape, or P does not leave both labels in training."""
        images = np.array(images, dtype=np.float32, order="C")
        if images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE:
            raise ValueError(f"expected images with shape (N, 3, 32, 32), got {images.shape}")
        if not 2 <= n_positives <= len(images) - 2:
            raise ValueError(f"expected 2 to {len(images) - 2} positives of {len(images)} images, got {n_positives}")
        images.flags.writeable = False
        self.images = images
        self.n, self.n_positives = len(images), n_positives
        self.protocol = protocol

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """32 bytes that tell the images apart from any others."""
        return hashlib.sha256(self.images.tobytes()).digest()

    def checked_labels(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """(B, N) uint8 label vectors, or a ValueError that says what is wrong with them."""
        array = np.asarray(labels)
        if array.ndim != 2 or array.shape[1] != self.n:
            raise ValueError(f"expected label vectors with shape (B, N={self.n}), got {array.shape}")
        if not np.isin(array, (0, 1)).all() or (array.sum(axis=1) != self.n_positives).any():
            raise ValueError(f"a label vector has exactly P={self.n_positives} ones and otherwise zeros")
        return array.astype(np.uint8)

    def informed_baseline(self, validation_positives: int) -> float:
        """The statistically informed baseline, in nats, of splits with that many positives in validation."""
        return informed_baseline(self.n, self.n_positives, validation_size(self.n), validation_positives)

    def blind_baseline(self, engine: Engine, validation_positives: int) -> float:
        """The blind baseline, in nats, of splits with that many positives in validation.

        A blank image looks the same whatever its label, so the split matters only through its counts, and one value
        serves every split that shares them; it is computed once in a process.
        """
        shape = (self.n, self.n_positives, validation_positives)
        return _blind_baseline(engine, *shape, self.protocol.steps, self.protocol.lr)

    def baseline(self, engine: Engine, validation_positives: int) -> float:
        """b in nats for splits with that many positives in validation (definitions, section 4, Baseline)."""
        return (self.informed_baseline(validation_positives) + self.blind_baseline(engine, validation_positives)) / 2

    def baselines(
        self, engine: Engine, labels: NDArray[np.uint8], train_mask: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """(B,) baselines of trainings with these (B, N) labels and masks."""
        if self.protocol.split == "stratified":
            return np.full(len(labels), self.baseline(engine, validation_counts(self.n, self.n_positives)[0]))
        counts = (labels * ~train_mask).sum(axis=1)
        values = {int(count): self.baseline(engine, int(count)) for count in np.unique(counts)}
        return np.array([values[int(count)] for count in counts])


@dataclass(frozen=True)
class Request:
    """Label vectors to train: (n, N) labels, each once for each of its (n, k) replicate seeds."""

    image_set: ImageSet
    labels: NDArray[np.uint8]
    seeds: NDArray[np.uint64]

    def trainings(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint64]]:
        """(n k, N) labels, (n k, N) train masks and (n k,) seeds, one for each training."""
        labels, seeds = np.repeat(self.labels, self.seeds.shape[1], axis=0), self.seeds.ravel()
        return labels, train_masks(labels, seeds, self.image_set.protocol.split), seeds


def train(requests: Sequence[Request], engine: Engine) -> list[NDArray[np.float32]]:
    """(n, k, steps) validation curves for each request. Image sets of one size and protocol train in one batch."""
    results = [np.empty((*r.seeds.shape, r.image_set.protocol.steps), dtype=np.float32) for r in requests]
    groups: dict[tuple[int, int, float], list[int]] = {}
    for i, request in enumerate(requests):
        if request.seeds.size:
            protocol = request.image_set.protocol
            groups.setdefault((request.image_set.n, protocol.steps, protocol.lr), []).append(i)
    for members in groups.values():
        image_sets = list({requests[i].image_set.fingerprint: requests[i].image_set for i in members}.values())
        position = {image_set.fingerprint: s for s, image_set in enumerate(image_sets)}
        trainings = [requests[i].trainings() for i in members]
        which = [position[requests[i].image_set.fingerprint] for i in members]
        batch = TrainingBatch.checked(
            np.stack([image_set.images for image_set in image_sets]),
            np.concatenate([labels for labels, _, _ in trainings]),
            np.concatenate([masks for _, masks, _ in trainings]),
            np.concatenate([seeds for _, _, seeds in trainings]),
            np.repeat(which, [len(seeds) for _, _, seeds in trainings]),
        )
        curves = engine.curves(batch, image_sets[0].protocol)
        ends = np.cumsum([len(seeds) for _, _, seeds in trainings])[:-1]
        for i, part in zip(members, np.split(curves, ends), strict=True):
            results[i][...] = part.reshape(results[i].shape)
    return results


def score(request: Request, curves: NDArray[np.float32], engine: Engine) -> NDArray[np.float64]:
    """(n, k) taskness of a request's (n, k, steps) curves; the engine trains the blind baseline where it is new."""
    if not request.seeds.size:
        return np.empty(request.seeds.shape)
    labels, masks, _ = request.trainings()
    level = generalization_level(curves.reshape(len(labels), -1))
    baselines = request.image_set.baselines(engine, labels, masks)
    return taskness(level, baselines).reshape(request.seeds.shape)


def evaluate(requests: Sequence[Request], engine: Engine) -> list[NDArray[np.float64]]:
    """(n, k) taskness for each request."""
    return [score(r, curves, engine) for r, curves in zip(requests, train(requests, engine), strict=True)]


def standardize(pixels: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, C, H, W) float32 of (N, H, W, C), per channel of mean 0 and deviation 1 over the set; a constant one is 0."""
    channels = np.moveaxis(pixels, -1, 1).astype(np.float64)
    mean = channels.mean(axis=(0, 2, 3), keepdims=True)
    deviation = channels.std(axis=(0, 2, 3), keepdims=True)
    return np.ascontiguousarray((channels - mean) / np.where(deviation == 0, 1, deviation), dtype=np.float32)


@functools.lru_cache(maxsize=4096)
def _blind_baseline(
    engine: Engine, n: int, n_positives: int, validation_positives: int, steps: int, lr: float
) -> float:
    labels = np.zeros((BLIND_SEEDS, n), dtype=np.uint8)
    labels[:, :n_positives] = 1
    mask = np.ones((BLIND_SEEDS, n), dtype=np.bool_)
    mask[:, :validation_positives] = False
    mask[:, n_positives : n_positives + validation_size(n) - validation_positives] = False
    blank = np.zeros((n, *IMAGE_SHAPE), dtype=np.float32)
    seeds = replicate_seeds(Stream.BLIND, 0, 0, [0], BLIND_SEEDS)[0]
    batch = TrainingBatch.checked(blank, labels, mask, seeds)
    return float(generalization_level(engine.curves(batch, Protocol(steps, lr))).mean())
