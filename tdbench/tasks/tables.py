"""Task libraries as tables for people, and as plain values for programs: what `tdbench tasks` prints."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tdbench.base.stats import Estimate
from tdbench.base.table import Table, number
from tdbench.leaderboard.tables import with_interval
from tdbench.space.references import ReferenceTask
from tdbench.space.similarity import overlap
from tdbench.store import worth
from tdbench.store.library import TaskLibrary
from tdbench.tasks.extend import Extension

Record = dict[str, Any]
Named = Sequence[tuple[str, TaskLibrary]]  # what each library is called, and the library
_FEW_POSITIVES, _FEW_CLASSES = 12, 4  # more would not fit in a line; the files have them all


# --- one library


def worth_record(library: TaskLibrary, threshold: float | None = None) -> Record:
    """What a library is worth (definitions, section 10). Numbers are not rounded; NaN where nothing was told."""
    qd = quality_estimate(library)
    told_qd = math.nan if np.isnan(library.told).all() else library.told_qd
    recall = library.recall()
    record = {
        "confirmed_qd": qd.value,
        "confirmed_qd_se": library.confirmed_qd_se,
        "confirmed_qd_low": qd.low,
        "confirmed_qd_high": qd.high,
        "told_qd": told_qd,
        "optimism": told_qd - qd.value,
        "members": len(library),
        "k": library.tasks,
        "max_similarity": library.max_similarity,
        "effective_number": library.effective_number,
        "recalled": recall.recalled,
        "recalled_by_chance": recall.expected,
        "reference_tasks": len(recall.names),
    }
    if threshold is not None:
        above = worth.tasks_above(library.confirmed, library.confirmed_se, library.confirm, threshold)
        record |= {"threshold": threshold, "above_threshold": above}
    return record


def quality_estimate(library: TaskLibrary) -> Estimate:
    """Confirmed QD with its 95 % interval over the confirmation's replicates."""
    value, se = library.confirmed_qd, library.confirmed_qd_se
    low, high = worth.confirmed_interval([value], [se], library.confirm)
    return Estimate(value, float(low[0]), float(high[0]), library.confirm)


def library_table(name: str, library: TaskLibrary, extension: Extension | None, threshold: float | None) -> Table:
    """A line for each member, and notes that say what the library is worth."""
    s = library.settings
    low, high = worth.confirmed_interval(library.confirmed, library.confirmed_se, library.confirm)
    known = nearest_known(library)
    rows = []
    for i in range(len(library)):
        estimate = Estimate(float(library.confirmed[i]), float(low[i]), float(high[i]), library.confirm)
        agreement = () if extension is None else _extended_cells(extension, i)
        rows.append(
            (
                *(str(i + 1), with_interval(estimate), number(float(library.told[i]))),
                *(str(library.evaluations[i]), library.searchers[i], library.runs[i], known[i]),
                *agreement,
                _positives(library, i),
            )
        )
    extended = () if extension is None else ("agreement [95%]", "most positive unseen")
    columns = ("task", "confirmed [95%]", "told", "evaluations", "searcher", "run", "nearest known task", *extended)
    text = (4, 5, 6, *((8, 9) if extended else (7,)))
    title = f"{name}: {len(library)} of {library.tasks} tasks on {s.data}, N = {s.n}, 1:{s.ratio}, seed {s.space_seed}"
    return Table(title, (*columns, "positives"), tuple(rows), tuple(_notes(library, threshold)), text)


def library_document(
    name: str, library: TaskLibrary, extension: Extension | None = None, threshold: float | None = None
) -> Record:
    """Everything about a library: what it is worth, its space, and each task."""
    s = library.settings
    space = {"space": library.space, "data": s.data, "classes": list(s.classes or ()), "n": s.n, "ratio": s.ratio}
    protocol = {"space_seed": s.space_seed, "split": s.split, "steps": s.steps, "lr": s.lr}
    document = {"file": name, **space, **protocol, "engine": library.engine, "confirm": library.confirm}
    tasks = library.records()
    if extension is not None:
        tasks = [{**task, **record} for task, record in zip(tasks, extension.records(), strict=True)]
    return {**document, **worth_record(library, threshold), "tasks": tasks}


def member_records(libraries: Named) -> list[Record]:
    """A flat record for each member of each library; labels and positives are text."""
    return [
        {
            "file": name,
            "task": i + 1,
            **{key: value for key, value in record.items() if key != "labels"},
            "positives": "|".join(map(str, record["positives"])),
        }
        for name, library in libraries
        for i, record in enumerate(library.records())
    ]


def nearest_known(library: TaskLibrary) -> list[str]:
    """For each member the class or pixel statistic whose task shares the most positives, as ``brightest 9/10``."""
    if not library.references or not len(library):
        return [""] * len(library)
    shared = overlap(library.labels, np.stack([task.labels for task in library.references]))
    if library.rule.balanced:
        shared = np.maximum(shared, library.positives - shared)
    best = shared.argmax(axis=1)
    return [f"{library.references[r].name} {shared[i, r]}/{library.positives}" for i, r in enumerate(best.tolist())]


def _notes(library: TaskLibrary, threshold: float | None) -> list[str]:
    record = worth_record(library, threshold)
    notes = [
        f"confirmed QD {with_interval(quality_estimate(library))} over {library.confirm} replicates, "
        f"told QD {number(record['told_qd'])}, optimism {number(record['optimism'])}",
        f"effective number {number(record['effective_number'], 1)} of {len(library)}; "
        f"max-similarity {library.max_similarity:g}; confirmed by {library.engine}",
        _recalled(library),
    ]
    if threshold is not None:
        notes.append(f"tasks whose interval is above {threshold:g}: {record['above_threshold']}")
    return notes


