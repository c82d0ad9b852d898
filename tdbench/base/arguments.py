"""Checks of values that a user gives. A wrong one raises UserError, which says what was expected and what came.

Each check returns the value as Python has it: numpy's numbers and paths become int, float, bool and str.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError, echo

LONGEST_NAME = 200  # characters; far above any use
_LONGEST_PATH, _LONGEST_PART = 4095, 255  # bytes, as Linux has them
_HUGE = 10**30
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def whole(name: str, value: object, least: int = -_HUGE, most: int = _HUGE) -> int:
    """A whole number from `least` to `most`: Python's or numpy's, no bool and no float."""
    try:
        if _is_bool(value):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except Exception:  # an object may raise anything
        raise UserError(f"{name} must be a whole number, got {echo(value)}") from None
    if number < least:
        raise UserError(f"{name} must be at least {least}, got {echo(number)}")
    if number > most:
        raise UserError(f"{name} must be at most {most}, got {echo(number)}")
    return number


def real(name: str, value: object, expected: str = "a number", most: float = math.inf) -> float:
    """A finite number above 0 and at most `most`, of any real type but bool. `expected` says so in the error."""
    number = math.nan
    with contextlib.suppress(Exception):  # too large for a float; an object may raise anything
        if isinstance(value, Real) and not _is_bool(value):
            number = float(value)
    if not number > 0 or number == most == math.inf:
        raise UserError(f"{name} must be {expected}, got {echo(value)}")
    if number > most:
        raise UserError(f"{name} must be at most {most:g}, got {echo(value)}")
    return number


def truth(name: str, value: object) -> bool:
    """True or False, Python's or numpy's."""
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"{name} must be True or False, got {echo(value)}")
    return bool(value)


def text(name: str, value: object, choices: Sequence[str] = ()) -> str:
    """A string of printable characters, not too long for a name; one of the choices, where there are any."""
    if not isinstance(value, str):
        raise UserError(f"{name} must be a string, got {echo(value)}")
    if choices and value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, got {echo(value)}")
    if not value.isprintable() or len(value) > LONGEST_NAME:
        raise UserError(f"{name} must be at most {LONGEST_NAME} printable characters, got {echo(value)}")
    return str(value)


def path_text(name: str, value: object) -> str:
    """A string or `os.PathLike` that the system can take for a path."""
    try:
        written = os.fspath(value)  # type: ignore[call-overload]
        raw = os.fsencode(written)
        if not isinstance(written, str) or _CONTROL.search(written) or len(raw) > _LONGEST_PATH:
            raise ValueError
        if any(len(part) > _LONGEST_PART for part in raw.split(b"/")):
            raise ValueError
    except Exception:  # an object's __fspath__ may raise anything
        raise UserError(
            f"{name} must be a string or a path, with at most {_LONGEST_PART} bytes in each part and without control "
            f"characters, got {echo(value)}"
        ) from None
    return str(written)


def members(name: str, value: object, most: int = 10**6) -> list[Any]:
    """The members of a sequence of at most so many; text, bytes and mappings are none."""
    found: list[Any] | None = None
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | Mapping):
        try:
            found = list(itertools.islice(value, most + 1))
        except Exception:  # an object's __iter__ may raise anything
            found = None
    if found is None:
        raise UserError(f"{name} must be a sequence, got {echo(value)}")
    if len(found) > most:
        raise UserError(f"{name} must have at most {most} members, got more")
    return found


def strings(name: str, value: object) -> tuple[str, ...]:
    """Strings in a sequence; one string alone is an error."""
    found = [None] if isinstance(value, str) else members(name, value)
    if not all(isinstance(member, str) for member in found):
        raise UserError(f"{name} must be a sequence of strings, got {echo(value)}")
    return tuple(map(str, found))


def number_array(name: str, value: object) -> NDArray[Any]:
    """An array of numbers or truth values, of any shape: what numpy makes of lists, Series and tensors."""
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists; a tensor that needs gradients; an object may raise anything
        raise ValueError(f"{name} must be an array of numbers, got {echo(value)} ({type(error).__name__})") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be an array of numbers, got {echo(value)} of type {echo(array.dtype)}")
    return array


def set_fields(settings: Any, **values: Any) -> None:
    """Put checked values into a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(settings, name, value)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool | np.bool_) or "bool" in str(getattr(value, "dtype", ""))
