"""The eight settings of a space, in one place. Everything that needs them takes a `SpaceSettings`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tdbench.base.arguments import path_text, set_fields, strings, text, whole
from tdbench.base.errors import UserError, cut, setting
from tdbench.base.rng import MAX_SEED
from tdbench.engine.protocol import SPLITS, TrainingProtocol

MOST_STEPS = 10**6  # far above any use


@dataclass(frozen=True, kw_only=True)
class SpaceSettings:
    """What an image set is drawn from, and how networks are trained on it (definitions, sections 2 and 4).

    Attributes:
        data: ``digits``, ``cifar10``, ``cifar100`` or the path of an `.npz` (a string or a path).
        classes: names of the ratio + 1 classes, class A first; if None, they are drawn.
        n: N, images.
        ratio: R, negatives per positive.
        space_seed: draws classes, images and their order.
        split: how images are split into training and validation, ``stratified`` or ``random``.
        steps: Adam updates of a training.
        lr: Adam's learning rate.

    Raises:
        UserError: a value of a wrong type or out of range, or sizes that do not fit each other. Whether the values fit
            the source is checked when the space is made.
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
        set_fields(
            self,
            data=path_text("data", self.data),
            classes=None if self.classes is None else strings("classes", self.classes),
            n=whole("n", self.n),
            ratio=whole("ratio", self.ratio),
            space_seed=check_seed(setting("space_seed"), self.space_seed),
            split=text("split", self.split, SPLITS),
            steps=whole("steps", self.steps, most=MOST_STEPS),
        )
        # 1 and 1.0 are one learning rate, and so one run.
        set_fields(self, lr=TrainingProtocol(self.steps, self.lr, self.split).lr)
        check_sizes(self.n, self.ratio)
        if self.classes is not None:
            check_classes(self.classes, self.ratio)

    @property
    def space(self) -> SpaceSettings:
        """These settings alone, without those that a subclass adds."""
        return SpaceSettings(**{name: getattr(self, name) for name in SPACE_COLUMNS})


# In the order of the columns of a leaderboard.
SPACE_COLUMNS = tuple(field.name for field in dataclasses.fields(SpaceSettings))


def check_seed(what: str, seed: object) -> int:
    """A seed from 0 to 2**32 - 1. Raises UserError for anything else."""
    number = whole(what, seed)
    if not 0 <= number <= MAX_SEED:
        raise UserError(f"{what} must be from 0 to {MAX_SEED}, got {number}")
    return number


def check_sizes(n: int, ratio: int) -> None:
    """Raises UserError if no image set of any source can have N images at that ratio."""
    if ratio < 1:
        raise UserError(f"ratio must be at least 1 negative per positive, got {ratio}")
    if n < 1:
        raise UserError(f"n must be a positive number of images, got {n}")
    group = ratio + 1
    if n % group:
        lower, upper = n // group * group, (n // group + 1) * group
        valid = f"{lower} or {upper}" if lower >= 2 * group else str(max(upper, 2 * group))
        raise UserError(f"n must be divisible by ratio + 1 = {group}, got {n}; the nearest valid n is {valid}")
    if n // group < 2:
        raise UserError(f"n = {n} at 1:{ratio} leaves one positive; the smallest valid n is {2 * group}")


def check_classes(classes: tuple[str, ...], ratio: int) -> None:
    """Raises UserError for anything but ratio + 1 different names."""
    wanted = ratio + 1
    if len(classes) != wanted or len(set(classes)) != wanted:
        raise UserError(f"expected ratio + 1 = {wanted} different classes, got {cut(', '.join(classes), 80)}")
