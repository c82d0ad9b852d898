"""How one network is trained: the settings that, with the images, decide what a taskness means."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tdbench.errors import UserError

SPLITS = ("stratified", "random")
VALIDATION_SHARE = 0.2
ROLLING_WINDOW = 5


@dataclass(frozen=True)
class Protocol:
    """Training protocol (SPEC section 4).

    Attributes:
        steps: full-batch Adam updates, at least 5 (the rolling window must fit in the curve).
        lr: learning rate of Adam, above 0.
        split: ``stratified`` (validation gets its share of the positives) or ``random``.
    """

    steps: int = 100
    lr: float = 1e-3
    split: str = "stratified"

    def __post_init__(self) -> None:
        if self.steps < ROLLING_WINDOW:
            raise UserError(f"steps must be at least {ROLLING_WINDOW} (the rolling median's window), got {self.steps}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"lr must be a positive number, got {self.lr}")
        if self.split not in SPLITS:
            raise UserError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")


def validation_counts(n_images: int, n_positives: int) -> tuple[int, int]:
    """(positives, negatives) on the validation side of a stratified split (SPEC section 4, Split)."""
    positives = max(1, math.floor(VALIDATION_SHARE * n_positives + 0.5))
    return positives, validation_size(n_images) - positives


def validation_size(n_images: int) -> int:
    """Images on the validation side of any split."""
    return round(VALIDATION_SHARE * n_images)
