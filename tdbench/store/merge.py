"""Results folders joined into one: logs, leaderboards, reference tasks, libraries and pictures.

The folders are only read. What is joined does not depend on their order, and joining it again changes nothing. Logs are
joined in one transaction; a new folder gets its name once everything is in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tdbench.base.arguments import members, path_text
from tdbench.base.errors import UserError, cut
from tdbench.base.files import scratch_folder
from tdbench.store.confirmations import engine_tag
from tdbench.store.locks import held
from tdbench.store.log import FILE_NAME, TABLES_OF_RUNS, RunRecord, Store
from tdbench.store.merge_files import Boards, join_files
from tdbench.store.rows import differing

_RECORD = ("key", "attempt", "space", "searcher_version", "engine", "device", "engine_detail")  # alike in all copies
_LONGEST = 60  # characters of a value in a message


@dataclass(frozen=True)
class Merged:
    """What a folder holds after `merge`.

    Attributes:
        out: the folder.
        folders: how many were joined to it.
        runs: how many runs it has.
        unfinished: those of them that have not ended; they go on with ``resume``.
        running: those of them that a process is at now, in the folder that they come from.
        engines: what trained; more than one where the folders come from unlike machines.
    """

    out: Path
    folders: int
    runs: int
    unfinished: int
    running: int
    engines: tuple[str, ...]


def merge(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Merged:
    """Join results folders into one, as `tdbench merge` does. The folders are only read.

    >>> import tempfile
    >>> from tdbench import bench
    >>> small = {"n": 10, "steps": 5, "budget": 8, "batch": 4, "confirm": 2, "seeds": 4}
    >>> parts = [tempfile.mkdtemp() for _ in range(2)]
    >>> for i, part in enumerate(parts):
    ...     results = bench("random", **small, shard=f"{i + 1}/2", out=part)
    >>> merge(parts, tempfile.mkdtemp()).runs
    4

    Args:
        folders: output folders of runs; the result does not depend on their order.
        out: the folder that gets what they hold: a new or an empty one, or one with results, which stay.

    Raises:
        UserError: a folder without a log; a run, a confirmed score or a library that differs between two folders;
            folders whose confirmations were sealed with different keys. Nothing is written then.
    """
    target = Path(path_text("out", out))
    paths = _paths(folders, target)
    try:
        with scratch_folder(target) as scratch, contextlib.ExitStack() as stack:
            parts = [stack.enter_context(_opened(path, scratch / f"{i}.sqlite")) for i, path in enumerate(paths)]
            place = target if (target / FILE_NAME).is_file() else scratch / "merged"
            merged = _join(parts, place)
            if place != target:
                place.rename(target)
    except OSError as error:
        raise UserError(f"{error.filename or target} cannot be used: {error.strerror or error}") from error
    return dataclasses.replace(merged, out=target)


@dataclass(eq=False)
class _Part:
    """A folder with results, and its log."""

    folder: Path
    store: Store
    runs: list[RunRecord] = field(init=False)

    def __post_init__(self) -> None:
        self.runs = self.store.runs()


@dataclass(frozen=True, eq=False)
class _Copy:
    """A run as one of the folders has it."""

    part: _Part
    record: RunRecord

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return self.part.store.table(table, self.record.id)

    @property
    def progress(self) -> tuple[Any, ...]:
        """The copy for which this is greatest is kept: one that has ended, that got further, that began first."""
        record = self.record
        done = self.part.store.evaluated(record.id)
        return record.ended, done, -record.started, -record.seconds, json.dumps([record.row, record.settings.data])


def _paths(folders: Sequence[str | os.PathLike[str]], target: Path) -> list[Path]:
    """The folders in the order of their names, each once and without the target."""
    if isinstance(folders, str | os.PathLike):
        folders = [folders]
    paths = {path.resolve(): path for path in (Path(path_text("a folder", f)) for f in members("folders", folders))}
    paths.pop(target.resolve(), None)
    if not paths:
        raise UserError("merge needs at least one folder with results beside --out")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is no folder; give another --out")
    if target.is_dir() and any(target.iterdir()) and not (target / FILE_NAME).is_file():
        raise UserError(f"{target} holds something else than results; give a new folder, or one with a {FILE_NAME}")
    return [paths[resolved] for resolved in sorted(paths)]


@contextlib.contextmanager
def _opened(folder: Path, copy: Path) -> Iterator[_Part]:
    """The folder with a reader of its log, which shows what it holds now.

    SQLite would put in order what a killed process has left beside a log; that is done with a copy.
    """
    log = folder / FILE_NAME
    left = log.with_name(f"{FILE_NAME}-wal")
    copied = left.exists() and not held(folder / ".locks")
    if copied:
        shutil.copyfile(log, copy)
        shutil.copyfile(left, copy.with_name(f"{copy.name}-wal"))
    with Store(folder, read_only=True, copy=copy if copied else None) as store:
        store.freeze()
        yield _Part(folder, store)


def _join(parts: Sequence[_Part], place: Path) -> Merged:
    """Join the parts to the folder at `place`."""
    with Store(place) as store, store.lock({record.key for part in parts for record in part.runs}):
        with store.together():
            own = _Part(place, store)
            everything = [own, *parts]
            _check_seals(everything)
            runs = _best_copies(everything)
            boards = Boards()
            for copy in runs.values():
                boards.add_logged(copy.record.id, copy.part.store.row(copy.record) if copy.record.ended else None)
            for part in everything:
                boards.add_folder(part.folder)
            files = join_files([part.folder for part in everything], place)
            _write_spaces(everything, store)
            _write_confirmations(everything, store)
            for run, copy in runs.items():
                if copy.part is not own:
                    for table in ("run", *TABLES_OF_RUNS):
                        store.put(table, copy.part.store.table(table, run))
        boards.write(place)
        files.write()
    records = [copy.record for copy in runs.values()]
    unfinished = [record.key for record in records if not record.ended]
    running = {key for part in parts for key in part.store.held()}
    return Merged(
        place,
        len(parts),
        len(runs),
        len(unfinished),
        sum(key in running for key in unfinished),
        tuple(sorted({engine_tag(record.engine, record.device, record.engine_detail) for record in records})),
    )


def _check_seals(parts: Sequence[_Part]) -> None:
    """Raises UserError unless all parts that have runs were sealed with the same key, or none was."""
    seals = {part.folder: {record.settings.sealed for record in part.runs} for part in parts if part.runs}
    for folder, own in seals.items():
        first, others = next(iter(seals.items()))
        if own != others:
            raise UserError(
                f"{folder} is {_sealed(own)}, but {first} is {_sealed(others)}: their confirmed scores rest on other "
                "replicates; merge folders that were sealed with one key"
            )


def _sealed(seals: set[str]) -> str:
    return " and ".join(f"sealed with the key of seal {seal}" if seal else "not sealed" for seal in sorted(seals))


def _best_copies(parts: Sequence[_Part]) -> dict[str, _Copy]:
    """Run id -> the copy of the run that is kept. Raises UserError where two copies of a run differ."""
    copies: dict[str, list[_Copy]] = {}
    for part in parts:
        for record in part.runs:
            copies.setdefault(record.id, []).append(_Copy(part, record))
    best: dict[str, _Copy] = {}
    for run, found in copies.items():
        best[run] = found[0] if len(found) == 1 else max(found, key=lambda copy: copy.progress)
        for copy in found:
            if copy is not best[run] and (difference := _difference(copy, best[run])):
                raise UserError(
                    f"run {run} ({copy.record.settings.full_name}, seed {copy.record.settings.seed}) differs between "
                    f"{copy.part.folder} and {best[run].part.folder}: {difference}; merge one of them without the other"
                )
    return best


def _difference(copy: _Copy, best: _Copy) -> str:
    """In what a copy of a run differs from the one that got furthest, but for times and hosts; empty if in nothing."""
    ours, theirs = copy.record, best.record
    differ = [(name, getattr(ours, name), getattr(theirs, name)) for name in _RECORD]
    differ.append(("settings", _without_path(ours), _without_path(theirs)))
    if ours.ended:
        differ += [("status", ours.status, theirs.status), ("error", ours.error, theirs.error)]
    for name, own, other in differ:
        if own != other:
            return f"{name} {cut(str(own), _LONGEST)} and {cut(str(other), _LONGEST)}"
    if ours.ended and (columns := differing(copy.part.store.row(ours), best.part.store.row(theirs))):
        return columns
    for table in TABLES_OF_RUNS:
        own_rows, other_rows = set(copy.rows(table)), set(best.rows(table))
        if not own_rows <= other_rows or (ours.ended and own_rows != other_rows):
            return f"what the log has of it in table {table}"
    return ""


def _without_path(record: RunRecord) -> dict[str, Any]:
    """The settings of a run without where its images lie, which may differ between machines."""
    return {name: value for name, value in record.settings.recorded().items() if name != "data"}


def _write_spaces(parts: Sequence[_Part], store: Store) -> None:
    spaces: dict[str, tuple[Any, ...]] = {}
    for part in parts:
        for row in part.store.table("space"):
            spaces[row[0]] = min(row, spaces.get(row[0], row))  # one identity may have two names
    store.put("space", list(spaces.values()))


def _write_confirmations(parts: Sequence[_Part], store: Store) -> None:
    """Write what all parts have confirmed. Raises UserError where two have confirmed a labeling differently."""
    known: dict[tuple[Any, ...], tuple[bytes, _Part]] = {}
    for part in parts:
        for *key, values in part.store.table("confirmation"):
            other, first = known.setdefault(tuple(key), (values, part))
            if other != values:
                space, engine = key[:2]
                raise UserError(
                    f"the confirmed scores of a labeling of space {space} on {engine} differ between {first.folder} "
                    f"and {part.folder}; merge one of them without the other"
                )
    store.put("confirmation", [(*key, values) for key, (values, part) in known.items() if part.store is not store])
