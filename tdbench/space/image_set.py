"""ImageSet: images, a number of positives and a training protocol. Label vectors are scored on it."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import number_array
from tdbench.base.errors import wrong_shape
from tdbench.engine.networks import IMAGE_SHAPE
from tdbench.engine.protocol import TrainingProtocol


class ImageSet:
    """What label vectors are scored on. A `TaskSpace` is an image set, and studies make others.

    Attributes:
        images: (N, 3, 32, 32) float32 as networks see them, read-only.
        n, n_positives: N and P.
        protocol: how networks are trained.
    """

    def __init__(self, images: NDArray[np.float32], n_positives: int, protocol: TrainingProtocol) -> None:
        """Raises ValueError if images have another shape, or there are fewer than 2 positives or 2 negatives."""
        images = np.array(images, dtype=np.float32, order="C")
        if images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE:
            raise ValueError(wrong_shape("images", ("N", *IMAGE_SHAPE), images.shape))
        if not 2 <= n_positives <= len(images) - 2:
            raise ValueError(f"expected 2 to {len(images) - 2} positives of {len(images)} images, got {n_positives}")
        images.flags.writeable = False
        self.images = images
        self.n, self.n_positives = len(images), n_positives
        self.protocol = protocol

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """32 bytes that no other images have: a SHA-256."""
        return hashlib.sha256(self.images.tobytes()).digest()

    def checked_labels(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """(B, N) uint8 label vectors. Raises ValueError, with the reason, if they are not label vectors of this set."""
        array = number_array("labels", labels)
        if array.ndim != 2 or array.shape[1] != self.n:
            raise ValueError(wrong_shape("label vectors", ("B", self.n), array.shape))
        if not np.isin(array, (0, 1)).all() or (array.sum(axis=1, dtype=np.int64) != self.n_positives).any():
            raise ValueError(f"expected label vectors with exactly P={self.n_positives} ones and otherwise zeros")
        return array.astype(np.uint8)


def standardize(
    pixels: NDArray[np.integer] | NDArray[np.floating],
    over: NDArray[np.integer] | NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """(M, C, H, W) float32 from (M, H, W, C) pixels.

    Over the set, each channel has mean 0 and standard deviation 1; a channel that is constant in it becomes 0.

    Args:
        over: (N, H, W, C) the set whose means and deviations are used; `pixels` themselves by default.
    """
    channels = np.moveaxis(pixels, -1, 1).astype(np.float64)
    reference = channels if over is None else np.moveaxis(over, -1, 1).astype(np.float64)
    mean = reference.mean(axis=(0, 2, 3), keepdims=True)
    deviation = reference.std(axis=(0, 2, 3), keepdims=True)
    return np.ascontiguousarray((channels - mean) / np.where(deviation == 0, np.inf, deviation), dtype=np.float32)
