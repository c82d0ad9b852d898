"""What a run is: the settings that decide its result, and the ones that only say how to get there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import operator
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdbench.arena.race import check_race, race_share, search_budget
from tdbench.base.errors import UserError
from tdbench.searchers.reduction import IDENTITY, full_name
from tdbench.space.task_space import NOISE_MODES, TaskSpace, check_seed

DEFAULT_OUT = "tdbench-results"
RECOMMEND_RULES = ("searcher", "best")
AUTO_THRESHOLD = "auto"
MOST = {  # far above any use; beyond it memory, the log or the system's calls give up
    "budget": 10**9,
    "batch": 10**6,
    "replicates": 10**6,
    "confirm": 10**6,
    "steps": 10**6,
    "ask_timeout": 10**6,
    "start_timeout": 10**6,
    "memory_limit": 10**9,
    "threads": 4096,
    "workers": 10**6,
}


@dataclass(frozen=True)
class RunSettings:
    """Everything that decides the result of one run; defaults are those of the definitions, section 2.

    Attributes:
        searcher: name, or ``family:VARIANT``.
        data, classes, n, ratio, space_seed, split, steps, lr: the space, see `TaskSpace`.
        seed: the run seed, of the searcher and of its fresh replicates.
        budget: evaluations; at least one batch.
        batch: vectors asked at a time.
        replicates: trainings per evaluation (k).
        noise: ``fresh`` or ``frozen``.
        confirm: fresh replicates that score the recommendation.
        recommend: ``searcher`` takes the searcher's own recommendation where it makes one, else the best told;
            ``best`` always takes the best told; ``race:F`` spends the fraction F of the budget on telling which of the
            leading candidates is best.
        engine, device: as asked for; what ``auto`` became is recorded with the run.
        reduction: ``name:D`` or ``name``: what maps the searcher's vectors to scores of the images.
    """

    searcher: str = "twopointsde"
    data: str = "digits"
    classes: tuple[str, ...] | None = None
    n: int = 50
    ratio: int = 4
    space_seed: int = 0
    seed: int = 0
    budget: int = 4000
    batch: int = 32
    replicates: int = 1
    noise: str = "fresh"
    split: str = "stratified"
    confirm: int = 32
    steps: int = 100
    lr: float = 1e-3
    recommend: str = "searcher"
    engine: str = "auto"
    device: str = "auto"
    reduction: str = IDENTITY

    def __post_init__(self) -> None:
        _make_whole(self, "n", "ratio", "space_seed", "seed", "budget", "batch", "replicates", "confirm", "steps")
        for name in ("searcher", "data", "noise", "split", "recommend", "engine", "device", "reduction"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"{name} must be a string, got {getattr(self, name)!r}")
        if self.classes is not None and not (
            isinstance(self.classes, tuple) and all(isinstance(name, str) for name in self.classes)
        ):
            raise UserError(f"classes must be names of classes, got {self.classes!r}")
        for name in ("batch", "budget", "replicates"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        _check_most(self, "budget", "batch", "replicates", "confirm", "steps")
        if self.confirm < 2:
            raise UserError(f"confirm must be at least 2 replicates (it has a standard error), got {self.confirm}")
        if self.budget < self.batch:
            raise UserError(f"budget must hold at least one batch of {self.batch}, got {self.budget}; lower --batch")
        if self.noise not in NOISE_MODES:
            raise UserError(f"noise must be one of {', '.join(NOISE_MODES)}, got {self.noise!r}")
        self._check_recommend()
        check_seed("seed", self.seed)
        check_seed("space-seed", self.space_seed)

    def _check_recommend(self) -> None:
        share = race_share(self.recommend)
        if share is not None:
            check_race(self.recommend, self.budget, self.batch)
            object.__setattr__(self, "recommend", f"race:{share!r}")  # .25 and 0.250 are one rule
        elif self.recommend not in RECOMMEND_RULES:
            raise UserError(f"recommend must be one of {', '.join(RECOMMEND_RULES)}, race:F, got {self.recommend!r}")

    @property
    def search_budget(self) -> int:
        """Evaluations that the searcher is asked for: the budget without a race's part."""
        return search_budget(self.recommend, self.budget)

    @property
    def full_name(self) -> str:
        """What leaderboards call the searcher with its reduction."""
        return full_name(self.searcher, self.reduction)

    def recorded(self) -> dict[str, Any]:
        """The settings as the log has them and the key hashes them, by name.

        A reduction is only there where there is one.
        """
        settings = dataclasses.asdict(self)
        if self.reduction == IDENTITY:
            del settings["reduction"]
        return settings

    def key(self, space: TaskSpace) -> str:
        """12 hex digits that are equal for runs with the same arguments on the same images."""
        settings = self.recorded()
        settings["data"] = space.source  # where the file lies does not matter, and the identity covers the pixels
        text = json.dumps({**settings, "space": space.identity}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Options:
    """How to get there: none of it changes a result.

    Attributes:
        out: folder for the log, the leaderboards and the pictures.
        resume: go on with interrupted runs.
        again: run finished ones anew, as further attempts.
        data_dir, download: see `tdbench.space.sources.load_source`.
        plugins: ``.py`` files or module names to load besides the installed plugins.
        ask_timeout: seconds a ready searcher may take to answer one request.
        start_timeout: seconds a searcher may take to start.
        memory_limit: MiB of memory of its own that a searcher's process may take.
        threads: CPU threads of the engine; one per core by default.
        workers: most searchers alive at a time.
        progress: show a live progress bar.
        threshold: T_task, above which what a run found counts as a task: a number from -1 to 1, or ``auto`` to
            calibrate it on random labelings of the run's setting; None does not say. For `run`.
    """

    out: str | os.PathLike[str] = DEFAULT_OUT
    resume: bool = False
    again: bool = False
    data_dir: str | None = None
    download: bool = False
    plugins: tuple[str, ...] = ()
    ask_timeout: float = 600.0
    start_timeout: float = 120.0
    memory_limit: int = 4096
    threads: int | None = None
    workers: int = 64
    progress: bool = False
    threshold: float | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.plugins, str):
            object.__setattr__(self, "plugins", (self.plugins,))
        given = () if self.threads is None else ("threads",)
        _make_whole(self, "memory_limit", "workers", *given)
        for name in ("ask_timeout", "start_timeout", "memory_limit", "workers"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and value > 0):
                raise UserError(f"{_shown(name)} must be a number above 0, got {value!r}")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads must be at least 1, got {self.threads}")
        _check_most(self, "ask_timeout", "start_timeout", "memory_limit", "workers", *given)
        self._check_threshold()

    def _check_threshold(self) -> None:
        if self.threshold is None or self.threshold == AUTO_THRESHOLD:
            return
        try:
            value = math.nan if isinstance(self.threshold, bool) else float(self.threshold)
        except (TypeError, ValueError):
            value = math.nan
        if not -1 <= value <= 1:
            raise UserError(f"threshold must be {AUTO_THRESHOLD} or a number from -1 to 1, got {self.threshold!r}")
        object.__setattr__(self, "threshold", value)

    @property
    def folder(self) -> Path:
        return Path(self.out)


def _make_whole(settings: Any, *names: str) -> None:
    """numpy's whole numbers become Python's, as the log keeps them; anything else is an error."""
    for name in names:
        value = getattr(settings, name)
        try:
            if isinstance(value, bool):
                raise TypeError
            object.__setattr__(settings, name, operator.index(value))
        except TypeError:
            raise UserError(f"{_shown(name)} must be a whole number, got {value!r}") from None


def _check_most(settings: Any, *names: str) -> None:
    for name in names:
        if getattr(settings, name) > MOST[name]:
            raise UserError(f"{_shown(name)} must be at most {MOST[name]}, got {getattr(settings, name)}")


def _shown(name: str) -> str:
    return name.replace("_", "-")
