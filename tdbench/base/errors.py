"""The one exception that is meant for people: a line saying what was expected, what came, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with 2."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """A hint such as ``; did you mean 'cmaes'?`` for a word that is not among the known ones."""
    known = sorted(known)
    close = difflib.get_close_matches(word.lower(), known, n=count, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "; known are " + ", ".join(known) if known else ""