def _recalled(library: TaskLibrary) -> str:
    recall = library.recall()
    found = [name for name, hit in zip(recall.names, recall.hits, strict=True) if hit]
    names = f": {', '.join(found)}" if found else ""
    by_chance = number(recall.expected, 2)
    return f"{len(found)} of {len(recall.names)} known tasks found again ({by_chance} by chance){names}"


def _positives(library: TaskLibrary, i: int) -> str:
    images = np.flatnonzero(library.labels[i]).tolist()
    more = f" and {len(images) - _FEW_POSITIVES} more" if len(images) > _FEW_POSITIVES else ""
    return " ".join(map(str, images[:_FEW_POSITIVES])) + more


# --- extended tasks


def extension_table(name: str, library: TaskLibrary, extension: Extension) -> Table:
    """For each task its agreement on unseen images and the classes at both ends."""
    rows = []
    for i in range(len(extension)):
        _, least = extension.composition(i)
        agreement, most = _extended_cells(extension, i)
        share = number(float(extension.share[i].mean()), 2)
        rows.append((str(i + 1), number(float(library.confirmed[i])), agreement, share, most, _classes(least)))
    columns = ("task", "confirmed", "agreement [95%]", "share of votes", "most positive", "least positive")
    note = f"{extension.networks} networks for each task, {len(extension.unseen)} unseen images"
    return Table(name, columns, tuple(rows), (note,), text=(4, 5))


def _extended_cells(extension: Extension, i: int) -> tuple[str, str]:
    value, low, high = extension.agreement[i].tolist()
    return with_interval(Estimate(value, low, high, extension.networks)), _classes(extension.composition(i)[0])


def _classes(end: Sequence[tuple[str, int]]) -> str:
    shown = [f"{name} {count}" for name, count in end[:_FEW_CLASSES]]
    return ", ".join([*shown, "..."] if len(end) > _FEW_CLASSES else shown)


# --- several libraries


def comparison_tables(libraries: Named) -> list[Table]:
    """Libraries side by side, and how many tasks of each are in each other one too."""
    rows = []
    for i, (name, library) in enumerate(libraries):
        record = worth_record(library)
        best = float(library.confirmed.max(initial=-np.inf))
        rows.append(
            (
                *(f"{i + 1}: {name}", with_interval(quality_estimate(library)), number(record["told_qd"])),
                *(number(record["optimism"]), str(library.tasks), str(len(library)), number(best)),
                *(number(record["effective_number"], 1), f"{library.max_similarity:g}"),
                f"{record['recalled']} of {record['reference_tasks']} ({number(record['recalled_by_chance'], 2)})",
            )
        )
    columns = (
        *("library", "confirmed QD [95%]", "told QD", "optimism", "K", "tasks", "best confirmed"),
        *("effective number", "max-similarity", "known tasks found (by chance)"),
    )
    tables = [Table("", columns, tuple(rows), tuple(_warnings(libraries)))]
    return [*tables, _shared_table(libraries)] if len(libraries) > 1 else tables


def comparison_records(libraries: Named) -> list[Record]:
    """A flat record for each library."""
    return [{"file": name, "space": library.space, **worth_record(library)} for name, library in libraries]


def comparison_document(libraries: Named) -> Record:
    """Records of the libraries, and for each pair how many tasks of one are in the other."""
    pairs = [
        {"of": a, "in": b, "shared": found, "by_chance": chance}
        for (a, first), (b, second) in itertools.permutations(libraries, 2)
        if (found_and_chance := shared_tasks(first, second)) is not None
        for found, chance in [found_and_chance]
    ]
    return {"libraries": comparison_records(libraries), "shared": pairs}


def shared_tasks(of: TaskLibrary, within: TaskLibrary) -> tuple[int, float] | None:
    """How many tasks of one library another one has found too, and how many random labelings would have.

    They are counted as reference tasks are (definitions, section 10, Recall). None for libraries of unlike spaces.
    """
    if of.space != within.space:
        return None
    recall = worth.recall(within.labels, [ReferenceTask("", "class", labels) for labels in of.labels])
    return recall.recalled, recall.expected


def _shared_table(libraries: Named) -> Table:
    rows = []
    for i, (_, library) in enumerate(libraries):
        cells = []
        for _, other in libraries:
            found = None if other is library else shared_tasks(library, other)
            cells.append("" if found is None else f"{found[0]} of {len(library)} ({number(found[1], 2)})")
        rows.append((str(i + 1), *cells))
    title = "Tasks of the row's library that the column's has found too (as many random labelings by chance)"
    return Table(title, ("", *(str(i + 1) for i in range(len(libraries)))), tuple(rows))


def _warnings(libraries: Named) -> list[str]:
    notes = []
    for what, values in (
        ("spaces", {library.space for _, library in libraries}),
        ("numbers of places K", {library.tasks for _, library in libraries}),
        ("numbers of replicates", {library.confirm for _, library in libraries}),
        ("engines or seals", {library.engine for _, library in libraries}),
    ):
        if len(values) > 1:
            notes.append(f"warning: these libraries have different {what}, so their QD cannot be compared directly")
    return notes
