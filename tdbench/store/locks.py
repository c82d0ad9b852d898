"""Locks of runs: two processes must not be at one run at the same time."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from tdbench.base.errors import UserError


@contextlib.contextmanager
def hold(paths: Sequence[Path]) -> Iterator[None]:
    """Hold these locks. Raises UserError where another process holds one of them."""
    with contextlib.ExitStack() as stack:
        try:
            for path in dict.fromkeys(paths):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(path, timeout=0))
        except Timeout as error:
            raise UserError("another tdbench process is at this run; wait for it, or use another --out") from error
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise UserError(
                    f"{len(paths)} unfinished runs are more than the files this process may open; raise the limit "
                    "(ulimit -n), or run fewer at a time"
                ) from error
            raise UserError(f"{paths[0].parent} cannot be written: {error.strerror or error}") from error
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds this lock."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True
