"""Files that appear complete or not at all, names that a file system can hold, and arrays that are no pickles."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all. Raises UserError if it cannot be written."""
    try:
        with whole_file(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to be written, which takes its place when the block ends, and is removed where it fails.

    Its name is always the same, and whoever writes it holds a lock on it that ends with the process: what a killed
    process left is taken over by the next one that writes the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    lock = _lock_file(partial)
    try:
        yield partial
        partial.replace(path)  # from here on the name may be another writer's
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, for what is to be renamed to it; it is removed when the block ends.

    What a killed process left there is taken over by the next one.

    Raises:
        UserError: another process is at it.
    """
    scratch = partial_name(path.absolute())
    scratch.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(scratch, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not _locked_alone(descriptor) or not _has_name(descriptor, scratch):  # or it has just been removed
            raise UserError(f"another process is writing {path}; wait for it")
        try:
            for left in scratch.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        os.close(descriptor)


def _locked_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_target(path: Path) -> None:
    """Raises UserError where a file could not be written there in the end: before the work for it begins."""
    check_name(path, "the file")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    folder = next((parent for parent in path.parents if parent.exists()), Path())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: {folder} is no folder that may be written to")


def read_npz(path: Path, keys: Sequence[str], hint: str = "") -> dict[str, NDArray[Any]]:
    """Those of these arrays that an `.npz` has. Pickled objects are never loaded.

    Args:
        hint: what to do about a file of another kind, for the error.

    Raises:
        UserError: the file is not there, is damaged, is no archive of arrays, or one of these arrays holds objects.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(f"{path} is not an .npz archive{hint}")
            for key in keys:
                if key in archive.files:
                    arrays[key] = archive[key]
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail in zipfile, zlib, lzma or numpy, which have different errors
        if isinstance(error, ValueError) and "pickle" in str(error):
            raise UserError(f"{path} holds pickled objects, which are never loaded; save plain arrays") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as an .npz: {reason}") from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy gives the bytes of a member that is not an .npy file
            raise UserError(f"{path} cannot be read as an .npz: {key!r} in it is not an array")
    return arrays


def partial_name(path: Path) -> Path:
    """What a file is called while it is written."""
    return path.with_name(f".{path.name}.partial")


def check_name(path: Path, what: str) -> None:
    """Raises UserError where the name of a file is too long for its folder, also while it is being written.

    Args:
        path: the file; neither it nor its folder need be there yet.
        what: how the message calls it.
    """
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    longest = os.pathconf(folder, "PC_NAME_MAX")
    dressed = len(os.fsencode(partial_name(path).name))
    if dressed > longest:
        length = len(os.fsencode(path.name))
        limit = longest - (dressed - length)
        raise UserError(f"the file name of {what} has {length} bytes, {folder} takes at most {limit}: {path.name}")


def _lock_file(path: Path) -> int:
    """The descriptor of an empty file of that name, locked by us alone; waits for another writer to end."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _has_name(descriptor, path):  # else the writer before us has finished that file
                os.ftruncate(descriptor, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _has_name(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
