"""What an engine is asked to train: `TrainingBatch`, plain arrays that have been checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdbench.engine.networks import IMAGE_SHAPE, N_PARAMETERS, initial_weights


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B independent trainings on S image sets of N images each. Make it with `checked`.

    Attributes:
        images: (S, N, 3, 32, 32) float32 standardized images.
        image_set: (B,) which of the S image sets a training uses.
        labels: (B, N) uint8 classes 0 or 1.
        train_mask: (B, N) True for the training side, at least one image of each training. Where all are True, a
            training has no validation side, and its curve is NaN.
        seeds: (B,) uint64 seeds of the initial weights, or None.
        weights: (B, 61326) float32 initial weights in the flat layout of `networks.LAYERS`, 245 KB a training, or
            None. Exactly one of seeds and weights is given.
    """

    images: NDArray[np.float32]
    image_set: NDArray[np.intp]
    labels: NDArray[np.uint8]
    train_mask: NDArray[np.bool_]
    seeds: NDArray[np.uint64] | None = None
    weights: NDArray[np.float32] | None = None

    @classmethod
    def checked(
        cls,
        images: NDArray[np.float32],
        labels: NDArray[np.uint8],
        train_mask: NDArray[np.bool_],
        seeds: NDArray[np.uint64] | None = None,
        image_set: NDArray[np.intp] | None = None,
        *,
        weights: NDArray[np.float32] | None = None,
    ) -> TrainingBatch:
        """The batch of these arrays, of any number type; they are copied only where their type is another.

        Args:
            images: as above, or (N, 3, 32, 32) for one image set.
            labels, train_mask, seeds, weights: as above.
            image_set: all zero when left out.

        Raises:
            ValueError: shapes do not fit, a label is not 0 or 1, a training side is empty, an image set does not
                exist, or not exactly one of seeds and weights is given.
        """
        images = np.ascontiguousarray(images, dtype=np.float32)
        if images.ndim == 4:
            images = images[None]
        if images.ndim != 5 or images.shape[2:] != IMAGE_SHAPE:
            raise ValueError(f"expected images with shape (N, 3, 32, 32) or (S, N, 3, 32, 32), got {images.shape}")
        labels, train_mask = np.asarray(labels), np.asarray(train_mask, dtype=np.bool_)
        size, n = len(labels) if labels.ndim else 0, images.shape[1]
        if labels.shape != (size, n) or train_mask.shape != (size, n):
            raise ValueError(
                f"expected labels and train_mask with shape (B, N={n}), got {labels.shape} and {train_mask.shape}"
            )
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("labels must be 0 or 1")
        if not train_mask.any(axis=1).all():
            empty = int(np.argmin(train_mask.any(axis=1)))
            raise ValueError(f"each training needs an image on its training side, but training {empty} has none")
        if (seeds is None) == (weights is None):
            raise ValueError(f"expected either seeds or weights, got {'neither' if seeds is None else 'both'}")
        if seeds is not None:
            seeds = np.asarray(seeds, dtype=np.uint64)
            _check_shape("seeds", seeds, "B", (size,))
        if weights is not None:
            weights = np.ascontiguousarray(weights, dtype=np.float32)
            _check_shape("weights", weights, f"B, {N_PARAMETERS}", (size, N_PARAMETERS))
        image_set = np.zeros(size, dtype=np.intp) if image_set is None else np.asarray(image_set, dtype=np.intp)
        _check_shape("image_set", image_set, "B", (size,))
        if ((image_set < 0) | (image_set >= len(images))).any():
            raise ValueError(f"image_set must lie in 0..{len(images) - 1}")
        return cls(images, image_set, labels.astype(np.uint8, copy=False), train_mask, seeds, weights)

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, members: slice | NDArray[np.intp]) -> TrainingBatch:
        """Some of the trainings, on the same images."""
        return TrainingBatch(
            self.images,
            self.image_set[members],
            self.labels[members],
            self.train_mask[members],
            None if self.seeds is None else self.seeds[members],
            None if self.weights is None else self.weights[members],
        )

    def initial_weights(self, members: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """(b, 61326) the weights that these b of the trainings start from; ask for few at a time."""
        if self.weights is not None:
            return self.weights[members]
        assert self.seeds is not None  # as checked
        return initial_weights(self.seeds[members])


def _check_shape(name: str, array: NDArray[np.generic], words: str, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ValueError(f"expected {name} with shape ({words}) = {expected}, got {array.shape}")
