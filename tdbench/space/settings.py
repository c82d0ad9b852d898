"""The eight settings of a space, in one place. Everything that needs them takes a `SpaceSettings`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tdbench.base.arguments import check_most, check_strings, make_whole
from tdbench.base.errors import UserError
from tdbench.base.rng import MAX_SEED

MOST_STEPS = 10**6  # far above any use


@dataclass(frozen=True, kw_only=True)
class SpaceSettings:
    """What an image set is drawn from, and how networks are trained on it (definitions, sections 2 and 4).

    Attributes:
        data: ``digits``, ``cifar10``, ``cifar100`` or the path of an `.npz`.
        classes: names of the ratio + 1 classes, class A first; if None, they are drawn.
        n: N, images.
        ratio: R, negatives per positive.
        space_seed: draws classes, images and their order.
        split: how images are split into training and validation, ``stratified`` or ``random``.
        steps: Adam updates of a training.
        lr: Adam's learning rate.

    Raises:
        UserError: a value of a wrong type, or a seed or a number of steps out of range. Whether the values fit the
            source is checked when the space is made.
    """

    data: str = "digits"
    classes: tuple[str, ...] | None = None
    n: int = 50
    ratio: int = 4
    space_seed: int = 0
    split: str = "stratified"
    steps: int = 100
    lr: float = 1e-3

    def __post_init__(self) -> None:
        make_whole(self, "n", "ratio", "space_seed", "steps")
        check_strings(self, "data", "split")
        if self.classes is not None and not (
            isinstance(self.classes, tuple) and all(isinstance(name, str) for name in self.classes)
        ):
            raise UserError(f"classes must be names of classes, got {self.classes!r}")
        check_most(self, steps=MOST_STEPS)
        check_seed("space-seed", self.space_seed)

    @property
    def space(self) -> SpaceSettings:
        """These settings alone, without those that a subclass adds."""
        return SpaceSettings(**{name: getattr(self, name) for name in SPACE_COLUMNS})


# In the order of the columns of a leaderboard.
SPACE_COLUMNS = tuple(field.name for field in dataclasses.fields(SpaceSettings))


def check_seed(what: str, seed: int) -> None:
    """Raises UserError for a seed that is not in 0 to 2**32 - 1."""
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"{what} must be from 0 to {MAX_SEED}, got {seed}")
