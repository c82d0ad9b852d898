"""T_task: the taskness above which a labeling is called a task, from random labelings of image sets of its setting.

The study `real-vs-random` and `tdbench run --threshold auto` have it from here (definitions, section 4, Task).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError, echo
from tdbench.base.stats import Estimate, two_stage_interval
from tdbench.space.executor import Request, study_request
from tdbench.space.settings import SpaceSettings
from tdbench.space.sources import Source
from tdbench.space.task_space import TaskSpace
from tdbench.store.curves import RememberedTrainings

AUTO = "auto"
FALSE_POSITIVE_RATE = 0.05
SETS = 5
LABELINGS = 16  # of each set: of 80 in all, 4 lie above T_task


def random_requests(spaces: Sequence[TaskSpace], labelings: int, replicates: int) -> list[Request]:
    """For each space so many random labelings, other ones in each, on replicates that no search ever saw."""
    return [study_request(s, s.random_labelings(labelings, seed=s.seed), s.seed, replicates) for s in spaces]


def threshold_of(taskness: NDArray[np.float64], false_positive_rate: float) -> Estimate:
    """T_task, with its interval from a two-stage bootstrap over image sets and over labelings within them.

    Args:
        taskness: (sets, labelings) mean taskness of random labelings.
        false_positive_rate: T_task is the lowest of these values that at most this share of them exceeds.
    """

    def statistic(values: NDArray[np.float64], axis: int) -> Any:
        count = values.shape[axis]
        above = math.floor(false_positive_rate * count + 1e-9)  # 0.05 x 60 is a hair below 3 or above it
        return np.partition(values, count - 1 - above, axis=axis).take(count - 1 - above, axis=axis)

    return two_stage_interval([taskness], statistic)


def task_threshold(trainings: RememberedTrainings, source: Source, settings: SpaceSettings, confirm: int) -> Estimate:
    """T_task of a space setting (data, classes, N, R, protocol) and confirmation, at 5 % false positives.

    From 16 random labelings of each of the 5 image sets with space seeds 0 to 4, each the mean over `confirm`
    trainings. What is remembered is not trained again. The estimate's `n` is the number of labelings.
    """
    spaces = [TaskSpace.of(replace(settings.space, space_seed=seed), source) for seed in range(SETS)]
    scores = trainings.taskness(random_requests(spaces, LABELINGS, confirm), "T_task: random labelings")
    return threshold_of(np.stack(scores).mean(axis=2), FALSE_POSITIVE_RATE)


def checked_threshold(value: object) -> float | str:
    """``auto`` or a number from -1 to 1. Raises UserError for anything else."""
    if isinstance(value, str) and value == AUTO:
        return AUTO
    number = math.nan
    if isinstance(value, str | Real) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
    if not -1 <= number <= 1:
        raise UserError(f"threshold must be {AUTO} or a number from -1 to 1, got {echo(value)}")
    return number
