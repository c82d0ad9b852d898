"""The settings of `run`, `discover` and `bench` for type checkers and editors, so that a misspelled name is seen there.

They have no values and no checks: those are in `tdbench.settings`. A test holds both together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from tdbench.cluster.spec import Cluster
from tdbench.settings import RunProgress

PathLike = str | os.PathLike[str]


class SharedKeywords(TypedDict, total=False):
    """What `run`, `discover` and `bench` take; each name is explained at `RunSettings` or at `Options`."""

    # RunSettings
    classes: Sequence[str] | None
    split: str
    steps: int
    lr: float
    budget: int
    batch: int
    replicates: int
    noise: str
    confirm: int
    recommend: str
    engine: str
    device: str
    # Options
    out: PathLike
    resume: bool
    again: bool
    data_dir: PathLike | None
    download: bool
    plugins: PathLike | Sequence[PathLike]
    ask_timeout: float
    start_timeout: float
    memory_limit: int
    threads: int | None
    cluster: Cluster | str | Mapping[str, Any]
    workers: int
    progress: bool
    sealed: PathLike | None
    start: PathLike | None
    searcher_log: PathLike | None
    references: str
    max_seconds: float | None
    on_batch: Callable[[RunProgress], bool | None] | None


class RunKeywords(SharedKeywords, total=False):
    """What `run` takes besides the searcher."""

    data: PathLike
    n: int
    ratio: int
    space_seed: int
    seed: int
    reduction: str


class DiscoverKeywords(RunKeywords, total=False):
    """What `discover` takes besides the searcher and the number of tasks."""

    protocol: str
    max_similarity: float


class BenchKeywords(SharedKeywords, total=False):
    """What `bench` takes besides what its runs differ in."""

    protocol: str
    max_similarity: float
