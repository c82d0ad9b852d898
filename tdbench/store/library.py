"""TaskLibrary: labelings of one image set that differ from each other, with their scores and where they came from.

Definitions, section 10. A discovery ends as one; it is a file that people keep and pass on (`library_file`).
"""

from __future__ import annotations

import dataclasses
import functools
import html
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdbench.base.arguments import path_text, set_fields, text, whole
from tdbench.base.errors import UserError, echo, setting
from tdbench.space.labelings import LabelVectors
from tdbench.space.references import ReferenceTask
from tdbench.space.score import standard_error
from tdbench.space.settings import SPACE_COLUMNS, SpaceSettings
from tdbench.space.similarity import DEFAULT_MAX_SIMILARITY, Dissimilar, check_max_similarity
from tdbench.space.task_space import MOST, TaskSpace
from tdbench.store import library_checks as checks
from tdbench.store import library_file, worth

if TYPE_CHECKING:
    import pandas

LEAST_CONFIRM = 2  # replicates; a standard error needs two


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TaskLibrary:
    """m labelings of one image set, no two of them more similar than `max_similarity`. Its arrays are read-only.

    >>> space = TaskSpace("digits", n=10, steps=5)
    >>> labels = space.random_labelings(3)
    >>> library = TaskLibrary.of(space, labels, space.confirm(labels, 4), engine="native cpu", max_similarity=1.0)
    >>> library
    TaskLibrary(3 of 3 tasks, digits, n=10, ratio=4, seed=0, identity=6ca20b096adb)
    >>> library.similarity().shape, len(library.filter(min_confirmed=1.0))
    ((3, 3), 0)

    Attributes:
        labels: (m, N) uint8, P ones each.
        confirmed_values: (m, R) taskness on each of the R replicates of the space's confirmation.
        told: (m,) mean taskness that the searcher was told; NaN where it never was.
        evaluations: (m,) how often the search evaluated it; 0 where it never did.
        searchers, runs: (m,) who found it, and in which run: names as a leaderboard has them.
        space: the identity of the space.
        settings: the space's settings. `data` is the name of the source, `classes` are those that were drawn.
        engine: what confirmed it: engine, device, details, and the seal where the confirmation was sealed.
        tasks: K, the places that the library has, at least m.
        max_similarity: no two members are more similar (definitions, section 10).
        source_index: (N,) where each image of the set is in the source; None if that is not known.
        references: labelings of the set that are known to mean something: classes and pixel statistics.

    Raises:
        UserError: a field of a wrong type or shape or out of range, or two members that are too similar.
    """

    labels: NDArray[np.uint8]
    confirmed_values: NDArray[np.float64]
    told: NDArray[np.float64]
    evaluations: NDArray[np.int64]
    searchers: tuple[str, ...]
    runs: tuple[str, ...]
    space: str
    settings: SpaceSettings
    engine: str
    tasks: int
    max_similarity: float = DEFAULT_MAX_SIMILARITY
    source_index: NDArray[np.int64] | None = None
    references: tuple[ReferenceTask, ...] = field(default=())

    def __post_init__(self) -> None:
        if not isinstance(self.settings, SpaceSettings):
            raise UserError(f"settings must be SpaceSettings, got {echo(self.settings)}")
        if not isinstance(self.space, str) or not re.fullmatch("[0-9a-f]{12}", self.space):
            raise UserError(f"the identity of a space has 12 hex digits, got {echo(self.space)}")
        n = self.settings.n
        labels = checks.labels("labels", self.labels, n, self.positives)
        m = len(labels)
        values = checks.numbers("confirmed_values", self.confirmed_values, (m, "R"))
        if values.shape[1] < LEAST_CONFIRM or not np.isfinite(values).all():
            raise UserError(f"confirmed_values must be finite, of at least {LEAST_CONFIRM} replicates")
        told = checks.numbers("told", self.told, (m,))
        if np.isinf(told).any():
            raise UserError("told must be finite, or NaN where a labeling was never told")
        evaluations = checks.counts("evaluations", self.evaluations, m)
        index = None if self.source_index is None else checks.counts("source_index", self.source_index, n)
        if index is not None and len(np.unique(index)) < n:
            raise UserError("source_index must have every image once")
        for array in (labels, values, told, evaluations, index):
            if array is not None:
                array.flags.writeable = False
        set_fields(
            self,
            labels=labels,
            confirmed_values=values,
            told=told,
            evaluations=evaluations,
            source_index=index,
            searchers=checks.names("searchers", self.searchers, m),
            runs=checks.names("runs", self.runs, m),
            engine=text("engine", self.engine),
            tasks=whole("tasks", self.tasks, max(m, 1), MOST),
            max_similarity=check_max_similarity(self.max_similarity),
            references=tuple(checks.reference(task, n, self.positives) for task in self.references),
        )
        self._check_similarity()

    @classmethod
    def of(
        cls,
        space: TaskSpace,
        labels: LabelVectors,
        confirmed_values: NDArray[np.float64],
        *,
        engine: str,
        told: ArrayLike | None = None,
        evaluations: ArrayLike | None = None,
        searchers: str | Sequence[str] = "",
        runs: str | Sequence[str] = "",
        tasks: int | None = None,
        max_similarity: float = DEFAULT_MAX_SIMILARITY,
    ) -> TaskLibrary:
        """A library of labelings of that space, the best confirmed first; a single name stands for all members."""
        m = len(labels)
        library = cls(
            labels=labels,
            confirmed_values=confirmed_values,
            told=np.full(m, np.nan) if told is None else np.asarray(told),
            evaluations=np.zeros(m, dtype=np.int64) if evaluations is None else np.asarray(evaluations),
            searchers=(searchers,) * m if isinstance(searchers, str) else tuple(searchers),
            runs=(runs,) * m if isinstance(runs, str) else tuple(runs),
            space=space.identity,
            settings=settings_of(space),
            engine=engine,
            tasks=max(m, 1) if tasks is None else tasks,
            max_similarity=max_similarity,
            source_index=space.source_index,
            references=space.reference_tasks,
        )
        return library.best_first()

    @property
    def positives(self) -> int:
        """P, of each labeling."""
        return self.settings.n // (self.settings.ratio + 1)

    @property
    def rule(self) -> Dissimilar:
        """The rule that its members obey."""
        return Dissimilar(self.settings.n, self.positives, self.max_similarity)

    @property
    def confirm(self) -> int:
        """R, the replicates of the confirmation."""
        return int(self.confirmed_values.shape[1])

    @functools.cached_property
    def confirmed(self) -> NDArray[np.float64]:
        """(m,) mean taskness over the confirmation's replicates."""
        return np.array([row.mean() for row in self.confirmed_values], dtype=np.float64)

    @functools.cached_property
    def confirmed_se(self) -> NDArray[np.float64]:
        """(m,) standard errors of `confirmed`."""
        return np.array([standard_error(row) for row in self.confirmed_values], dtype=np.float64)

    @property
    def by_rank(self) -> NDArray[np.float64]:
        """(K,) confirmed taskness of the best member, the second best, and so on; an empty place counts 0."""
        ranked = np.zeros(self.tasks)
        ranked[: len(self)] = np.sort(self.confirmed)[::-1]
        return ranked

    @property
    def confirmed_qd(self) -> float:
        """(1/K) sum of max(0, confirmed)."""
        return worth.quality(self.confirmed, self.tasks)

    @property
    def confirmed_qd_se(self) -> float:
        """The standard error of `confirmed_qd` over replicates."""
        return worth.quality_se(self.confirmed_values, self.tasks)

    @property
    def told_qd(self) -> float:
        """(1/K) sum of max(0, told); members that were never told count 0."""
        return worth.quality(self.told, self.tasks)

    @property
    def effective_number(self) -> float:
        """How many different tasks it holds in effect (definitions, section 10)."""
        return worth.effective_number(self.similarity())

    def recall(self) -> worth.Recall:
        """Which of its reference tasks it has found again."""
        return worth.recall(self.labels, self.references)

    def similarity(self) -> NDArray[np.float64]:
        """(m, m) similarity of its members: Cohen's kappa, at P = N/2 its square."""
        return self.rule.similarity(self.labels, self.labels)

    def best_first(self) -> TaskLibrary:
        """The same library, the best confirmed member first."""
        return self._members(worth.best_first(self.confirmed))

    def filter(
        self,
        keep: ArrayLike | Callable[[TaskLibrary], ArrayLike] | None = None,
        *,
        min_confirmed: float | None = None,
    ) -> TaskLibrary:
        """The same library with some of its members; K stays, so places become empty.

        Args:
            keep: (m,) booleans, or a function that gives them for this library.
            min_confirmed: the least confirmed taskness of a member.

        Raises:
            UserError: `keep` has another shape or type.
        """
        mask = np.ones(len(self), dtype=np.bool_)
        if keep is not None:
            given = np.asarray(keep(self) if callable(keep) else keep)
            if given.dtype != np.bool_ or given.shape != mask.shape:
                raise UserError(f"keep must be {len(self)} booleans, got {echo(given)}")
            mask &= given
        if min_confirmed is not None:
            mask &= self.confirmed >= min_confirmed
        return self._members(np.flatnonzero(mask))

    def merge(self, *others: TaskLibrary, max_similarity: float | None = None, tasks: int | None = None) -> TaskLibrary:
        """One library of the members of several, the best confirmed first; those too similar to a better one drop out.

        Args:
            max_similarity: of the new library; that of this one by default.
            tasks: K of the new library; by default as many as there is room for, so that none of its places is empty.

        Raises:
            UserError: the libraries are of unlike spaces, or their confirmed scores cannot be compared.
        """
        libraries = (self, *others)
        for other in others:
            self._check_comparable(other)
        similarity = self.max_similarity if max_similarity is None else check_max_similarity(max_similarity)
        labels = np.concatenate([library.labels for library in libraries])
        order = worth.best_first(np.concatenate([library.confirmed for library in libraries]))
        most = len(labels) if tasks is None else whole("tasks", tasks, 1, MOST)
        chosen = Dissimilar(self.settings.n, self.positives, similarity).choose(labels, order, most)
        return replace(
            self,
            **_taken(libraries, chosen),
            tasks=max(len(chosen), 1) if tasks is None else tasks,
            max_similarity=similarity,
        )

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas DataFrame with a row for each member; the columns are those of the CSV file."""
        import pandas as pd

        return pd.DataFrame(self.records(), columns=list(library_file.COLUMNS))

    def records(self) -> list[dict[str, Any]]:
        """For each member its scores, provenance, positives (indices of images) and labels, as plain values."""
        return [
            {
                "confirmed": float(self.confirmed[i]),
                "confirmed_se": float(self.confirmed_se[i]),
                "told": float(self.told[i]),
                "evaluations": int(self.evaluations[i]),
                "searcher": self.searchers[i],
                "run": self.runs[i],
                "positives": np.flatnonzero(labels).tolist(),
                "labels": labels.tolist(),
            }
            for i, labels in enumerate(self.labels)
        ]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an `.npz`, and a CSV file of the same name that people can read; both appear whole or not at all.

        Raises:
            UserError: the name does not end with ``.npz``, or the files cannot be written.
        """
        return library_file.write(Path(path_text("path", path)), self._fields(), self.records())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TaskLibrary:
        """The library in an `.npz` of `save`.

        Raises:
            UserError: the file cannot be read, is no library, is damaged, or was written by a later version.
        """
        path = Path(path_text("path", path))
        fields = library_file.read(path)
        try:
            return cls(**fields)
        except UserError as error:
            raise UserError(f"{path} is no proper task library: {error}") from error

    def differences(self, space: str, settings: SpaceSettings) -> str:
        """In what its space differs from another one, for an error."""
        ours, theirs = dataclasses.asdict(self.settings), dataclasses.asdict(settings)
        differ = [f"{name} {echo(ours[name])} and {echo(theirs[name])}" for name in ours if ours[name] != theirs[name]]
        return f"{self.space} and {space} differ in {'; '.join(differ) or 'their images or networks'}"

    def __len__(self) -> int:
        return len(self.labels)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskLibrary):
            return NotImplemented
        ours, theirs = self._fields(), other._fields()
        return ours.keys() == theirs.keys() and all(library_file.same(ours[name], theirs[name]) for name in ours)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        s = self.settings
        where = f"{s.data}, n={s.n}, ratio={s.ratio}, seed={s.space_seed}, identity={self.space}"
        return f"TaskLibrary({len(self)} of {self.tasks} tasks, {where})"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.to_dataframe().drop(columns='labels').to_html()}"

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def _members(self, chosen: NDArray[np.int64]) -> TaskLibrary:
        return replace(self, **_taken([self], chosen))

    def _check_similarity(self) -> None:
        rule = self.rule
        for i in range(1, len(self)):
            earlier = self.labels[:i]
            if not rule.allowed(self.labels[i : i + 1], earlier)[0]:
                similar = rule.similarity(self.labels[i : i + 1], earlier)[0]
                other, most = int(similar.argmax()), similar.max()
                raise UserError(
                    f"labelings {other + 1} and {i + 1} are the same task"
                    if most > 1 - 1e-9
                    else f"labelings {other + 1} and {i + 1} have similarity {most:.3f}, "
                    f"{setting('max_similarity')} is {self.max_similarity:g}"
                )

    def _check_comparable(self, other: TaskLibrary) -> None:
        if not isinstance(other, TaskLibrary):
            raise UserError(f"expected a TaskLibrary, got {echo(other)}")
        if self.space != other.space:
            raise UserError(
                f"libraries of unlike spaces cannot be joined: {self.differences(other.space, other.settings)}"
            )
        if self.confirm != other.confirm:
            raise UserError(
                f"confirmed scores of {self.confirm} and of {other.confirm} replicates cannot be joined; "
                "confirm one library again with `tdbench tasks score`"
            )
        if self.engine != other.engine:
            raise UserError(
                f"confirmed scores of engine {self.engine!r} and of {other.engine!r} cannot be joined; "
                "confirm one library again with `tdbench tasks score`"
            )


def settings_of(space: TaskSpace) -> SpaceSettings:
    """The settings that make the space again from its source, with the classes that were drawn.

    Where a source gives two of them one name, they are drawn again.
    """
    distinct = len(set(space.classes)) == len(space.classes)
    columns = {**space.columns, "classes": space.classes if distinct else None}
    return SpaceSettings(**{name: columns[name] for name in SPACE_COLUMNS})


def _taken(libraries: Sequence[TaskLibrary], chosen: NDArray[np.int64]) -> dict[str, Any]:
    """The fields of some members, by their places in the libraries together."""
    arrays = {
        name: np.concatenate([getattr(library, name) for library in libraries])[chosen]
        for name in ("labels", "confirmed_values", "told", "evaluations")
    }
    names = {name: [word for library in libraries for word in getattr(library, name)] for name in ("searchers", "runs")}
    return {**arrays, **{name: tuple(words[i] for i in chosen.tolist()) for name, words in names.items()}}
