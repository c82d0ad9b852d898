"""What the fields of a `TaskLibrary` may hold. Each check gives a copy of its own, of one type, or raises UserError."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import strings, text
from tdbench.base.errors import UserError, echo, wrong_shape
from tdbench.space.references import ReferenceTask

LONGEST_NAME = 1000  # characters: a searcher's name with a reduction's, as long as both may be


def numbers(what: str, value: object, expected: tuple[int | str, ...]) -> NDArray[np.float64]:
    array = np.array(value)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{what} must be numbers, got {echo(value)}")
    if array.ndim != len(expected) or array.shape[0] != expected[0]:
        raise UserError(wrong_shape(what, expected, array.shape))
    return array.astype(np.float64)


def counts(what: str, value: object, size: int) -> NDArray[np.int64]:
    array = np.array(value)
    if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() >= 2**62)):
        raise UserError(f"{what} must be whole numbers from 0, got {echo(value)}")
    if array.shape != (size,):
        raise UserError(wrong_shape(what, (size,), array.shape))
    return array.astype(np.int64)


def labels(what: str, value: object, n: int, positives: int) -> NDArray[np.uint8]:
    array = np.array(value)
    if array.ndim != 2 or array.shape[1] != n:
        raise UserError(wrong_shape(what, ("m", n), array.shape))
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise UserError(f"{what} must be 0 or 1")
    ones = array.sum(axis=1, dtype=np.int64)
    if (ones != positives).any():
        wrong = int(np.argmax(ones != positives))
        raise UserError(f"{what} must have P = {positives} ones each, but labeling {wrong + 1} has {ones[wrong]}")
    return array.astype(np.uint8)


def names(what: str, value: Sequence[str], size: int) -> tuple[str, ...]:
    words = strings(what, value)
    if len(words) != size:
        raise UserError(f"{what} must have one name for each of {size} members, got {len(words)}")
    wrong = next((word for word in words if not word.isprintable() or len(word) > LONGEST_NAME), None)
    if wrong is not None:
        raise UserError(f"{what} must be at most {LONGEST_NAME} printable characters each, got {echo(wrong)}")
    return words


def reference(task: ReferenceTask, n: int, positives: int) -> ReferenceTask:
    own = labels("labels of reference tasks", [task.labels], n, positives)[0]
    own.flags.writeable = False
    return ReferenceTask(str(task.name), text("the kind of a reference task", task.kind, ("class", "pixel")), own)
