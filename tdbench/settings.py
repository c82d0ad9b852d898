"""What a run is: the settings that decide its result, and the ones that only say how to get there."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from tdbench.base.arguments import members, path_text, real, set_fields, text, truth, whole
from tdbench.base.errors import UserError, echo, setting
from tdbench.base.files import check_target
from tdbench.cluster.spec import Cluster
from tdbench.engine import check_engine
from tdbench.searchers.reduction import IDENTITY, full_name
from tdbench.space.references import CHOICES as REFERENCES
from tdbench.space.seal import SEAL_DIGITS, Key
from tdbench.space.settings import SpaceSettings, check_seed
from tdbench.space.similarity import DEFAULT_MAX_SIMILARITY, Dissimilar, check_max_similarity
from tdbench.space.task_space import NOISE_MODES, TaskSpace

DEFAULT_OUT = "tdbench-results"
DEFAULT_BATCH = 32
RECOMMEND_RULES = ("searcher", "best")
PROTOCOLS = ("joint", "rounds")
ONE_LABELING: dict[str, Any] = {"protocol": "joint", "max_similarity": DEFAULT_MAX_SIMILARITY}  # of an ordinary run
RACE = "race"
LEAST_RACE = 4  # evaluations: two candidates, twice each
MOST_TASKS = 1000  # labelings of a library: they are confirmed one by one, and compared pair by pair
MOST = 10**6  # far above any use; beyond it memory, the log or the system's calls give up


def later(default: Any) -> Any:
    """A setting that came after version 0.1.0."""
    return dataclasses.field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class RunSettings(SpaceSettings):
    """Everything that decides the result of one run: the settings of its space, and these.

    Defaults are those of the definitions, section 2.

    Attributes:
        searcher: name, or ``family:VARIANT``.
        seed: the run seed, of the searcher and of its fresh replicates.
        budget: evaluations; at least one batch.
        batch: vectors asked at a time; where the user gives none, what the searcher prefers, or else 32.
        replicates: trainings per evaluation (k).
        noise: ``fresh`` or ``frozen``.
        confirm: fresh replicates that score the recommendation.
        recommend: ``searcher`` takes the searcher's own recommendation where it makes one, else the best told;
            ``best`` always takes the best told; ``race:F`` spends the fraction F of the budget on telling which of the
            leading candidates is best.
        engine, device: as asked for; what ``auto`` became is recorded with the run.
        reduction: ``name:D`` or ``name``: what maps the searcher's vectors to scores of the images.
        sealed: the seal of the key that draws the confirmation replicates; empty where they follow from the space seed.
        tasks: labelings to discover (K), different from each other; 0 for an ordinary run, which recommends one.
        protocol: how several are discovered: ``joint``, in one search, or ``rounds``, a search for each.
        max_similarity: the most that two discovered labelings may be alike, from 0, what chance gives, to 1
            (definitions, section 10).
        start: the fingerprint of the labelings that the search begins from; empty without any.
    """

    searcher: str = "twopointsde"
    seed: int = 0
    budget: int = 4000
    batch: int = DEFAULT_BATCH
    replicates: int = 1
    noise: str = "fresh"
    confirm: int = 32
    recommend: str = "searcher"
    engine: str = "auto"
    device: str = "auto"
    reduction: str = later(IDENTITY)
    sealed: str = later("")
    tasks: int = later(0)
    protocol: str = later(ONE_LABELING["protocol"])
    max_similarity: float = later(ONE_LABELING["max_similarity"])
    start: str = later("")

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(
            self,
            searcher=text("searcher", self.searcher),
            seed=check_seed("seed", self.seed),
            budget=whole("budget", self.budget, 1, 10**9),
            batch=whole("batch", self.batch, 1, MOST),
            replicates=whole("replicates", self.replicates, 1, MOST),
            noise=text("noise", self.noise, NOISE_MODES),
            confirm=whole("confirm", self.confirm, most=MOST),
            recommend=text("recommend", self.recommend),
            reduction=text("reduction", self.reduction),
            sealed=text("sealed", self.sealed),
            tasks=whole("tasks", self.tasks, 0, MOST_TASKS),
            protocol=text("protocol", self.protocol, PROTOCOLS),
            max_similarity=check_max_similarity(self.max_similarity),
            start=text("start", self.start),
        )
        check_engine(self.engine, self.device)
        if self.confirm < 2:
            raise UserError(f"confirm must be at least 2 replicates (it has a standard error), got {self.confirm}")
        if self.budget < self.batch:
            raise UserError(f"budget must hold at least one batch of {self.batch}, got {self.budget}; lower --batch")
        self._check_recommend()
        self._check_discovery()
        for what, of, value in (("seal", "key", self.sealed), ("fingerprint", "start", self.start)):
            if not re.fullmatch(f"([0-9a-f]{{{SEAL_DIGITS}}})?", value):
                raise UserError(
                    f"a {what} has {SEAL_DIGITS} hex digits, got {echo(value)}; the file of a {of} goes to the options"
                )

    def _check_recommend(self) -> None:
        share = race_share(self.recommend)
        if share is not None:
            check_race(self.recommend, self.budget, self.batch)
            object.__setattr__(self, "recommend", f"race:{share!r}")  # .25 and 0.250 are one rule
        elif self.recommend not in RECOMMEND_RULES:
            raise UserError(
                f"recommend must be one of {', '.join(RECOMMEND_RULES)}, race:F, got {echo(self.recommend)}"
            )

    def _check_discovery(self) -> None:
        if not self.tasks:
            for name, value in ONE_LABELING.items():
                if getattr(self, name) != value:
                    raise UserError(f"{setting(name)} is for runs that discover several tasks; give tasks, such as 16")
            return
        if race_share(self.recommend) is not None:
            raise UserError(
                f"recommend {self.recommend} is for runs that recommend one labeling; with tasks use searcher or best"
            )
        if self.tasks > self.budget:
            raise UserError(
                f"{self.tasks} tasks need a budget of as many evaluations, got {self.budget}; raise --budget"
            )
        rule = Dissimilar(self.n, self.n // (self.ratio + 1), self.max_similarity)
        if self.tasks > rule.most_labelings:
            raise UserError(
                f"at most {rule.most_labelings} labelings of {rule.positives} positives among {self.n} images "
                f"can share {rule.max_overlap} positives or fewer, got {self.tasks} tasks; lower --tasks or raise "
                "--max-similarity"
            )

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

        A setting that came after 0.1.0 is only there where it differs from its default: keys stay as they were.
        """
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not (field.metadata.get("later") and getattr(self, field.name) == field.default)
        }

    @classmethod
    def from_recorded(cls, values: dict[str, Any]) -> RunSettings:
        """The settings that a log has.

        Raises:
            UserError: there is one among them that this version does not know.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := [name for name in values if name not in known]:
            raise UserError(f"the log has a run with the setting {unknown[0]!r}, which this version does not know")
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**given)

    def key(self, space: TaskSpace) -> str:
        """12 hex digits that are equal for runs with the same arguments on the same images."""
        return self._key(space, self.lr)

    def keys(self, space: TaskSpace) -> tuple[str, ...]:
        """The key, and the other one that version 0.1.0 gave these arguments where it was told lr=1, not lr=1.0."""
        key = self.key(space)
        return (key, self._key(space, int(self.lr))) if self.lr.is_integer() else (key,)

    def _key(self, space: TaskSpace, lr: float) -> str:
        settings = {**self.recorded(), "lr": lr}
        settings["data"] = space.source  # where the file lies does not matter, and the identity covers the pixels
        text = json.dumps({**settings, "space": space.identity}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class RunProgress:
    """How far a run has come, as `on_batch` is told after each batch of evaluations.

    Attributes:
        run: its id, as the leaderboard has it.
        searcher: with its reduction, as leaderboards call it.
        seed: the run seed.
        evaluations: committed so far, and so kept whatever happens.
        budget: evaluations of the whole run.
        best_told: the highest taskness that the searcher was told so far.
    """

    run: str
    searcher: str
    seed: int
    evaluations: int
    budget: int
    best_told: float


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
        threads: CPU threads of the engine; one per core by default. With a cluster ``local:N``, of each worker; one by
            default.
        cluster: where the workers are that train: ``local:N``, the address of a Dask scheduler, or a table
            (`tdbench.cluster.spec.Cluster`); empty trains in this process.
        workers: most searchers alive at a time.
        progress: show a live progress bar.
        sealed: the file of the key that draws the confirmation replicates (definitions, section 5); None draws them
            from the space seed. Its seal must be the `sealed` of the settings.
        start: the file of the labelings that the search begins from, a CSV or an `.npz` such as a task library. Their
            fingerprint must be the `start` of the settings.
        searcher_log: a file to which all that searchers and reductions print and log is appended.
        references: which reference tasks are confirmed beside the results: ``all``, ``few``, ``none``, or ``auto``,
            which is ``all`` where they cost at most as many trainings as the search, else ``few``.
        max_seconds: stop after so many seconds of search and confirmation; the start of searchers and the replay of
            recorded evaluations count. None sets no limit.
        on_batch: called with a `RunProgress` after each batch of a run is committed; it stops all runs of the call by
            returning False. What it raises ends the call as well.
    """

    out: str | os.PathLike[str] = DEFAULT_OUT
    resume: bool = False
    again: bool = False
    data_dir: str | os.PathLike[str] | None = None
    download: bool = False
    plugins: tuple[str, ...] = ()
    ask_timeout: float = 600.0
    start_timeout: float = 120.0
    memory_limit: int = 4096
    threads: int | None = None
    cluster: Cluster = Cluster()  # noqa: RUF009 - it is frozen
    workers: int = 64
    progress: bool = False
    sealed: str | os.PathLike[str] | None = None
    start: str | os.PathLike[str] | None = None
    searcher_log: str | os.PathLike[str] | None = None
    references: str = "auto"
    max_seconds: float | None = None
    on_batch: Callable[[RunProgress], bool | None] | None = None

    def __post_init__(self) -> None:
        plugins = (self.plugins,) if isinstance(self.plugins, str | os.PathLike) else self.plugins
        set_fields(
            self,
            out=path_text("out", self.out),
            data_dir=None if self.data_dir is None else path_text(setting("data_dir"), self.data_dir),
            plugins=tuple(path_text("a plugin", plugin) for plugin in members("plugins", plugins)),
            threads=None if self.threads is None else whole("threads", self.threads, 1, 4096),
            cluster=Cluster.of(self.cluster),
            sealed=None if self.sealed is None else path_text("sealed (a key file)", self.sealed),
            searcher_log=None if self.searcher_log is None else path_text("searcher-log", self.searcher_log),
            start=None if self.start is None else path_text("start", self.start),
            references=text("references", self.references, REFERENCES),
        )
        for name, most in (("memory_limit", 10**9), ("workers", MOST)):
            set_fields(self, **{name: whole(setting(name), getattr(self, name), 1, most)})
        for name in ("ask_timeout", "start_timeout"):
            set_fields(self, **{name: real(setting(name), getattr(self, name), "a number above 0", MOST)})
        if self.max_seconds is not None:
            set_fields(self, max_seconds=real(setting("max_seconds"), self.max_seconds, "a number above 0"))
        if self.on_batch is not None and not callable(self.on_batch):
            raise UserError(f"on_batch must be a function of a RunProgress, got {echo(self.on_batch)}")
        for name in ("resume", "again", "download", "progress"):
            set_fields(self, **{name: truth(name, getattr(self, name))})

    @property
    def folder(self) -> Path:
        return Path(self.out)

    @functools.cached_property
    def log_of_searchers(self) -> Path | None:
        """The file `searcher_log`. Raises UserError where it cannot be written."""
        if self.searcher_log is None:
            return None
        path = Path(self.searcher_log).absolute()
        check_target(path)
        return path

    @functools.cached_property
    def key(self) -> Key | None:
        """The key in the file `sealed`, which is read once. Raises UserError where it cannot be read."""
        return None if self.sealed is None else Key.read(self.sealed)

    @property
    def seal(self) -> str:
        """The seal of the key; empty without one."""
        return "" if self.key is None else self.key.seal


