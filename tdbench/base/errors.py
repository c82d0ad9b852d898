"""`UserError`, the exception whose message is meant for people, and sentences that several errors share."""

from __future__ import annotations

import contextlib
import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator

LONGEST_ECHO = 80  # characters of a value in an error
LONGEST_WORD = 200  # characters of a word that others are compared with


_OPTION = re.compile(r"(?<![\w'\"-])--([a-z][a-z-]*)")
_SWITCHES = ("again", "download", "force", "resume")  # options without a value
_command_line = False


class UserError(Exception):
    """An error that the user can correct. The command line prints it as one line and exits with 2.

    Messages are written with the options of the command line. Outside of it they name the arguments of Python:

    >>> str(UserError("lower --batch, or go on with --resume"))
    'lower batch, or go on with resume=True'
    """

    def __str__(self) -> str:
        text = super().__str__()
        return text if _command_line else in_python(text)


class Stopped(UserError):
    """A run was stopped, by ``on_batch`` or ``max_seconds``. What was evaluated is kept; ``resume=True`` goes on."""


@contextlib.contextmanager
def on_command_line() -> Iterator[None]:
    """Within the block, errors name the options of the command line."""
    global _command_line
    before, _command_line = _command_line, True
    try:
        yield
    finally:
        _command_line = before


def setting(name: str) -> str:
    """The name of a setting as the user has it: ``max-similarity`` on the command line, else ``max_similarity``."""
    return name.replace("_", "-") if _command_line else name


def in_python(text: str) -> str:
    """A message with the arguments of Python instead of the options of the command line."""

    def argument(option: re.Match[str]) -> str:
        name = {"plugin": "plugins"}.get(option[1], option[1].replace("-", "_"))
        return f"{name}=True" if name in _SWITCHES else name

    return _OPTION.sub(argument, text)


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
