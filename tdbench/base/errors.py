"""`UserError`, the exception whose message is meant for people, and sentences that several errors share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can correct. The command line prints it as one line and exits with 2."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """A hint such as ``; did you mean 'cmaes'?`` for a word that is not known."""
    known = sorted(known)
    close = difflib.get_close_matches(word.lower(), known, n=count, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "; known are " + ", ".join(known) if known else ""


def wrong_shape(what: str, expected: tuple[int | str, ...], found: tuple[int, ...]) -> str:
    """The sentence that all errors about the shape of an array use.

    >>> wrong_shape("an array of images", ("N", 3, 32, 32), (50, 32, 32, 3))
    'expected an array of images with shape (N, 3, 32, 32), but it had shape (50, 32, 32, 3)'
    """
    shown = ", ".join(map(str, expected)) + "," * (len(expected) == 1)
    return f"expected {what} with shape ({shown}), but it had shape {found}"
