"""What a run found, in the few lines that `tdbench run` and `tdbench discover` print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tdbench.leaderboard.threshold import FALSE_POSITIVE_RATE, LABELINGS, SETS
from tdbench.store.library import TaskLibrary
from tdbench.store.result import Result
from tdbench.store.worth import quality, tasks_above

_SCORED = ("told", "confirmed", "confirmed_se")
_SHOWN = 12  # positives of a labeling that are listed
_KINDS = {"class": "class task", "pixel": "pixel statistic"}


def replaced_rows(results: Sequence[Result]) -> list[str]:
    """One line where rows of the leaderboards were replaced, as where the log of an earlier run was deleted."""
    replaced = [result for result in results if result.replaced]
    if not replaced:
        return []
    files = ", ".join(dict.fromkeys(str(result.leaderboard) for result in replaced))
    runs = ", ".join(result.row.run for result in replaced[:3]) + (", ..." if len(replaced) > 3 else "")
    return [f"{len(replaced)} row(s) of {files} differed from these results and were replaced: run {runs}"]


def run_summary(result: Result) -> list[str]:
    """The scores of a run beside those of the reference tasks, and the files that it wrote; one text for each line."""
    row = result.row
    if row.status == "ok":
        lines = [*_scores(result), *_references(result), *_task(result)]
    else:
        lines = [f"{row.searcher}: {row.status} after {row.evaluations} evaluations: {row.error}"]
    lines.append(f"leaderboard {result.leaderboard}")
    if result.picture:
        lines.append(f"picture     {result.picture}")
    return [*lines, f"log         {result.log}"]


def discovery_summary(result: Result) -> list[str]:
    """What a library is worth, its labelings, and the files; one text for each line."""
    row, library = result.row, result.library
    if library is None:
        lines = [f"{row.searcher}: {row.status} after {row.evaluations} evaluations: {row.error}"]
    else:
        lines = [*_worth(result, library), *_labelings(library)]
        lines.append(f"library     {result.library_path}")
    lines.append(f"leaderboard {result.leaderboard}")
    if result.picture:
        lines.append(f"picture     {result.picture}")
    return [*lines, f"log         {result.log}"]


def discovery_document(result: Result) -> dict[str, Any]:
    """What `tdbench discover --json` writes: confirmed and told QD, and each labeling, the best confirmed first."""
    library = result.library
    return {
        "confirmed_qd": _known(result.row.confirmed),
        "told_qd": _known(result.row.told),
        "tasks": []
        if library is None
        else [
            {
                "labels": record["labels"],
                **{name: _known(record[name]) for name in _SCORED},
            }
            for record in library.records()
        ],
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _worth(result: Result, library: TaskLibrary) -> Iterator[str]:
    row = result.row
    yield f"searcher    {row.searcher} on {result.space.name}, {row.tasks} tasks, {row.protocol}"
    yield f"told QD     {row.told:.3f}   mean of the {row.tasks} places, by what the searcher was told"
    yield f"confirmed QD {row.confirmed:.3f} +- {row.confirmed_se:.3f}   by {row.confirm} fresh replicates of each"
    yield f"optimism    {row.optimism:.3f}   told - confirmed"
    if row.error:
        yield f"done        {row.error}"
    if row.refused:
        yield f"refused     {row.refused} of {row.evaluations} proposals were too similar to what was found before"
    random = [reference.mean for reference in result.reference("random")]
    if random:
        floor = quality(random, len(random))
        yield f"random      {floor:.3f}   confirmed QD of {len(random)} random labelings: what noise alone gives"
    yield f"effective   {row.effective_number:.1f}   different labelings of {len(library)} (Vendi score)"
    of = len(result.space.reference_tasks)
    yield f"recalled    {row.recalled} of {of} reference tasks; chance would hit {row.recalled_by_chance:.2f}"
    if result.threshold is not None:
        above = tasks_above(library.confirmed, library.confirmed_se, row.confirm, result.threshold.value)
        yield f"tasks       {above} of {len(library)} are above T_task {result.threshold.value:.3f}, at 95 %"


def _labelings(library: TaskLibrary) -> Iterator[str]:
    yield "            confirmed         told   positives"
    members = zip(library.labels, library.confirmed, library.confirmed_se, library.told, strict=True)
    for number, (labels, confirmed, se, told) in enumerate(members, 1):
        images = " ".join(map(str, np.flatnonzero(labels)[:_SHOWN])) + (" ..." if labels.sum() > _SHOWN else "")
        shown = "never" if math.isnan(told) else f"{told:.3f}"
        yield f"task {number:<6} {confirmed:6.3f} +- {se:.3f}  {shown:>6}   {images}"


def _scores(result: Result) -> Iterator[str]:
    row, told = result.row, len(result.told)
    yield f"searcher    {row.searcher} on {result.space.name}"
    yield f"told        {row.told:.3f}   the best the searcher was told in {told} evaluations"
    if row.evaluations > told:
        yield f"race        {row.evaluations - told} more evaluations chose among the leading candidates"
    yield f"confirmed   {row.confirmed:.3f} +- {row.confirmed_se:.3f}   over {row.confirm} fresh replicates"
    if row.sealed:
        yield f"sealed      {row.sealed}   seal of the key that drew these replicates"
    if row.never_evaluated:
        yield "unseen      the labeling that is recommended was never evaluated in the run"
    yield f"optimism    {row.optimism:.3f}   told - confirmed"
    if row.error:
        yield f"done        {row.error}"


def _references(result: Result) -> Iterator[str]:
    random = [reference.mean for reference in result.reference("random")]
    if random:
        mean = sum(random) / len(random)
        yield (
            f"random      {mean:.3f}   mean of {len(random)} random labelings ({min(random):.3f} to {max(random):.3f})"
        )
    known = sorted(result.reference("class") + result.reference("pixel"), key=lambda reference: -reference.mean)
    if known:
        best, kind = known[0], _KINDS[known[0].task.kind]
        yield f"reference   {best.mean:.3f} +- {best.se:.3f}   the best: {kind} '{best.task.name}'"
        better = sum(reference.mean > result.row.confirmed for reference in known)
        yield f"            {better} of {len(known)} reference tasks confirm higher than what was found"
    if not result.references:
        yield "reference   none confirmed; --references all adds them"


def _task(result: Result) -> Iterator[str]:
    t_task, confirmed = result.threshold, result.row.confirmed
    if t_task is None:
        return
    answer = f"{'yes' if result.is_task else 'no'}: {confirmed:.3f} is {'' if result.is_task else 'not '}above T_task"
    if t_task.n == 0:
        yield f"task?       {answer} {t_task.value:.3f}, as given"
        return
    close = ", but within its interval" if t_task.low <= confirmed <= t_task.high else ""
    interval = f" [{t_task.low:.3f}, {t_task.high:.3f}]" if t_task.has_interval else ""
    yield f"task?       {answer} {t_task.value:.3f}{interval}{close}"
    yield (
        f"            {100 * FALSE_POSITIVE_RATE:g} % of {t_task.n} random labelings exceed it, {LABELINGS} of each of "
        f"{SETS} image sets: {t_task.n * result.row.confirm} trainings, kept in {result.log.parent}"
    )
