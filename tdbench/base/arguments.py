"""Checks of values that a user gives. A wrong one raises UserError, which says what was expected and what came."""

from __future__ import annotations

import operator
from typing import Any

from tdbench.base.errors import UserError


def make_whole(settings: Any, *names: str) -> None:
    """Convert fields of a frozen dataclass to Python's integers, as the log keeps them.

    Raises:
        UserError: a field is not a whole number.
    """
    for name in names:
        value = getattr(settings, name)
        try:
            if isinstance(value, bool):
                raise TypeError
            object.__setattr__(settings, name, operator.index(value))
        except TypeError:
            raise UserError(f"{shown(name)} must be a whole number, got {value!r}") from None


def check_strings(settings: Any, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(settings, name), str):
            raise UserError(f"{shown(name)} must be a string, got {getattr(settings, name)!r}")


def check_most(settings: Any, **most: int) -> None:
    """Raises UserError if a field is above its limit."""
    for name, limit in most.items():
        if getattr(settings, name) > limit:
            raise UserError(f"{shown(name)} must be at most {limit}, got {getattr(settings, name)}")


def shown(name: str) -> str:
    """The name of a setting as the command line writes it."""
    return name.replace("_", "-")
