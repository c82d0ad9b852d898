"""The leaderboard row that a run ends as."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime

import numpy as np

from tdbench.arena.live_run import LiveRun
from tdbench.base import environment
from tdbench.space.score import standard_error
from tdbench.store.log import Store
from tdbench.store.rows import CHECKPOINTS, COLUMNS, Row, checkpoint_column


def leaderboard_row(run: LiveRun, status: str, error: str, store: Store) -> Row:
    """The row of a run that has ended, well or not, with what the log has of its confirmation."""
    settings, engine = run.settings, run.space.engine
    confirmed = {
        share: store.confirmed(run.space.identity, run.tag, labels, settings.confirm)
        for share, labels in run.recommended.items()
    }
    mean = {share: math.nan if values is None else float(values.mean()) for share, values in confirmed.items()}
    final = confirmed.get(1.0)
    labels, taskness, searched = run.history
    distinct = len(np.unique(labels, axis=0))
    own = (labels[:searched] == run.recommended.get(1.0, np.full(run.space.n, -1))).all(axis=1)
    trained = distinct if settings.noise == "frozen" else len(labels)
    of_the_run = {name: value for name, value in dataclasses.asdict(settings).items() if name in COLUMNS}
    return Row(
        **{
            **of_the_run,
            **run.space.columns,
            **{checkpoint_column(share): mean.get(share, math.nan) for share in CHECKPOINTS},
            "searcher": settings.full_name,
            "searcher_version": run.record.searcher_version,
            "sees_images": run.registration.sees_images or run.reduction.registration.sees_images,
            "told": run.best_told,
            "recommended_told": float(taskness[:searched][own].mean()) if own.any() else math.nan,
            "confirmed_se": math.nan if final is None else standard_error(final),
            "optimism": run.best_told - mean.get(1.0, math.nan),
            "distinct": distinct,
            "evaluations": run.evaluations,
            "trainings": trained * settings.replicates,
            "seconds": round(run.seconds, 3),
            "status": status,
            "error": error,
            "engine": engine.name,
            "engine_detail": run.record.engine_detail,
            "device": engine.device,
            "hardware": environment.hardware(engine.device),
            "versions": environment.versions(),
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": run.record.id,
        }
    )
