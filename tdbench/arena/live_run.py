"""A run under way, as the arena keeps it, and the leaderboard row it ends as."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from tdbench.arena.race import Race
from tdbench.arena.worker import Worker
from tdbench.base import environment
from tdbench.engine import Engine
from tdbench.searchers.reduction import SpaceReduction
from tdbench.searchers.registry import Registration
from tdbench.searchers.searcher import Problem
from tdbench.settings import RunSettings
from tdbench.space.score import standard_error
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import tag_of
from tdbench.store.log import Asked, RunRecord, Store
from tdbench.store.rows import CHECKPOINTS, Row

Labels = NDArray[np.uint8]


@dataclass(eq=False)
class LiveRun:
    """A run under way: its history, and the searcher's worker while it lives."""

    settings: RunSettings
    space: TaskSpace
    engine: Engine
    record: RunRecord
    registration: Registration
    reduction: SpaceReduction
    recorded: deque[Asked]  # asks still to be replayed
    labels: list[Labels] = field(default_factory=list)  # (n, N) of every ask so far
    told: list[NDArray[np.float64]] = field(default_factory=list)  # (n,) taskness of each
    recommended: dict[float, Labels] = field(default_factory=dict)  # checkpoint -> (N,)
    race: Race | None = None  # once the search is over, where one follows
    search_asks: int | None = None  # how many asks were the search's, once a race follows
    worker: Worker | None = None
    started: float = field(default_factory=time.monotonic)
    last_scores: NDArray[np.float64] | None = None
    status: str = "running"
    error: str = ""
    tag: str = field(init=False)  # under which the log keeps its confirmation, whatever the engine is short of later

    def __post_init__(self) -> None:
        self.tag = tag_of(self.engine)

    @property
    def evaluated(self) -> int:
        return sum(len(values) for values in self.told)

    @property
    def seconds(self) -> float:
        return self.record.seconds + time.monotonic() - self.started

    @property
    def best_told(self) -> float:
        return max((float(values.max()) for values in self.told[: self.search_asks]), default=math.nan)

    def problem(self) -> Problem:
        return Problem(
            dim=self.reduction.dim,
            n_images=self.space.n,
            n_positives=self.space.n_positives,
            batch_size=self.settings.batch,
            budget=self.settings.search_budget,
            seed=self.settings.seed,
            images=self.space.images if self.registration.sees_images else None,
        )

    def decode(self, vectors: NDArray[np.float64]) -> Labels:
        """(n, N) label vectors of the searcher's (n, dim) vectors. Raises InvalidScores where the reduction fails."""
        return self.space.decode(self.reduction.scores(vectors))

    def due_checkpoints(self) -> list[float]:
        """Shares of the budget that are reached and have no recommendation yet."""
        reached = self.evaluated
        return [
            share
            for share in CHECKPOINTS
            if share not in self.recommended and reached >= math.ceil(share * self.settings.budget)
        ]

    def is_unknown(self, labels: Labels) -> NDArray[np.bool_]:
        """(n,) which label vectors must be trained: all, but in frozen mode only those not told before."""
        if self.settings.noise == "fresh":
            return np.ones(len(labels), dtype=np.bool_)
        seen = {row.tobytes() for ask in self.labels for row in ask}
        fresh = []
        for row in labels:
            fresh.append(row.tobytes() not in seen)
            seen.add(row.tobytes())
        return np.array(fresh, dtype=np.bool_)

    def known(self, labels: Labels, taskness: NDArray[np.float64]) -> dict[bytes, float]:
        """Label vector -> taskness, of everything told so far and of these."""
        known = {row.tobytes(): float(v) for row, v in zip(labels, taskness, strict=True)}
        for asked, told in zip(self.labels, self.told, strict=True):
            known.update({row.tobytes(): float(v) for row, v in zip(asked, told, strict=True)})
        return known


def leaderboard_row(run: LiveRun, store: Store) -> Row:
    """The row of a run that has ended, well or not, with what the log has of its confirmation."""
    settings, space, tag = run.settings, run.space, run.tag
    status = "ok" if run.status == "running" else run.status
    confirmed = {
        share: store.confirmed(space.identity, tag, labels, settings.confirm)
        for share, labels in run.recommended.items()
    }
    mean = {share: math.nan if values is None else float(values.mean()) for share, values in confirmed.items()}
    final = confirmed.get(1.0)
    labels = np.concatenate(run.labels) if run.labels else np.zeros((0, space.n), dtype=np.uint8)
    told = np.concatenate(run.told[: run.search_asks]) if run.told else np.zeros(0)
    distinct = len(np.unique(labels, axis=0))
    recommended = run.recommended.get(1.0, np.full(space.n, -1))
    own = (labels[: len(told)] == recommended).all(axis=1)
    trained = distinct if settings.noise == "frozen" else len(labels)
    return Row(
        space=space.identity,
        data=space.source,
        classes="|".join(space.classes),
        n=space.n,
        ratio=space.ratio,
        space_seed=space.seed,
        split=space.protocol.split,
        steps=space.protocol.steps,
        lr=space.protocol.lr,
        searcher=settings.full_name,
        searcher_version=run.record.searcher_version,
        sees_images=run.registration.sees_images or run.reduction.sees_images,
        seed=settings.seed,
        budget=settings.budget,
        batch=settings.batch,
        replicates=settings.replicates,
        noise=settings.noise,
        confirm=settings.confirm,
        recommend=settings.recommend,
        told=run.best_told,
        recommended_told=float(told[own].mean()) if own.any() else math.nan,
        confirmed=mean.get(1.0, math.nan),
        confirmed_se=math.nan if final is None else standard_error(final),
        optimism=run.best_told - mean.get(1.0, math.nan),
        confirmed_10=mean.get(0.1, math.nan),
        confirmed_20=mean.get(0.2, math.nan),
        confirmed_50=mean.get(0.5, math.nan),
        distinct=distinct,
        evaluations=run.evaluated,
        trainings=trained * settings.replicates,
        seconds=round(run.seconds, 3),
        status=status,
        error=run.error,
        engine=run.engine.name,
        engine_detail=run.record.engine_detail,
        device=run.engine.device,
        hardware=environment.hardware(run.engine.device),
        versions=environment.versions(),
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
        run=run.record.id,
    )
