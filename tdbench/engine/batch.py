"""What an engine is asked to train: `TrainingBatch`, plain arrays that have been checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import wrong_shape
from tdbench.engine.networks import IMAGE_SHAPE, N_PARAMETERS, initial_weights


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B independent trainings on S image sets of N images each. Make it with `checked`.

    Attributes:
        images: (S, N, 3, 32, 32) float32 standardized images.
        image_set: (B,) which of the S image sets a training uses.
        labels: (B, N) uint8 classes 0 or 1.
        train_mask: (B, N) True on the training side, at least one image of each training. A training whose images are
            all on this side has no validation side, and its curve is NaN.
        seeds: (B,) uint64 seeds of the initial weights, or None.
        weights: (B, 61326) float32 initial weights in the flat layout of `networks.LAYERS`, 245 KB a training, or
            None. Exactly one of seeds and weights is given.
        frozen: True where both convolutions (weights and biases, the first 2,872 parameters) keep their initial values
            to the bit, and all other layers train as usual.
    """

    images: NDArray[np.float32]
    image_set: NDArray[np.intp]
    labels: NDArray[np.uint8]
    train_mask: NDArray[np.bool_]
    seeds: NDArray[np.uint64] | None = None
    weights: NDArray[np.float32] | None = None
    frozen: bool = False

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
        frozen: bool = False,
    ) -> TrainingBatch:
        """Make a batch of arrays of any number type. An array is copied only if its type or memory layout must change.

        Args:
            images: as above, or (N, 3, 32, 32) for one image set.
            labels, train_mask, seeds, weights, frozen: as above.
            image_set: all zero by default.

        Raises:
            ValueError: shapes do not fit, a label is not 0 or 1, a training side is empty, an image set does not
                exist, or not exactly one of seeds and weights is given.
        """
        images = np.ascontiguousarray(images, dtype=np.float32)
        if images.ndim not in (4, 5) or images.shape[-3:] != IMAGE_SHAPE:
            leading = ("S", "N") if images.ndim == 5 else ("N",)
            raise ValueError(wrong_shape("images", (*leading, *IMAGE_SHAPE), images.shape))
        images = images[None] if images.ndim == 4 else images
        labels, train_mask = np.asarray(labels), np.asarray(train_mask, dtype=np.bool_)
        size, n = len(labels) if labels.ndim else 0, images.shape[1]
        if labels.shape != (size, n):
            raise ValueError(wrong_shape("labels", ("B", n), labels.shape))
        _check_shape("train_mask", train_mask, (size, n))
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("labels must be 0 or 1")
        if not train_mask.any(axis=1).all():
            empty = int(np.argmin(train_mask.any(axis=1)))
            raise ValueError(f"each training needs an image on its training side, but training {empty} has none")
        if (seeds is None) == (weights is None):
            raise ValueError(f"expected either seeds or weights, got {'neither' if seeds is None else 'both'}")
        if seeds is not None:
            seeds = np.asarray(seeds, dtype=np.uint64)
            _check_shape("seeds", seeds, (size,))
        if weights is not None:
            weights = np.ascontiguousarray(weights, dtype=np.float32)
            _check_shape("weights", weights, (size, N_PARAMETERS))
        image_set = np.zeros(size, dtype=np.intp) if image_set is None else np.asarray(image_set, dtype=np.intp)
        _check_shape("image_set", image_set, (size,))
        if ((image_set < 0) | (image_set >= len(images))).any():
            raise ValueError(f"image_set must lie in 0..{len(images) - 1}")
        return cls(images, image_set, labels.astype(np.uint8, copy=False), train_mask, seeds, weights, frozen)

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
            self.frozen,
        )

    def initial_weights(self, members: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """(b, 61326) initial weights of b of the trainings; ask for few at a time."""
        if self.weights is not None:
            return self.weights[members]
        assert self.seeds is not None  # as checked
        return initial_weights(self.seeds[members])


def _check_shape(name: str, array: NDArray[np.generic], expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ValueError(wrong_shape(name, expected, array.shape))
