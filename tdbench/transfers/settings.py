"""What a transfer experiment is: which sources and targets, how many of each, and how networks are trained."""

from __future__ import annotations

from dataclasses import dataclass

from tdbench.base.arguments import members, set_fields, text, whole
from tdbench.base.errors import UserError
from tdbench.engine.protocol import ROLLING_WINDOW
from tdbench.settings import MOST
from tdbench.space.settings import MOST_STEPS, check_seed, check_sizes

MODES = ("fine-tune", "frozen")
SHOTS = (2, 4)


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """Settings of a transfer (definitions, section 11).

    Attributes:
        modes: ``fine-tune`` trains all layers on the target, ``frozen`` keeps both convolutions.
        replicates: R, trainings of each pair of source and target; each has a pretrained network of its own.
        pretrain_steps: Adam steps on the source; as many as the source's space has by default.
        members: best members of the library that are sources by themselves; all by default.
        controls: random labelings, class tasks and pixel statistics that are sources, at most so many of each.
        extend: images beside the set to which as many of the best members are extended by votes; 0 leaves it out.
        sets: target sets of class tasks, disjoint from each other. Intervals are over sets.
        target_n, target_ratio: N and R of a target set.
        seed: draws the replicates and the first target set; the other sets follow.
        shots: numbers of positives on the training side that are tried besides all of them.

    Raises:
        UserError: a value of a wrong type or out of range.
    """

    modes: tuple[str, ...] = MODES
    replicates: int = 8
    pretrain_steps: int | None = None
    members: int | None = None
    controls: int = 4
    extend: int = 0
    sets: int = 4
    target_n: int = 50
    target_ratio: int = 4
    seed: int = 0
    shots: tuple[int, ...] = SHOTS

    def __post_init__(self) -> None:
        modes = (self.modes,) if isinstance(self.modes, str) else members("modes", self.modes)
        chosen = tuple(dict.fromkeys(text("mode", mode, MODES) for mode in modes))
        if not chosen:
            raise UserError(f"modes must have at least one of {', '.join(MODES)}")
        least = ROLLING_WINDOW
        set_fields(
            self,
            modes=chosen,
            replicates=whole("replicates", self.replicates, 1, MOST),
            pretrain_steps=None
            if self.pretrain_steps is None
            else whole("pretrain-steps", self.pretrain_steps, least, MOST_STEPS),
            members=None if self.members is None else whole("members", self.members, 1, MOST),
            controls=whole("controls", self.controls, 1, MOST),
            extend=whole("extend", self.extend, 0, MOST),
            sets=whole("sets", self.sets, 1, MOST),
            target_n=whole("target-n", self.target_n),
            target_ratio=whole("target-ratio", self.target_ratio),
            seed=check_seed("seed", self.seed),
            shots=tuple(sorted({whole("shots", k, 1, MOST) for k in members("shots", self.shots)})),
        )
        check_sizes(self.target_n, self.target_ratio)
        check_seed("seed + sets - 1", self.seed + self.sets - 1)