def race_share(recommend: str) -> float | None:
    """F of the rule ``race:F``; None for any other rule.

    Raises:
        UserError: a race without an F, or with one that is not strictly between 0 and 1.
    """
    name, _, written = recommend.partition(":")
    if name != RACE:
        return None
    try:
        share = float(written)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise UserError(
            f"recommend {RACE}:F needs an F between 0 and 1, the share of the budget that it takes, "
            f"such as {RACE}:0.25; got {echo(recommend)}"
        )
    return share


def race_budget(recommend: str, budget: int) -> int:
    """Evaluations of `budget` that the race takes: F x budget, rounded; 0 for any other rule."""
    share = race_share(recommend)
    return 0 if share is None else round(Fraction(repr(share)) * budget)


def search_budget(recommend: str, budget: int) -> int:
    """Evaluations of `budget` that the searcher is asked for, and told: all but the race's."""
    return budget - race_budget(recommend, budget)


def check_race(recommend: str, budget: int, batch: int) -> None:
    """Raises UserError where the rule leaves too few evaluations for a race, or too few for a search before it."""
    if race_share(recommend) is None:
        return
    racing = race_budget(recommend, budget)
    if budget < batch + LEAST_RACE:
        raise UserError(
            f"a race of at least {LEAST_RACE} evaluations after a search of at least one batch of {batch} needs "
            f"a budget of {batch + LEAST_RACE}, got {budget}; raise --budget or lower --batch"
        )
    if racing < LEAST_RACE:
        raise UserError(
            f"recommend {recommend} leaves {racing} of {budget} evaluations to the race, which needs at "
            f"least {LEAST_RACE}: use {RACE}:{_nearest_share(LEAST_RACE, budget, batch)} or more"
        )
    if budget - racing < batch:
        raise UserError(
            f"recommend {recommend} leaves {budget - racing} of {budget} evaluations to the search, which "
            f"needs at least one batch of {batch}: use {RACE}:{_nearest_share(budget - batch, budget, batch)} "
            "or less, or lower --batch"
        )


def _nearest_share(evaluations: int, budget: int, batch: int) -> str:
    """A share with few digits that gives the race about so many evaluations, and leaves enough to race and search."""
    for digits in range(2, 20):
        below = Fraction(evaluations * 10**digits // budget, 10**digits)
        for share in (below, below + Fraction(1, 10**digits)):
            if LEAST_RACE <= round(share * budget) <= budget - batch:
                return f"{float(share)!r}"
    raise AssertionError("a share with 19 digits is exact")
