"""Progress on standard error, for runs and other work that is counted: bars, or lines where there is no terminal."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

LINE_SECONDS = 30.0  # between two lines where there is no terminal


class Bars(RichProgress):
    """Bars on a terminal. Elsewhere, such as in the log of a job in the background, a plain line now and then."""

    def __init__(self, *columns: Any, **settings: Any) -> None:
        super().__init__(*columns, console=Console(stderr=True), speed_estimate_period=120, **settings)
        self._line_due = time.monotonic() + LINE_SECONDS

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._line(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._line(task_id)

    def _line(self, task_id: TaskID) -> None:
        if self.disable or self.console.is_terminal or time.monotonic() < self._line_due:
            return
        self._line_due = time.monotonic() + LINE_SECONDS
        task = next(task for task in self.tasks if task.id == task_id)
        parts = [f"{task.description} {task.completed:.0f} of {task.total or 0:.0f}"]
        parts += [str(task.fields[name]) for name in ("rate", "note") if task.fields.get(name)]
        if task.time_remaining is not None:
            parts.append(f"{task.time_remaining:.0f} s left")
        self.console.print(", ".join(parts), markup=False, highlight=False, soft_wrap=True)


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
            disable=not shown,
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
            disable=not shown,
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
