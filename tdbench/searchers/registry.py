"""Finding searchers and reductions: a fresh plugin manager each time, every plugin on its own, and what came of it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from tdbench.base.errors import UserError, nearest
from tdbench.searchers import hookspecs
from tdbench.searchers.reduction import IDENTITY, JOINT, Identity, Reduction, ReductionFactory, ReductionProblem
from tdbench.searchers.searcher import Problem, Searcher

GROUP = "tdbench"
MAX_NAME = 80
_REDUCTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_DIM = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Registration:
    """A searcher as a plugin registered it."""

    name: str
    factory: Callable[..., Searcher]
    summary: str
    version: str
    sees_images: bool
    baseline: bool
    reducible: bool  # it runs in any problem.dim
    variants: Callable[[], Sequence[str]] | None
    plugin: str
    origin: str  # the distribution or file it comes from

    def make(self, problem: Problem, variant: str | None = None) -> Searcher:
        return self.factory(problem) if variant is None else self.factory(problem, variant)


@dataclass(frozen=True)
class ReductionRegistration:
    """A reduction as a plugin registered it."""

    name: str
    factory: ReductionFactory
    summary: str
    version: str
    sees_images: bool
    takes_dim: bool
    plugin: str
    origin: str  # the distribution or file it comes from

    @property
    def shown(self) -> str:
        """How it is written: ``ntk:D``, or ``identity``."""
        return f"{self.name}:D" if self.takes_dim else self.name

    def make(self, problem: ReductionProblem) -> Reduction:
        return self.factory(problem)


@dataclass
class Plugins:
    """What was found: searchers and reductions by name, failures by plugin, and names claimed twice."""

    searchers: dict[str, Registration] = field(default_factory=dict)
    reductions: dict[str, ReductionRegistration] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    conflicts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reduction_conflicts: dict[str, tuple[str, ...]] = field(default_factory=dict)

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
            if claimed in self.conflicts:
                raise _claimed_twice("searcher", claimed, self.conflicts[claimed])
        if name in self.searchers and self.searchers[name].variants is None:
            return self.searchers[name], None
        registration = self.searchers.get(family)
        if registration is None or registration.variants is None:
            raise UserError(f"unknown searcher {name!r}{nearest(name, self.searchers)}{self.failed_hint()}")
        known = _variants(registration)
        if not colon or variant not in known:
            what = f"searcher {name!r} needs a variant, {family}:NAME" if not colon else f"unknown searcher {name!r}"
            close = [f"{family}:{v}" for v in known] if colon else [f"{family}:{v}" for v in list(known)[:3]]
            raise UserError(f"{what}{nearest(name, close)}")
        return registration, variant

    def reduction(self, name: str) -> tuple[ReductionRegistration, int | None]:
        """The registration that ``name:D`` or ``name`` means, and D where it takes one.

        Raises:
            UserError: unknown name (with the nearest ones), one that two plugins claim, or a D that is missing, too
                much, or no whole number from 1.
        """
        family, colon, written = name.partition(":")
        if family in self.reduction_conflicts:
            raise _claimed_twice("reduction", family, self.reduction_conflicts[family])
        registration = self.reductions.get(family)
        if registration is None:
            known = [known.shown for known in self.reductions.values()]
            raise UserError(f"unknown reduction {name!r}{nearest(name, known)}{self.failed_hint()}")
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


def load_plugins(extra: Iterable[str] = (), *, extra_must_load: bool = False) -> Plugins:
    """Load every installed plugin, and `extra` ones given as a ``.py`` file or a module name.

    A plugin that fails to import or to register is recorded in `failures` and harms no other.

    Raises:
        UserError: one of the `extra` plugins fails, and they must load.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    found = Plugins()
    searchers: list[Registration] = []
    reductions = [_identity()]
    extra = _resolved(extra)
    for name, origin, version, load in _candidates(extra):
        if manager.has_plugin(name) or name in found.failures:
            name = f"{name} ({origin})"
        try:
            plugin = load()
            if manager.is_registered(plugin):
                continue  # an installed plugin, given once more by its module's name
            manager.register(plugin, name=name)
            manager.check_pending()
            own_searchers = _searchers(manager, plugin, name, origin, version)
            own_reductions = _reductions(manager, plugin, name, origin, version)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything on import, SystemExit too
            found.failures[name] = f"{type(error).__name__}: {error} [{origin}]".replace("\n", " ")
            if extra_must_load and origin in extra:
                raise UserError(f"plugin {name} cannot be loaded: {found.failures[name]}") from error
            if manager.has_plugin(name):
                manager.unregister(name=name)
        else:  # a plugin that fails in one hook counts for nothing in the other
            searchers += own_searchers
            reductions += own_reductions
    found.searchers, found.conflicts = _settled(searchers)
    found.reductions, found.reduction_conflicts = _settled(reductions)
    return found


