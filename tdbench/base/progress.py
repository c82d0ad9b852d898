"""Progress bars on standard error, for runs and for other work that is counted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars


class Progress:
    """A bar each for evaluations, for the trainings of confirmations, and for those of reference tasks.

    Nothing is drawn unless `shown`.
    """

    def __init__(self, evaluations: int, shown: bool) -> None:
        self._best, self._found = -math.inf, 0
        self._labelings = [0, 0]  # done and expected, of the extra line
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[note]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
            speed_estimate_period=120,
        )
        self._evaluations = self._bars.add_task("evaluations", total=evaluations, rate="", note="")
        self._extra = self._extra_line("confirmations")

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def announce(self, text: str) -> None:
        """A line above the bars."""
        if not self._bars.disable:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, evaluations: int, best_told: float) -> None:
        """Count evaluations that have been told."""
        self._best = max(self._best, best_told)
        found = f", {self._found} tasks" if self._found else ""
        self._bars.update(self._evaluations, advance=evaluations, note=f"best told {self._best:.3f}{found}")
        speed = self._bars.tasks[0].speed
        if speed:
            self._bars.update(self._evaluations, rate=f"{speed:.1f}/s")

    def found(self, tasks: int) -> None:
        """Count labelings that runs have put into their libraries."""
        self._found += tasks

    def skip(self, evaluations: int) -> None:
        """Take evaluations that will not take place out of the total."""
        total = self._bars.tasks[0].total or 0
        self._bars.update(self._evaluations, total=total - evaluations)

    def reference_tasks(self) -> None:
        """From now on, extra trainings are those of reference tasks."""
        self._extra, self._labelings = self._extra_line("reference tasks"), [0, 0]

    def expect_extra(self, labelings: int, replicates: int) -> None:
        """Add labelings, to be confirmed or reference tasks, to what is to be trained."""
        self._labelings[1] += labelings
        total = self._bars.tasks[self._extra].total or 0
        self._bars.update(self._extra, total=total + labelings * replicates, visible=True, note=self._extra_note())

    def extra(self, replicates: int) -> None:
        """A labeling's replicates are trained."""
        self._labelings[0] += 1
        self._bars.update(self._extra, advance=replicates, note=self._extra_note())

    def _extra_note(self) -> str:
        return f"trainings, {self._labelings[0]}/{self._labelings[1]} tasks"

    def _extra_line(self, what: str) -> TaskID:
        return self._bars.add_task(what, total=0, rate="", note="trainings", visible=False)


class Counting:
    """A bar for one piece of work at a time. Nothing is drawn unless `shown`."""

    def __init__(self, shown: bool) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
            speed_estimate_period=120,
        )

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar that counts up to `total`. Yields the function to call with the number of pieces that are done."""
        if not total:
            yield lambda done: None
            return
        self._bars.start()
        bar = self._bars.add_task(what, total=total)
        try:
            yield lambda done: self._bars.advance(bar, done)
        finally:
            self._bars.stop()
            self._bars.remove_task(bar)

    def stop(self) -> None:
        if self._bars.live.is_started:  # else it would print an empty line
            self._bars.stop()
