"""Which runs are held by a process: two processes must not be at one run at the same time.

A process that is at runs has one file in the folder of locks, with the keys of all its runs, and holds the system's
lock on it. The lock ends with the process, however that ends; the file of a dead process holds nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from tdbench.base.errors import UserError

_SUFFIX, _UNFINISHED = ".holder", ".new"
_GUARD = "guard"  # locked while a process looks at the others' files and makes its own


@contextlib.contextmanager
def hold(folder: Path, keys: Iterable[str]) -> Iterator[None]:
    """Hold the runs with these keys. Raises UserError where another process, or another call, holds one of them."""
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / _GUARD):
            for unfinished in folder.glob(f"*{_UNFINISHED}"):  # made under the guard only: its process is dead
                unfinished.unlink()
            if held(folder, remove_stale=True) & set(wanted):
                raise UserError("another tdbench process is at this run; wait for it, or use another --out")
            descriptor, path = _make_holder(folder, wanted)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def held(folder: Path, *, remove_stale: bool = False) -> set[str]:
    """The keys of all runs that processes are at now. `remove_stale` is for who holds the guard."""
    keys: set[str] = set()
    if not folder.is_dir():
        return keys
    for path in folder.glob(f"*{_SUFFIX}"):
        try:
            text = path.read_text(encoding="ascii")
            alive = _is_locked(path)
        except FileNotFoundError:  # its process has just ended
            continue
        if alive:
            keys.update(text.split())
        elif remove_stale:
            path.unlink(missing_ok=True)
    return keys


def _make_holder(folder: Path, keys: list[str]) -> tuple[int, Path]:
    """The locked file of this process: it gets its name once it is complete and locked."""
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    unfinished, path = folder / f"{name}{_UNFINISHED}", folder / f"{name}{_SUFFIX}"
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unfinished.write_text("\n".join(keys), encoding="ascii")
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    return descriptor, path


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who look do not see each other
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return True
        raise
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
