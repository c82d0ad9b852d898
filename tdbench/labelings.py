"""Label vectors from scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def decode(scores: NDArray[Any], n_positives: int) -> NDArray[np.uint8]:
    """(B, N) label vectors for (B, N) signed scores: the P highest become 1, ties go to the lower index."""
    labels = np.zeros(scores.shape, dtype=np.uint8)
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :n_positives]
    np.put_along_axis(labels, highest, 1, axis=1)
    return labels
