"""Finding searchers: a fresh plugin manager each time, every plugin loaded on its own, and what came of it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from tdbench import hookspecs
from tdbench.errors import UserError, nearest
from tdbench.searcher import Problem, Searcher

GROUP = "tdbench"
MAX_NAME = 80


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
    module: str  # what to import (or the file to load) to have it again

    def make(self, problem: Problem, variant: str | None = None) -> Searcher:
        return self.factory(problem) if variant is None else self.factory(problem, variant)


@dataclass
class Plugins:
    """What was found: searchers by name, failures by plugin, and names claimed twice."""

    searchers: dict[str, Registration] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    conflicts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def searcher(self, name: str) -> tuple[Registration, str | None]:
        """The registration that `name` means, and the variant where it is written ``family:VARIANT``.

        Raises:
            UserError: unknown name or variant (with the nearest ones), or one that two plugins claim.
        """
        family, colon, variant = name.partition(":")
        for claimed in (name, family):
            if claimed in self.conflicts:
                owners = " and ".join(self.conflicts[claimed])
                raise UserError(f"searcher {claimed!r} is claimed by two plugins, {owners}; uninstall one of them")
        if name in self.searchers and self.searchers[name].variants is None:
            return self.searchers[name], None
        registration = self.searchers.get(family)
        if registration is None or registration.variants is None:
            raise UserError(f"unknown searcher {name!r}{nearest(name, self.searchers)}{self._failed_hint()}")
        known = _variants(registration)
        if not colon or variant not in known:
            what = f"searcher {name!r} needs a variant, {family}:NAME" if not colon else f"unknown searcher {name!r}"
            close = [f"{family}:{v}" for v in known] if colon else [f"{family}:{v}" for v in list(known)[:3]]
            raise UserError(f"{what}{nearest(name, close)}")
        return registration, variant

    def _failed_hint(self) -> str:
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
    claims: dict[str, list[Registration]] = {}
    extra = _resolved(extra)
    for name, origin, version, module, load in _candidates(extra):
        if manager.has_plugin(name) or name in found.failures:
            name = f"{name} ({origin})"
        try:
            plugin = load()
            if manager.is_registered(plugin):
                continue  # an installed plugin, given once more by its module's name
            manager.register(plugin, name=name)
            manager.check_pending()
            for registration in _registrations(manager, plugin, name, origin, version, module):
                claims.setdefault(registration.name, []).append(registration)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything on import, SystemExit too
            found.failures[name] = f"{type(error).__name__}: {error} [{origin}]".replace("\n", " ")
            if extra_must_load and origin in extra:
                raise UserError(f"plugin {name} cannot be loaded: {found.failures[name]}") from error
            if manager.has_plugin(name):
                manager.unregister(name=name)
    for claimed, registrations in claims.items():
        if len(registrations) == 1:
            found.searchers[claimed] = registrations[0]
        else:
            found.conflicts[claimed] = tuple(f"{r.plugin} ({r.origin})" for r in registrations)
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


def _variants(registration: Registration) -> Sequence[str]:
    try:
        return registration.variants() if registration.variants is not None else ()
    except Exception as error:  # the plugin's own code: its library may be missing
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise UserError(f"the variants of {registration.name!r} cannot be listed: {what}") from error


def _resolved(extra: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(str(Path(name).resolve()) if name.endswith(".py") else name for name in extra))


def _candidates(extra: Iterable[str]) -> Iterable[tuple[str, str, str, str, Callable[[], Any]]]:
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        dist = entry.dist
        label, version = (dist.metadata["Name"], dist.version) if dist is not None else (entry.value, "")
        yield entry.name, label, version, entry.value, entry.load
    for name in extra:
        yield Path(name).stem, name, "", name, lambda name=name: load_file_or_module(name)  # type: ignore[misc]


def _registrations(
    manager: pluggy.PluginManager, plugin: Any, plugin_name: str, origin: str, version: str, module: str
) -> list[Registration]:
    registrations: dict[str, Registration] = {}

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
        if name in registrations:
            raise UserError(f"searcher {name!r} is registered twice by plugin {plugin_name}")
        if not callable(factory):
            raise UserError(f"the factory of searcher {name!r} must be callable, got {factory!r}")
        summary = summary or (factory.__doc__ or "").strip().partition("\n")[0]
        registrations[name] = Registration(
            name,
            factory,
            summary,
            version or "",
            sees_images,
            baseline,
            reducible,
            variants,
            plugin_name,
            origin,
            module,
        )

    others = [other for other in manager.get_plugins() if other is not plugin]
    manager.subset_hook_caller("register_searchers", remove_plugins=others)(register=register)
    return list(registrations.values())
