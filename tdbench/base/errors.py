"""`UserError`, the exception whose message is meant for people, and sentences that several errors share."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

LONGEST_ECHO = 80  # characters of a value in an error
LONGEST_WORD = 200  # characters of a word that others are compared with


class UserError(Exception):
    """An error that the user can correct. The command line prints it as one line and exits with 2."""


def escaped(text: str) -> str:
    """The text without what drives a terminal: control characters become escapes, as does half a surrogate pair."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable(text: str) -> str:
    """The text in one line, with single spaces and without control characters."""
    return escaped(" ".join(text.split()))


def echo(value: object) -> str:
    """What came, for an error: its repr in one printable line of at most 80 characters, whatever the value is.

    >>> echo(list(range(1000)))
    '[0, 1, 2, 3, 4, 5, 6, 7, ...]'
    """
    try:
        text = printable(_ECHO.repr(value))
    except Exception:  # its repr raises, or gives no text
        text = f"<{printable(type(value).__name__)}>"
    return cut(text, LONGEST_ECHO)


def cut(text: str, longest: int) -> str:
    """The text, without its middle where it is longer."""
    if len(text) <= longest:
        return text
    start = (longest - 3) // 2
    return f"{text[:start]}...{text[start + 3 - longest :]}"


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """A hint such as ``; did you mean 'cmaes'?`` for a word that is not known."""
    known = sorted(known)
    close = difflib.get_close_matches(word.lower(), known, n=count, cutoff=0.5) if len(word) <= LONGEST_WORD else []
    if close:
        return "; did you mean " + " or ".join(echo(name) for name in close) + "?"
    return "; known are " + cut(printable(", ".join(known)), 2 * LONGEST_ECHO) if known else ""


def wrong_shape(what: str, expected: tuple[int | str, ...], found: tuple[int, ...]) -> str:
    """The sentence that all errors about the shape of an array use.

    >>> wrong_shape("an array of images", ("N", 3, 32, 32), (50, 32, 32, 3))
    'expected an array of images with shape (N, 3, 32, 32), but it had shape (50, 32, 32, 3)'
    """
    shown = ", ".join(map(str, expected)) + "," * (len(expected) == 1)
    return f"expected {what} with shape ({shown}), but it had shape {cut(str(found), LONGEST_ECHO)}"


class _Echo(reprlib.Repr):
    """Reprs that cost little, however large the value is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = LONGEST_ECHO - 3
        self.maxtuple = self.maxlist = self.maxset = self.maxfrozenset = self.maxdeque = self.maxarray = 8
        self.maxdict = 4
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**self.maxlong else f"an integer of {x.bit_length()} bits"


_ECHO = _Echo()
