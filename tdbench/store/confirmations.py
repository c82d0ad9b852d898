"""Confirmed scores: what is known of a labeling from fresh replicates that no searcher saw, kept in the log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdbench.engine import Engine
from tdbench.space import references
from tdbench.space.references import ReferenceTask
from tdbench.space.score import standard_error
from tdbench.store.log import Store


@dataclass(frozen=True)
class ReferenceScore:
    """A reference task and its (replicates,) confirmed taskness."""

    task: ReferenceTask
    values: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def se(self) -> float:
        return standard_error(self.values)


def engine_tag(name: str, device: str, detail: str, sealed: str = "") -> str:
    """What confirmed values depend on besides the space: the engine that trained, and the seal of their replicates."""
    return " ".join(part for part in (name, device, detail, sealed and f"sealed {sealed}") if part)


def tag_of(engine: Engine, sealed: str = "") -> str:
    return engine_tag(engine.name, engine.device, engine.detail, sealed)


def space_references(store: Store, space: str) -> list[ReferenceTask]:
    """All reference tasks of a space in the log: class tasks, pixel statistics, random labelings."""
    classes, class_of = store.classes(space)
    return references.all_tasks(store.pixels(space), class_of, classes)


def reference_scores(store: Store, space: str, tag: str, replicates: int) -> list[ReferenceScore]:
    """The reference tasks of a space that were confirmed with that engine and number of replicates."""
    scores = []
    for task in space_references(store, space):
        values = store.confirmed(space, tag, task.labels, replicates)
        if values is not None:
            scores.append(ReferenceScore(task, values))
    return scores
