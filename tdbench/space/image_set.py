"""ImageSet: images with a number of positives and a protocol; what label vectors are scored on."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import number_array
from tdbench.base.errors import cut
from tdbench.engine.networks import IMAGE_SHAPE
from tdbench.engine.protocol import TrainingProtocol


class ImageSet:
    """What a label vector is scored on; a `TaskSpace` is one, and studies make others.

    Attributes:
        images: (N, 3, 32, 32) float32 as networks see them, read-only.
        n, n_positives: N and P.
        protocol: how networks are trained.
    """

    def __init__(self, images: NDArray[np.float32], n_positives: int, protocol: TrainingProtocol) -> None:
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
        array = number_array("labels", labels)
        if array.ndim != 2 or array.shape[1] != self.n:
            raise ValueError(f"expected label vectors with shape (B, N={self.n}), got {cut(str(array.shape), 80)}")
        if not np.isin(array, (0, 1)).all() or (array.sum(axis=1, dtype=np.int64) != self.n_positives).any():
            raise ValueError(f"a label vector has exactly P={self.n_positives} ones and otherwise zeros")
        return array.astype(np.uint8)


def standardize(pixels: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, C, H, W) float32 of (N, H, W, C), per channel of mean 0 and deviation 1 over the set; a constant one is 0."""
    channels = np.moveaxis(pixels, -1, 1).astype(np.float64)
    mean = channels.mean(axis=(0, 2, 3), keepdims=True)
    deviation = channels.std(axis=(0, 2, 3), keepdims=True)
    return np.ascontiguousarray((channels - mean) / np.where(deviation == 0, 1, deviation), dtype=np.float32)
