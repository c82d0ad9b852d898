"""What plugins register, and what a name of a searcher or a reduction means. Nothing of a plugin runs here."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from tdbench.base.arguments import whole
from tdbench.base.errors import UserError, nearest
from tdbench.base.text import error_line
from tdbench.searchers import hookspecs
from tdbench.searchers.reduction import IDENTITY, JOINT, Identity, Reduction, ReductionProblem
from tdbench.searchers.searcher import Problem, Searcher

GROUP = "tdbench"
MAX_NAME = 80
MOST_VARIANTS = 10_000
MOST_BATCH = 10**6
_REDUCTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_DIM = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class PluginSource:
    """Where a plugin is: enough to load it, and it alone, in another process.

    Attributes:
        name: of the plugin, for messages.
        origin: the distribution, file or module that it comes from.
        version: of its distribution, or ''.
        kind: ``entry`` for an entry point, ``file`` or ``module``; ``own`` for tdbench's own identity.
        target: the entry point's value, the absolute path of the file, or the module's name.
    """

    name: str
    origin: str
    version: str
    kind: str
    target: str

    @property
    def named_by_user(self) -> bool:
        """Whether it was given with ``--plugin``, and need not be installed."""
        return self.kind in ("file", "module")


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What every kind of plugin registers: the arguments of its ``register(...)``, and where they come from.

    In the core process, which runs no plugin's code, `factory` and `variants` stand for code that is elsewhere.
    """

    name: str
    factory: Callable[..., Any]
    summary: str
    version: str
    sees_images: bool
    source: PluginSource

    @property
    def plugin(self) -> str:
        return self.source.name

    @property
    def origin(self) -> str:
        """The distribution or file that it comes from."""
        return self.source.origin

    @property
    def shown(self) -> str:
        """How the name is written."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class Registration(Registered):
    """A searcher as a plugin registered it."""

    baseline: bool
    reducible: bool  # it runs in any problem.dim
    takes_start: bool = False
    batch: int | None = None  # that it prefers
    variants: Callable[[], Sequence[str]] | None

    def make(self, problem: Problem, variant: str | None = None) -> Searcher:
        made: Searcher = self.factory(problem) if variant is None else self.factory(problem, variant)
        return made


@dataclass(frozen=True, kw_only=True)
class ReductionRegistration(Registered):
    """A reduction as a plugin registered it."""

    takes_dim: bool

    @property
    def shown(self) -> str:
        """How the name is written: ``ntk:D``, or ``identity``."""
        return f"{self.name}:D" if self.takes_dim else self.name

    def make(self, problem: ReductionProblem) -> Reduction:
        made: Reduction = self.factory(problem)
        return made


def _check_searcher_name(name: Any) -> None:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
        raise UserError(f"a searcher's name must be 1 to {MAX_NAME} printable characters, got {name!r}")
    if JOINT in name:
        raise UserError(f"a searcher's name must have no {JOINT!r}, which joins it to a reduction, got {name!r}")


def check_batch(value: Any) -> int | None:
    """The batch that a searcher prefers, None where it has no preference. Raises UserError for anything else."""
    return None if value is None else whole("batch", value, 1, MOST_BATCH)


def _check_reduction_name(name: Any) -> None:
    if not isinstance(name, str) or not _REDUCTION_NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise UserError(
            f"a reduction's name must be 1 to {MAX_NAME} letters, digits, - and _, a letter first, got {name!r}"
        )
    if name == IDENTITY:
        raise UserError(f"reduction {IDENTITY!r} is tdbench's own; take another name")


R = TypeVar("R", bound=Registered)


@dataclass(frozen=True)
class Kind(Generic[R]):
    """A kind of plugin: all that loading needs to know of it.

    One more kind is a hook in `hookspecs`, a `Registered`, a `Kind`, and a field of `Plugins`.

    Attributes:
        what: what it is called in messages.
        hook: the hook that its plugins implement, in `hookspecs`.
        register: the protocol in `hookspecs` that has the arguments of ``register(...)`` and their defaults.
        registration: has these arguments as fields.
        factory: how a factory is called, for messages.
        check_name: raises UserError for what can be no name.
    """

    what: str
    hook: Callable[..., None]
    register: type
    registration: type[R]
    factory: str
    check_name: Callable[[Any], None]


SEARCHERS = Kind(
    "searcher",
    hookspecs.register_searchers,
    hookspecs.RegisterSearcher,
    Registration,
    "factory(problem) -> Searcher, or factory(problem, variant) with variants",
    _check_searcher_name,
)
REDUCTIONS = Kind(
    "reduction",
    hookspecs.register_reductions,
    hookspecs.RegisterReduction,
    ReductionRegistration,
    "factory(problem) -> Reduction",
    _check_reduction_name,
)


class Registrations(dict[str, R]):
    """What was found of one kind, by name. A plugin that the user names wins over installed ones.

    Attributes:
        kind: which kind.
        conflicts: the owners of each name that was claimed more than once and is therefore left out.
        notes: a line for each name that a plugin of the user's has taken from an installed one.
    """

    def __init__(self, kind: Kind[R], found: Iterable[R] = ()) -> None:
        super().__init__()
        self.kind = kind
        self.conflicts: dict[str, tuple[str, ...]] = {}
        self.notes: dict[str, str] = {}
        claims: dict[str, list[R]] = {}
        for registration in found:
            claims.setdefault(registration.name, []).append(registration)
        for name, claimed in claims.items():
            given = [r for r in claimed if r.source.named_by_user] or claimed
            if len(given) > 1:
                self.conflicts[name] = tuple(f"{r.plugin} ({r.origin})" for r in given)
                continue
            self[name] = given[0]
            if others := [f"{r.plugin} ({r.origin})" for r in claimed if r is not given[0]]:
                self.notes[name] = (
                    f"{kind.what} {name!r} is that of {given[0].origin}, given with --plugin, and not that of the "
                    f"installed {' and '.join(others)}"
                )

    def is_claimed(self, name: str) -> bool:
        """Whether a plugin, or more than one, claims that name or the family of ``family:VARIANT``."""
        return bool({name, name.partition(":")[0]} & {*self, *self.conflicts})

    def refuse_conflict(self, name: str) -> None:
        """Raises UserError where more than one plugin claims that name."""
        if name in self.conflicts:
            owners = " and ".join(self.conflicts[name])
            raise UserError(f"{self.kind.what} {name!r} is claimed by two plugins, {owners}; uninstall one of them")


@dataclass
class Plugins:
    """What was found: registrations of each kind by name, and failures by plugin."""

    searchers: Registrations[Registration]
    reductions: Registrations[ReductionRegistration]
    failures: dict[str, str]

    @property
    def kinds(self) -> tuple[Registrations[Any], ...]:
        """The registrations of every kind."""
        return self.searchers, self.reductions

    def searcher(self, name: str) -> tuple[Registration, str | None]:
        """The registration that `name` means, and the variant where it is written ``family:VARIANT``.

        Raises:
            UserError: unknown name or variant (with the nearest ones), or one that two plugins claim.
        """
        if JOINT in name:
            searcher, _, reduction = name.partition(JOINT)
            raise UserError(f"{name!r} is not a searcher alone; give searcher {searcher} and reduction {reduction}")
        family, colon, variant = name.partition(":")
        for claimed in (name, family):
            self.searchers.refuse_conflict(claimed)
        if name in self.searchers and self.searchers[name].variants is None:
            return self.searchers[name], None
        registration = self.searchers.get(family)
        if registration is None or registration.variants is None:
            raise self._unknown(name, self.searchers)
        known = known_variants(registration)
        if not colon or variant not in known:
            what = f"searcher {name!r} needs a variant, {family}:NAME" if not colon else f"unknown searcher {name!r}"
            close = [f"{family}:{v}" for v in known] if colon else [f"{family}:{v}" for v in list(known)[:3]]
            raise UserError(f"{what}{nearest(name, close)}")
        return registration, variant

    def reduction(self, name: str) -> tuple[ReductionRegistration, int | None]:
        """The registration that ``name:D`` or ``name`` means, and D where it takes one.

        Raises:
            UserError: unknown name (with the nearest ones), one that two plugins claim, or a D that is missing,
                unwanted, or no whole number from 1.
        """
        family, colon, written = name.partition(":")
        self.reductions.refuse_conflict(family)
        registration = self.reductions.get(family)
        if registration is None:
            raise self._unknown(name, self.reductions)
        if not registration.takes_dim:
            if colon:
                raise UserError(f"reduction {family!r} takes no number of dimensions: write {family}, not {name}")
            return registration, None
        if not colon:
            raise UserError(f"reduction {name!r} needs its number of dimensions, as in {family}:20")
        if not _DIM.fullmatch(written):
            raise UserError(
                f"reduction {name!r} must be {family}:D with a whole number of dimensions, 1 to the number of images"
            )
        return registration, int(written)

    def failed_hint(self) -> str:
        """The end of a message about an unknown name: it may be one of a plugin that failed."""
        if not self.failures:
            return ""
        return f" (plugins that failed to load: {', '.join(sorted(self.failures))}; see `tdbench searchers`)"

    def _unknown(self, name: str, known: Registrations[Any]) -> UserError:
        close = nearest(name, [registration.shown for registration in known.values()])
        return UserError(f"unknown {known.kind.what} {name!r}{close}{self.failed_hint()}")


def known_variants(registration: Registration) -> list[str]:
    """The names V for which ``name:V`` is a searcher; none of a searcher that is no family.

    Raises:
        UserError: the plugin cannot say.
    """
    try:
        names = [] if registration.variants is None else list(islice(registration.variants(), MOST_VARIANTS + 1))
    except UserError:
        raise
    except Exception as error:  # the plugin's own code: its library may be missing
        raise UserError(f"the variants of {registration.name!r} cannot be listed: {error_line(error)}") from error
    if len(names) > MOST_VARIANTS or not all(isinstance(name, str) and name.isprintable() for name in names):
        expected = f"they must be at most {MOST_VARIANTS} printable names"
        raise UserError(f"the variants of {registration.name!r} cannot be listed: {expected}")
    return [str(name) for name in names]


def plugin_sources(extra: Iterable[str] = ()) -> list[PluginSource]:
    """All installed plugins by name, then the `extra` ones. Nothing is imported.

    Args:
        extra: ``.py`` files or names of modules.
    """
    found = []
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        dist = entry.dist
        label, version = (dist.metadata["Name"], dist.version) if dist is not None else (entry.value, "")
        found.append(PluginSource(entry.name, label, version, "entry", entry.value))
    for name in dict.fromkeys(str(Path(name).resolve()) if str(name).endswith(".py") else name for name in extra):
        found.append(PluginSource(Path(name).stem, name, "", "file" if name.endswith(".py") else "module", name))
    return found


def refuse_failed_extras(found: Plugins, extra: Iterable[str]) -> None:
    """Raises UserError where a plugin that the user named has failed."""
    wanted = {source.origin for source in plugin_sources(extra) if source.kind != "entry"}
    for name, failure in found.failures.items():
        if any(failure.endswith(f"[{origin}]") for origin in wanted):
            raise UserError(f"plugin {name} cannot be loaded: {failure}")


def identity() -> ReductionRegistration:
    """tdbench's own reduction, so that a run without one depends on no plugin."""
    try:
        version = importlib.metadata.version("tdbench")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return ReductionRegistration(
        name=IDENTITY,
        factory=Identity,
        summary=(Identity.__doc__ or "").strip(),
        version=version,
        sees_images=False,
        takes_dim=False,
        source=PluginSource("tdbench", "tdbench", version, "own", ""),
    )
