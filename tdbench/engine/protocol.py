"""How one network is trained, and how its images are split. With the images, these settings define a taskness."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import real, set_fields, text, whole
from tdbench.base.errors import UserError
from tdbench.base.rng import Stream, permutation, split_key

SPLITS = ("stratified", "random")
VALIDATION_SHARE = 0.2
ROLLING_WINDOW = 5
MOST_LR = 1e30  # far above any use


@dataclass(frozen=True)
class TrainingProtocol:
    """Training protocol (definitions, section 4).

    Attributes:
        steps: full-batch Adam updates, at least 5 (the rolling window must fit in the curve).
        lr: learning rate of Adam, above 0.
        split: ``stratified`` (validation gets its share of the positives) or ``random``.
    """

    steps: int = 100
    lr: float = 1e-3
    split: str = "stratified"

    def __post_init__(self) -> None:
        # 1 and 1.0, or numpy's and Python's numbers, must give the same protocol and identity.
        set_fields(self, steps=whole("steps", self.steps), lr=real("lr", self.lr, "a positive number"))
        if self.steps < ROLLING_WINDOW:
            raise UserError(f"steps must be at least {ROLLING_WINDOW} (the rolling median's window), got {self.steps}")
        if self.lr > MOST_LR:
            raise UserError(f"lr must be at most {MOST_LR:g}, got {self.lr:g}")
        set_fields(self, split=text("split", self.split, SPLITS))


def validation_counts(n_images: int, n_positives: int) -> tuple[int, int]:
    """(positives, negatives) on the validation side of a stratified split (definitions, section 4, Split)."""
    positives = max(1, math.floor(VALIDATION_SHARE * n_positives + 0.5))
    return positives, validation_size(n_images) - positives


def validation_size(n_images: int) -> int:
    """Images on the validation side of any split."""
    return round(VALIDATION_SHARE * n_images)


def train_masks(labels: NDArray[np.uint8], seeds: NDArray[np.uint64], split: str) -> NDArray[np.bool_]:
    """(B, N) True on the training side, for (B, N) label vectors and (B,) replicate seeds.

    Images are put in a random order drawn from the seed. A stratified split takes the first positives and the first
    negatives of that order for validation, a random split its first images (definitions, section 4, Split).
    """
    labels = np.asarray(labels, dtype=np.uint8)
    n_images = labels.shape[1]
    order = permutation(n_images, Stream.SPLIT, split_key(seeds))
    if split == "random":
        validation = np.broadcast_to(np.arange(n_images) < validation_size(n_images), labels.shape)
    else:
        ordered = np.take_along_axis(labels, order, axis=1).astype(np.int64)
        positives, negatives = validation_counts(n_images, int(labels[0].sum()) if len(labels) else 0)
        earlier_positives = np.cumsum(ordered, axis=1) - ordered
        earlier_negatives = np.cumsum(1 - ordered, axis=1) - (1 - ordered)
        validation = np.where(ordered == 1, earlier_positives < positives, earlier_negatives < negatives)
    mask = np.empty(labels.shape, dtype=np.bool_)
    np.put_along_axis(mask, order, ~validation, axis=1)
    return mask
