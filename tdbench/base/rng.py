"""Counter-based random numbers: Philox4x32-10, one definition for numpy, torch and the native kernel.

A number is a pure function of its key and counter. So a training draws the same weights and the same split in
every batch, on every device and in every engine, and no generator has to keep a state. All random numbers of
tdbench itself come from here; searchers have generators of their own.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)  # Salmon et al., SC 2011, section 4.3 and the Random123 sources
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF

MAX_SEED = _LOW  # space seeds and run seeds are 32-bit words of a key


class Stream(IntEnum):
    """The third counter word: draws for different purposes never share numbers."""

    WEIGHTS = 1  # initial weights of a training, keyed by its replicate seed
    SPLIT = 2  # train/validation order of a training, keyed by its replicate seed
    FRESH = 3  # replicate seeds of the evaluations of a run
    FROZEN = 4  # replicate seeds of a space in frozen mode
    CONFIRM = 5  # replicate seeds that no searcher ever sees
    BLIND = 6  # the fixed seeds of the blind baseline
    CLASSES = 7  # which classes an image set is made of
    IMAGES = 8  # which images of a class
    SHUFFLE = 9  # the order of an image set
    LABELINGS = 10  # random label vectors
    STUDY = 11  # replicate seeds of the studies
    TANGENT = 12  # initializations of the networks of a tangent kernel
    EXCHANGES = 13  # which images the study `ablation` exchanges
    FEATURES = 14  # weights of the random networks whose features replace pixels
    TRANSFER = 15  # replicate seeds of pretraining and of the trainings on targets


def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """Four 32-bit words per counter, as int64 arrays (numpy or torch) that broadcast against each other.

    Products wrap at 64 bits; only their low and high 32-bit halves are used, so signed arithmetic is exact.
    """
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIER[0], c2 * _MULTIPLIER[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _LOW) ^ c1 ^ k0, p1 & _LOW, ((p0 >> 32) & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def split_key(seeds: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The low and high 32-bit words of 64-bit seeds, as the two key words."""
    seeds = np.asarray(seeds, dtype=np.uint64)
    return (seeds & np.uint64(_LOW)).astype(np.int64), (seeds >> np.uint64(32)).astype(np.int64)


def words(n: int, stream: Stream, key: tuple[Any, Any], lane: int = 0) -> NDArray[np.int64]:
    """(..., n) 32-bit words of a stream for key words of shape (...); word i is part i % 4 of block i // 4."""
    k0, k1 = (np.asarray(k, dtype=np.int64)[..., None] for k in key)
    blocks = np.arange(-(-n // 4), dtype=np.int64)
    zero = np.zeros(1, dtype=np.int64)
    parts = philox(blocks, zero + lane, zero + int(stream), zero, k0, k1)
    return np.stack(np.broadcast_arrays(*parts), axis=-1).reshape(*k0.shape[:-1], 4 * len(blocks))[..., :n]


def permutation(n: int, stream: Stream, key: tuple[Any, Any], lane: int = 0) -> NDArray[np.int64]:
    """(..., n) random orders of 0..n-1, one for each key."""
    return np.argsort(words(n, stream, key, lane), axis=-1, kind="stable")


def replicate_seeds(
    stream: Stream, space_seed: int, run_seed: int, evaluations: Any, replicates: int
) -> NDArray[np.uint64]:
    """(n, replicates) 64-bit seeds for n evaluation indices, by (space seed, run seed, evaluation, replicate)."""
    evaluation = np.asarray(evaluations, dtype=np.int64).reshape(-1, 1)
    replicate = np.arange(replicates, dtype=np.int64).reshape(1, -1)
    key = (np.full((1, 1), space_seed, dtype=np.int64), np.full((1, 1), run_seed, dtype=np.int64))
    zero = np.zeros((1, 1), dtype=np.int64)
    low, high, _, _ = philox(evaluation, replicate, zero + int(stream), zero, *key)
    seeds: NDArray[np.uint64] = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
    return seeds


def random_labelings(count: int, n_images: int, n_positives: int, seed: int, lane: int = 0) -> NDArray[np.uint8]:
    """(count, n_images) uniform label vectors with exactly n_positives ones each."""
    keys = (np.full(count, seed, dtype=np.int64), np.arange(count, dtype=np.int64))
    order = permutation(n_images, Stream.LABELINGS, keys, lane)
    labels = np.zeros((count, n_images), dtype=np.uint8)
    np.put_along_axis(labels, order[:, :n_positives], 1, axis=1)
    return labels
