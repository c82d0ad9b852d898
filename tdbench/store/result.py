"""What came of one run, as `run` and `bench` give it back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tdbench.base.stats import Estimate
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import ReferenceScore
from tdbench.store.library import TaskLibrary
from tdbench.store.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture_path(out: Path, space_name: str, searcher: str, run: str) -> Path:
    """Where the picture of what a run found is kept."""
    return out / "pictures" / f"{space_name}-{_plain(searcher)}-{run}.png"


def library_path(out: Path, space_name: str, searcher: str, run: str) -> Path:
    """Where the library that a run discovered is kept; a readable CSV lies beside it."""
    return out / "libraries" / f"{space_name}-{_plain(searcher)}-{run}.npz"


def _plain(searcher: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", searcher).strip("-") or "searcher"


@dataclass(frozen=True, repr=False)
class Result:
    """What came of one run.

    Attributes:
        row: its leaderboard row.
        space: the space it searched.
        labels: (N,) the recommended labeling; None where the run failed.
        told: (n,) taskness told for each evaluation; those of a race were told to nobody and are not among them.
        references: confirmed scores of the space's reference tasks.
        leaderboard, log: the files the result is in.
        picture: the discovered task as a PNG; None where there is none.
        library: the labelings that a run with `tasks` discovered; None of an ordinary run, and where it failed.
        library_path: the file that has it.
        replaced: the leaderboard had a row of this run that differed in more than the time, and has this one now.
        was_finished: the run was finished before it was asked for, and this is the result that it had.
        threshold: T_task, where `run` was asked for one and the run went well. Its `n` is the number of random
            labelings it rests on, 0 where it was given.
    """

    row: Row
    space: TaskSpace
    labels: NDArray[np.uint8] | None
    told: NDArray[np.float64]
    references: tuple[ReferenceScore, ...]
    leaderboard: Path
    log: Path
    picture: Path | None
    threshold: Estimate | None = None
    replaced: bool = False
    was_finished: bool = False
    library: TaskLibrary | None = None
    library_path: Path | None = None

    def __repr__(self) -> str:
        row = self.row
        scores = f"told {row.told:.3f}, confirmed {row.confirmed:.3f} ± {row.confirmed_se:.3f}"
        found = scores if row.status == "ok" else f"{row.status} after {row.evaluations} evaluations"
        return f"Result({row.searcher} on {self.space.name}, seed {row.seed}: {found})"

    def _repr_html_(self) -> str:
        from tdbench.report.notebook import result_html

        return result_html(self)

    def plot(self) -> Figure:
        """A matplotlib figure of what was found, with its scores.

        Raises:
            UserError: the run has failed, and found nothing.
        """
        from tdbench.report.notebook import result_figure

        return result_figure(self)

    @property
    def confirmed(self) -> float:
        """Confirmed taskness of what was found; confirmed QD of a library; NaN where the run failed."""
        return self.row.confirmed

    @property
    def confirmed_se(self) -> float:
        """The standard error of `confirmed`."""
        return self.row.confirmed_se

    @property
    def is_task(self) -> bool | None:
        """Whether what was found counts as a task; None without a threshold."""
        return None if self.threshold is None else self.row.confirmed > self.threshold.value

    def reference(self, kind: str) -> list[ReferenceScore]:
        """The reference scores of that kind: class, pixel or random."""
        return [score for score in self.references if score.task.kind == kind]
