"""T_task, the taskness above which a labeling is called a task (definitions, section 4, Task).

It is made from random labelings of image sets of the same setting, for `tdbench run --threshold auto` and the study
`real-vs-random`.
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
    """For each space, random labelings of its own, on replicates that no search ever saw."""
    return [study_request(s, s.random_labelings(labelings, seed=s.seed), s.seed, replicates) for s in spaces]


def threshold_of(taskness: NDArray[np.float64], false_positive_rate: float) -> Estimate:
    """T_task, with its interval from a two-stage bootstrap over image sets and over labelings within them.

    Args:
        taskness: (sets, labelings) mean taskness of random labelings.
        false_positive_rate: T_task is the lowest of these values such that at most this share of them is above it.
    """

    def statistic(values: NDArray[np.float64], axis: int) -> Any:
        count = values.shape[axis]
        above = math.floor(false_positive_rate * count + 1e-9)  # 0.05 x 60 may be rounded to just below 3
        return np.partition(values, count - 1 - above, axis=axis).take(count - 1 - above, axis=axis)

    return two_stage_interval([taskness], statistic)


def task_threshold(trainings: RememberedTrainings, source: Source, settings: SpaceSettings, confirm: int) -> Estimate:
    """T_task of a space setting (data, classes, N, R, protocol) and confirmation, at 5 % false positives.

    It is made from 16 random labelings of each of the 5 image sets with space seeds 0 to 4. The taskness of each is the
    mean over `confirm` trainings; remembered ones are not trained again. The estimate's `n` is the number of labelings.
    """
    spaces = [TaskSpace.of(replace(settings.space, space_seed=seed), source) for seed in range(SETS)]
    taskness = trainings.taskness(random_requests(spaces, LABELINGS, confirm), "T_task: random labelings")
    return threshold_of(np.stack(taskness).mean(axis=2), FALSE_POSITIVE_RATE)


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
