"""Shards: a campaign in parts, for machines that do not know of each other. `tdbench.store.merge` joins their folders.

Which runs a shard has depends on nothing but the campaign and the shard's number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tdbench.base.errors import UserError, echo
from tdbench.settings import MOST, RunSettings


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a campaign; `number` is counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: object) -> Shard:
        """The shard that ``3/16`` names. Raises UserError for anything that names none."""
        found = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text.strip()) if isinstance(text, str) else None
        if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MOST:
            raise UserError(f"shard must be I/K with I from 1 to K, such as 3/16 for the third of 16, got {echo(text)}")
        return cls(int(found[1]), int(found[2]))

    def part(self, runs: Sequence[RunSettings]) -> list[RunSettings]:
        """The runs of this shard, in order. Every run of the campaign is in one shard.

        The runs of a space stay together where they can: they are put side by side, spaces in the order in which they
        come, and the sequence is cut into pieces that differ by one run at most.
        """
        places = {space: i for i, space in enumerate(dict.fromkeys(run.space for run in runs))}
        by_space = sorted(runs, key=lambda run: places[run.space])
        return [run for i, run in enumerate(by_space) if self.count * (2 * i + 1) // (2 * len(runs)) == self.number - 1]

    def line(self, part: Sequence[RunSettings], campaign: int) -> str:
        """Which runs of the campaign, of so many runs, the shard does."""
        name = f"shard {self.number}/{self.count}"
        if not part:
            return f"{name}: none of the {campaign} runs of the campaign; it has fewer runs than shards"
        runs = _named(part[0]) if len(part) == 1 else f"from {_named(part[0])} to {_named(part[-1])}"
        return f"{name}: {len(part)} of {campaign} runs, {runs}"


def first_of_spaces(runs: Sequence[RunSettings]) -> set[RunSettings]:
    """The first run on each space: the shard that has it confirms the reference tasks of the space."""
    return set({run.space: run for run in reversed(runs)}.values())


def _named(run: RunSettings) -> str:
    tasks = f", {run.tasks} tasks" if run.tasks else ""
    return (
        f"{run.full_name} with seed {run.seed}{tasks} on {run.data}, n={run.n}, ratio={run.ratio}, "
        f"space seed {run.space_seed}"
    )
