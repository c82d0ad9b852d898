"""The leaderboard row that a run ends as."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tdbench.arena.discovery import Discovery
from tdbench.arena.live_run import LiveRun
from tdbench.base import environment
from tdbench.space.score import standard_error
from tdbench.store.library import TaskLibrary
from tdbench.store.log import Member, Store
from tdbench.store.rows import CHECKPOINTS, COLUMNS, EACH, Row, checkpoint_column


def leaderboard_row(run: LiveRun, status: str, error: str, store: Store) -> Row:
    """The row of a run that has ended, well or not, with what the log has of its confirmation."""
    settings, engine = run.settings, run.space.engine
    labels, _, _ = run.history
    distinct = len(np.unique(labels, axis=0))
    of_the_run = {name: value for name, value in dataclasses.asdict(settings).items() if name in COLUMNS}
    found = _library(run, store, status) if isinstance(run, Discovery) else _recommendation(run, store, distinct)
    return Row(
        **{
            **of_the_run,
            **run.space.columns,
            **found,
            "searcher": settings.full_name,
            "searcher_version": run.record.searcher_version,
            "sees_images": run.registration.sees_images or run.reduction.registration.sees_images,
            "optimism": found["told"] - found["confirmed"],
            "distinct": distinct,
            "evaluations": run.evaluations,
            "seconds": round(run.seconds, 3),
            "status": status,
            "error": error,
            "engine": engine.name,
            "engine_detail": run.record.engine_detail,
            "device": engine.device,
            "hardware": getattr(engine, "hardware", None) or environment.hardware(engine.device),
            "versions": environment.versions(),
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": run.record.id,
        }
    )


def _recommendation(run: LiveRun, store: Store, distinct: int) -> dict[str, Any]:
    """What a run that recommends one labeling has found."""
    confirmed = {
        share: store.confirmed(run.space.identity, run.tag, labels, run.settings.confirm)
        for share, labels in run.recommended.items()
    }
    mean = {share: math.nan if values is None else float(values.mean()) for share, values in confirmed.items()}
    final = confirmed.get(1.0)
    labels, taskness, searched = run.history
    own = (labels[:searched] == run.recommended.get(1.0, np.full(run.space.n, -1))).all(axis=1)
    trained = distinct if run.settings.noise == "frozen" else len(labels)
    return {
        **{checkpoint_column(share): mean.get(share, math.nan) for share in CHECKPOINTS},
        "told": run.best_told,
        "recommended_told": float(taskness[:searched][own].mean()) if own.any() else math.nan,
        "confirmed_se": math.nan if final is None else standard_error(final),
        "trainings": trained * run.settings.replicates,
    }


def _library(run: Discovery, store: Store, status: str) -> dict[str, Any]:
    """What a run that discovers several labelings has found; without a library where it failed."""
    told = run.told
    trained = len(told.labels) if run.settings.noise == "frozen" else int(told.evaluations.sum())
    columns: dict[str, Any] = {
        **{checkpoint_column(share): math.nan for share in CHECKPOINTS},
        **{"told": math.nan, "recommended_told": math.nan, "confirmed_se": math.nan},
        "trainings": trained * run.settings.replicates,
        "refused": run.refused,
    }
    if status != "ok":
        return columns
    library = library_of(run, run.members, store)
    recall = library.recall()
    return {
        **columns,
        "told": library.told_qd,
        "confirmed": library.confirmed_qd,
        "confirmed_se": library.confirmed_qd_se,
        "told_each": _joined(library.told),
        "confirmed_each": _joined(library.confirmed),
        "confirmed_se_each": _joined(library.confirmed_se),
        "effective_number": library.effective_number,
        "recalled": recall.recalled,
        "recalled_by_chance": recall.expected,
    }


def library_of(run: LiveRun, members: Sequence[Member], store: Store) -> TaskLibrary:
    """The library of these members, which the run has discovered and confirmed."""
    space, confirm = run.space, run.settings.confirm
    confirmed = [store.confirmed(space.identity, run.tag, member.labels, confirm) for member in members]
    return TaskLibrary.of(
        space,
        np.stack([member.labels for member in members]),
        np.stack([values for values in confirmed if values is not None]),  # a run that ends well has confirmed all
        engine=run.tag,
        told=[member.told for member in members],
        evaluations=[member.evaluations for member in members],
        searchers=run.settings.full_name,
        runs=run.record.id,
        tasks=run.settings.tasks,
        max_similarity=run.settings.max_similarity,
    )


def _joined(values: Any) -> str:
    """Numbers as one cell; an unknown one is empty."""
    return EACH.join("" if math.isnan(value) else f"{value:.6g}" for value in values)
