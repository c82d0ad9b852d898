"""A run of the evaluation log, in the form that the formats need: its row, and what its searcher was told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdbench.store.log import RunRecord, Store
from tdbench.store.rows import Row


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended. Each call of `told` reads the log."""

    row: Row
    record: RunRecord
    store: Store

    def told(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """(n, N) label vectors and (n,) taskness of the evaluations that the searcher was told."""
        return self.store.told(self.record)


def label_text(labels: NDArray[np.uint8]) -> str:
    """A label vector as zeros and ones, one for each image."""
    return "".join(map(str, labels.tolist()))
