"""Confirm labelings that somebody else made, so that found tasks of other methods can be compared with those of runs.

They come from a CSV file of labels, or from a task library; they become a `TaskLibrary`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import whole
from tdbench.base.errors import UserError, echo
from tdbench.engine import Engine
from tdbench.settings import MOST
from tdbench.space.seal import Key
from tdbench.space.settings import SpaceSettings
from tdbench.space.similarity import check_max_similarity
from tdbench.space.sources import NAMED, Source, load_source
from tdbench.space.task_space import DEFAULT_CONFIRM, TaskSpace
from tdbench.store.confirmations import tag_of
from tdbench.store.labelings_file import read_labelings
from tdbench.store.library import LEAST_CONFIRM, TaskLibrary, settings_of


def score(
    space: TaskSpace,
    labels: NDArray[Any],
    *,
    confirm: int = DEFAULT_CONFIRM,
    names: Sequence[str] | None = None,
    origin: str = "",
    key: Key | None = None,
    max_similarity: float = 1.0,
    advance: Callable[[int], None] = lambda done: None,
) -> TaskLibrary:
    """Confirm (m, N) labelings of a space on the replicates that every run of it is confirmed on.

    >>> space = TaskSpace("digits", n=10, steps=5)
    >>> score(space, space.random_labelings(2), confirm=4, max_similarity=1.0)
    TaskLibrary(2 of 2 tasks, digits, n=10, ratio=4, seed=0, identity=6ca20b096adb)

    Args:
        confirm: R, replicates.
        names: one for each labeling, 1, 2, ... by default; in the library they stand as its run.
        origin: who made them; in the library it stands as their searcher.
        key: of a sealed confirmation.
        max_similarity: the most that two of them may be alike; 1 refuses only labelings that are there twice.
        advance: is called with the number of trainings whenever some are done.

    Raises:
        UserError: labels that do not fit the space, or that are too similar to each other.
    """
    confirm = _replicates(confirm, DEFAULT_CONFIRM)
    names = [str(i + 1) for i in range(len(labels))] if names is None else names
    blank = np.zeros((len(labels), confirm))
    library = TaskLibrary.of(
        space,
        labels,
        blank,
        engine=tag_of(space.engine, "" if key is None else key.seal),
        searchers=origin,
        runs=names,
        max_similarity=check_max_similarity(max_similarity),
    )
    return confirm_again(library, space, confirm=confirm, key=key, advance=advance)


def confirm_again(
    library: TaskLibrary,
    space: TaskSpace,
    *,
    confirm: int,
    key: Key | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> TaskLibrary:
    """The same library, its members confirmed by the engine of `space` on so many replicates; best confirmed first."""
    confirm = _replicates(confirm, DEFAULT_CONFIRM)
    check_space(library, space)
    values = np.empty((len(library), confirm))
    at_once = max(1, 4 * space.engine.best_batch // confirm)
    for i in range(0, len(library), at_once):
        part = slice(i, i + at_once)
        values[part] = space.confirm(library.labels[part], confirm, key)
        advance(values[part].size)
    tag = tag_of(space.engine, "" if key is None else key.seal)
    return replace(library, confirmed_values=values, engine=tag).best_first()


def score_file(
    path: Path,
    given: Mapping[str, Any],
    *,
    confirm: int | None = None,
    engine: Engine,
    data_dir: str | None = None,
    download: bool = False,
    key: Key | None = None,
    counting: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
) -> TaskLibrary:
    """Confirm the labelings of a CSV file, or once more those of a task library.

    Args:
        given: settings of the space by name (`SpaceSettings`), those that are not the defaults; for a library, those
            that are not its own.
        confirm: R, replicates; by default 32, or those of the library.
        counting: makes a progress bar of what is counted and how many there are.

    Raises:
        UserError: the file cannot be read, or its labelings do not fit the space.
    """
    if path.suffix == ".npz":
        library = TaskLibrary.load(path)
        settings = replace(library.settings, **{**given, "data": _data(library, given.get("data"))})
        space = TaskSpace.of(settings, load_source(settings.data, data_dir, download), engine)
        check_space(library, space)
        confirm = _replicates(confirm, library.confirm)
        with counting("trainings", confirm * len(library)) as advance:
            return confirm_again(library, space, confirm=confirm, key=key, advance=advance)
    settings = SpaceSettings(**given)
    confirm = _replicates(confirm, DEFAULT_CONFIRM)
    read = read_labelings(path, settings.n, settings.n // (settings.ratio + 1))
    space = TaskSpace.of(settings, load_source(settings.data, data_dir, download), engine)
    with counting("trainings", confirm * len(read.labels)) as advance:
        return score(space, read.labels, confirm=confirm, names=read.names, origin=path.stem, key=key, advance=advance)


def space_of(
    library: TaskLibrary,
    engine: str | Engine = "auto",
    *,
    data: str | None = None,
    data_dir: str | None = None,
    download: bool = False,
) -> tuple[TaskSpace, Source]:
    """The space of a library, drawn again from its source, and that source.

    Args:
        data: the path of the source, where it is a file.

    Raises:
        UserError: the source is not there, or another image set comes out of it.
    """
    source = load_source(_data(library, data), data_dir, download)
    space = TaskSpace.of(library.settings, source, engine)
    check_space(library, space)
    return space, source


def _data(library: TaskLibrary, data: str | None) -> str:
    """The source of a library as `load_source` takes it."""
    name = library.settings.data
    if data is None and name not in NAMED:
        raise UserError(f"the images of this library come from a file {echo(name)}; say where it lies with --data")
    return name if data is None else data


def check_space(library: TaskLibrary, space: TaskSpace) -> None:
    """Raises UserError unless the library is one of that space."""
    if library.space != space.identity:
        differ = library.differences(space.identity, settings_of(space))
        raise UserError(f"the library is of another space: {differ}")


def _replicates(confirm: int | None, default: int) -> int:
    return default if confirm is None else whole("confirm", confirm, LEAST_CONFIRM, MOST)