def load_file_or_module(name: str) -> ModuleType:
    """The module in that ``.py`` file, or of that name."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).resolve()
    module_name = f"tdbench_plugin_{path.stem}_{zlib.crc32(str(path).encode()):08x}"  # two files may share a name
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no plugin file {name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before it runs: dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


R = TypeVar("R", Registration, ReductionRegistration)


def _settled(registrations: Iterable[R]) -> tuple[dict[str, R], dict[str, tuple[str, ...]]]:
    """Registrations by name, and the owners of names that were claimed more than once."""
    claims: dict[str, list[R]] = {}
    for registration in registrations:
        claims.setdefault(registration.name, []).append(registration)
    return (
        {name: claimed[0] for name, claimed in claims.items() if len(claimed) == 1},
        {name: tuple(f"{r.plugin} ({r.origin})" for r in claimed) for name, claimed in claims.items() if claimed[1:]},
    )


def _claimed_twice(what: str, name: str, owners: Sequence[str]) -> UserError:
    return UserError(f"{what} {name!r} is claimed by two plugins, {' and '.join(owners)}; uninstall one of them")


def _identity() -> ReductionRegistration:
    """tdbench's own, so that a run without a reduction depends on no plugin."""
    try:
        version = importlib.metadata.version("tdbench")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    summary = (Identity.__doc__ or "").strip()
    return ReductionRegistration(IDENTITY, Identity, summary, version, False, False, "tdbench", "tdbench")


def _variants(registration: Registration) -> Sequence[str]:
    try:
        return registration.variants() if registration.variants is not None else ()
    except Exception as error:  # the plugin's own code: its library may be missing
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise UserError(f"the variants of {registration.name!r} cannot be listed: {what}") from error


def _resolved(extra: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(str(Path(name).resolve()) if name.endswith(".py") else name for name in extra))


def _candidates(extra: Iterable[str]) -> Iterable[tuple[str, str, str, Callable[[], Any]]]:
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        dist = entry.dist
        label, version = (dist.metadata["Name"], dist.version) if dist is not None else (entry.value, "")
        yield entry.name, label, version, entry.load
    for name in extra:
        yield Path(name).stem, name, "", lambda name=name: load_file_or_module(name)  # type: ignore[misc]


def _searchers(
    manager: pluggy.PluginManager, plugin: Any, plugin_name: str, origin: str, version: str
) -> list[Registration]:
    registered: list[Registration] = []

    def register(
        name: str,
        factory: Callable[..., Searcher],
        *,
        summary: str = "",
        version: str | None = version,
        sees_images: bool = False,
        baseline: bool = False,
        reducible: bool = True,
        variants: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
            raise UserError(f"a searcher's name must be 1 to {MAX_NAME} printable characters, got {name!r}")
        if JOINT in name:
            raise UserError(f"a searcher's name must have no {JOINT!r}, which joins it to a reduction, got {name!r}")
        registered.append(
            Registration(
                name,
                factory,
                summary or _first_line(factory),
                version or "",
                sees_images,
                baseline,
                reducible,
                variants,
                plugin_name,
                origin,
            )
        )

    _call(manager, plugin, "register_searchers", register)
    return _checked("searcher", registered)


def _reductions(
    manager: pluggy.PluginManager, plugin: Any, plugin_name: str, origin: str, plugin_version: str
) -> list[ReductionRegistration]:
    registered: list[ReductionRegistration] = []

    def register(
        name: str,
        factory: ReductionFactory,
        *,
        summary: str = "",
        version: str | None = plugin_version,
        sees_images: bool = False,
        takes_dim: bool = True,
    ) -> None:
        if not isinstance(name, str) or not _REDUCTION_NAME.fullmatch(name) or len(name) > MAX_NAME:
            raise UserError(
                f"a reduction's name must be 1 to {MAX_NAME} letters, digits, - and _, a letter first, got {name!r}"
            )
        if name == IDENTITY:
            raise UserError(f"reduction {IDENTITY!r} is tdbench's own; take another name")
        summary = summary or _first_line(factory)
        registered.append(
            ReductionRegistration(name, factory, summary, version or "", sees_images, takes_dim, plugin_name, origin)
        )

    _call(manager, plugin, "register_reductions", register)
    return _checked("reduction", registered)


def _call(manager: pluggy.PluginManager, plugin: Any, hook: str, register: Callable[..., None]) -> None:
    """Call a hook of this plugin alone."""
    others = [other for other in manager.get_plugins() if other is not plugin]
    manager.subset_hook_caller(hook, remove_plugins=others)(register=register)


def _checked(what: str, registered: list[R]) -> list[R]:
    """What one plugin registered. Raises UserError for a name it gave twice, and a factory that is none."""
    names: set[str] = set()
    for registration in registered:
        if registration.name in names:
            raise UserError(f"{what} {registration.name!r} is registered twice by plugin {registration.plugin}")
        if not callable(registration.factory):
            raise UserError(
                f"the factory of {what} {registration.name!r} must be callable, got {registration.factory!r}"
            )
        names.add(registration.name)
    return registered


def _first_line(factory: Callable[..., Any]) -> str:
    return (factory.__doc__ or "").strip().partition("\n")[0]
