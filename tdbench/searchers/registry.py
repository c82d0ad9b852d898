"""Finding searchers and reductions: a fresh plugin manager each time, every plugin on its own, and what came of it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import pluggy

from tdbench.base.errors import UserError, nearest
from tdbench.searchers import hookspecs
from tdbench.searchers.reduction import IDENTITY, JOINT, Identity, Reduction, ReductionProblem
from tdbench.searchers.searcher import Problem, Searcher

GROUP = "tdbench"
MAX_NAME = 80
_REDUCTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_DIM = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What every kind of plugin registers: the arguments of its ``register(...)``, and where they come from."""

    name: str
    factory: Callable[..., Any]
    summary: str
    version: str
    sees_images: bool
    plugin: str
    origin: str  # the distribution or file it comes from

    @property
    def shown(self) -> str:
        """How the name is written."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class Registration(Registered):
    """A searcher as a plugin registered it."""

    baseline: bool
    reducible: bool  # it runs in any problem.dim
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
    """What was found of one kind, by name.

    Attributes:
        kind: which kind.
        conflicts: the owners of each name that was claimed more than once and is therefore left out.
    """

    def __init__(self, kind: Kind[R], found: Iterable[R] = ()) -> None:
        self.kind = kind
        claims: dict[str, list[R]] = {}
        for registration in found:
            claims.setdefault(registration.name, []).append(registration)
        super().__init__({name: claimed[0] for name, claimed in claims.items() if len(claimed) == 1})
        self.conflicts = {
            name: tuple(f"{r.plugin} ({r.origin})" for r in claimed) for name, claimed in claims.items() if claimed[1:]
        }

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
        known = _variants(registration)
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


def load_plugins(extra: Iterable[str] = (), *, extra_must_load: bool = False) -> Plugins:
    """Load every installed plugin, and `extra` ones given as a ``.py`` file or a module name.

    A plugin that fails to import or to register is recorded in `failures` and harms no other.

    Raises:
        UserError: one of the `extra` plugins fails, and they must load.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    claims: dict[Kind[Any], list[Any]] = {SEARCHERS: [], REDUCTIONS: [_identity()]}
    failures: dict[str, str] = {}
    extra = _resolved(extra)
    for name, origin, version, load in _candidates(extra):
        if manager.has_plugin(name) or name in failures:
            name = f"{name} ({origin})"
        try:
            plugin = load()
            if manager.is_registered(plugin):
                continue  # an installed plugin, given once more by its module's name
            _add(manager, plugin, name, claims)
            own = {kind: _registered(kind, manager, plugin, name, origin, version) for kind in claims}
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything on import, SystemExit too
            failures[name] = f"{type(error).__name__}: {error} [{origin}]".replace("\n", " ")
            if extra_must_load and origin in extra:
                raise UserError(f"plugin {name} cannot be loaded: {failures[name]}") from error
            if manager.has_plugin(name):
                manager.unregister(name=name)
        else:  # a plugin that fails in one hook counts for nothing in the other
            for kind, registrations in own.items():
                claims[kind] += registrations
    return Plugins(Registrations(SEARCHERS, claims[SEARCHERS]), Registrations(REDUCTIONS, claims[REDUCTIONS]), failures)


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


def _identity() -> ReductionRegistration:
    """tdbench's own, so that a run without a reduction depends on no plugin."""
    try:
        version = importlib.metadata.version("tdbench")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return ReductionRegistration(
        name=IDENTITY,
        factory=Identity,
        summary=_first_line(Identity),
        version=version,
        sees_images=False,
        takes_dim=False,
        plugin="tdbench",
        origin="tdbench",
    )


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


def _add(manager: pluggy.PluginManager, plugin: Any, name: str, kinds: Iterable[Kind[Any]]) -> None:
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:  # it quotes the definition found
        expected = " or ".join(f"{kind.hook.__name__}{_parameters(kind.hook)}" for kind in kinds)
        raise pluggy.PluginValidationError(error.plugin, f"{error}; expected {expected}") from error


def _registered(
    kind: Kind[R], manager: pluggy.PluginManager, plugin: Any, plugin_name: str, origin: str, version: str
) -> list[R]:
    """What this plugin, and no other, registers of that kind."""
    registered: dict[str, R] = {}

    def register(*args: Any, **options: Any) -> None:
        arguments = _arguments(kind, args, options)
        name, factory = arguments["name"], arguments["factory"]
        kind.check_name(name)
        if name in registered:
            raise UserError(f"{kind.what} {name!r} is registered twice by plugin {plugin_name}")
        if not callable(factory):
            raise UserError(
                f"the factory of {kind.what} {name!r} must be callable, got {factory!r}; expected {kind.factory}"
            )
        arguments["summary"] = arguments["summary"] or _first_line(factory)
        arguments["version"] = version if arguments["version"] is None else arguments["version"]
        registered[name] = kind.registration(**arguments, plugin=plugin_name, origin=origin)

    others = [other for other in manager.get_plugins() if other is not plugin]
    manager.subset_hook_caller(kind.hook.__name__, remove_plugins=others)(register=register)
    return list(registered.values())


def _arguments(kind: Kind[Any], args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """All arguments of ``register(...)`` by name, defaults too. Raises UserError for a call that does not fit."""
    try:
        call = inspect.signature(kind.register.__call__).bind(None, *args, **options)
    except TypeError as error:
        found = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in options.items())])
        expected = f"register{_parameters(kind.register.__call__)}"
        raise UserError(f"{error}: got register({found}) of a {kind.what}, expected {expected}") from None
    call.apply_defaults()
    return {name: value for name, value in call.arguments.items() if name != "self"}


def _parameters(function: Callable[..., Any]) -> str:
    """The parameters of a function as a plugin's author writes them, without self and types."""
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def _first_line(factory: Callable[..., Any]) -> str:
    return (factory.__doc__ or "").strip().partition("\n")[0]
