"""Loading plugins: every plugin on its own, its hooks called, and what came of it. Plugins' code runs here.

Only processes of their own load plugins: those of searchers, reductions and contracts, the one that lists what is
installed, and the tests that a plugin's author runs.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pluggy

from tdbench.base.errors import UserError
from tdbench.base.text import error_line, plain_line
from tdbench.searchers import hookspecs
from tdbench.searchers.registry import (
    GROUP,
    REDUCTIONS,
    SEARCHERS,
    Kind,
    Plugins,
    PluginSource,
    Registered,
    Registrations,
    check_batch,
    identity,
    plugin_sources,
    refuse_failed_extras,
)

MOST_VERSION = 80
R = TypeVar("R", bound=Registered)


def load_plugins(extra: Iterable[str] = (), *, extra_must_load: bool = False) -> Plugins:
    """Load every installed plugin, and `extra` ones given as a ``.py`` file or a module name, in this process.

    A plugin that fails to import or to register is recorded in `failures` and harms no other.

    Raises:
        UserError: one of the `extra` plugins fails, and they must load.
    """
    loaded = load_sources(plugin_sources(extra))
    if extra_must_load:
        refuse_failed_extras(loaded, extra)
    return loaded


def load_sources(sources: Iterable[PluginSource]) -> Plugins:
    """Load these plugins, and tdbench's own identity, in this process."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    claims: dict[Kind[Any], list[Any]] = {SEARCHERS: [], REDUCTIONS: [identity()]}
    failures: dict[str, str] = {}
    for source in sources:
        name = source.name
        if manager.has_plugin(name) or name in failures:
            name = f"{name} ({source.origin})"
        try:
            plugin = _load(source)
            if manager.is_registered(plugin):
                continue  # an installed plugin, given once more by its module's name
            _add(manager, plugin, name, claims)
            own = {kind: _registered(kind, manager, plugin, name, source) for kind in claims}
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything on import, SystemExit too
            failures[name] = f"{error_line(error)} [{source.origin}]"
            if manager.has_plugin(name):
                manager.unregister(name=name)
        else:  # a plugin that fails in one hook counts for nothing in the other
            for kind, registrations in own.items():
                claims[kind] += registrations
    return Plugins(Registrations(SEARCHERS, claims[SEARCHERS]), Registrations(REDUCTIONS, claims[REDUCTIONS]), failures)


def _load(source: PluginSource) -> Any:
    if source.kind == "entry":
        return importlib.metadata.EntryPoint(source.name, source.target, GROUP).load()
    return load_file_or_module(source.target)


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


def _add(manager: pluggy.PluginManager, plugin: Any, name: str, kinds: Iterable[Kind[Any]]) -> None:
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:  # it quotes the definition found
        expected = " or ".join(f"{kind.hook.__name__}{_parameters(kind.hook)}" for kind in kinds)
        raise pluggy.PluginValidationError(error.plugin, f"{error}; expected {expected}") from error


def _registered(
    kind: Kind[R], manager: pluggy.PluginManager, plugin: Any, plugin_name: str, source: PluginSource
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
                f"the factory of {kind.what} {name!r} must be callable, got {_shown(factory)}; expected {kind.factory}"
            )
        _check_types(kind, arguments)
        arguments["summary"] = plain_line(arguments["summary"] or _first_line(factory))
        version = source.version if arguments["version"] is None else arguments["version"]
        arguments["version"] = plain_line(version, MOST_VERSION)
        registered[name] = kind.registration(**arguments, source=replace(source, name=plugin_name))

    others = [other for other in manager.get_plugins() if other is not plugin]
    manager.subset_hook_caller(kind.hook.__name__, remove_plugins=others)(register=register)
    return list(registered.values())


def _arguments(kind: Kind[Any], args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """All arguments of ``register(...)`` by name, defaults too. Raises UserError for a call that does not fit."""
    try:
        call = inspect.signature(kind.register.__call__).bind(None, *args, **options)
    except TypeError as error:
        found = ", ".join([*map(_shown, args), *(f"{name}={_shown(value)}" for name, value in options.items())])
        expected = f"register{_parameters(kind.register.__call__)}"
        raise UserError(f"{error}: got register({found}) of a {kind.what}, expected {expected}") from None
    call.apply_defaults()
    return {name: value for name, value in call.arguments.items() if name != "self"}


def _check_types(kind: Kind[Any], arguments: dict[str, Any]) -> None:
    """Texts are texts and flags are flags: what is registered is shown, and decides who is given the images."""
    for name, value in arguments.items():
        if name in ("summary", "version"):
            expected, fits = "a text", isinstance(value, str) or (name == "version" and value is None)
        elif name == "variants":
            expected, fits = "a function that gives names, or None", value is None or callable(value)
        elif name in ("name", "factory"):
            continue
        elif name == "batch":
            arguments[name] = check_batch(value)
            continue
        else:
            expected, fits = "True or False", isinstance(value, bool | np.bool_)
            arguments[name] = bool(value) if fits else value
        if not fits:
            raise UserError(
                f"{name} of {kind.what} {arguments['name']!r} must be {expected}, got {_shown(value)}; expected "
                f"register{_parameters(kind.register.__call__)}"
            )


def _shown(value: Any) -> str:
    try:
        return plain_line(repr(value), 80)
    except BaseException:  # the plugin's own code
        return plain_line(type(value))


def _parameters(function: Callable[..., Any]) -> str:
    """The parameters of a function as a plugin's author writes them, without self and types."""
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def _first_line(factory: Callable[..., Any]) -> str:
    doc = factory.__doc__
    return plain_line(doc.strip().partition("\n")[0]) if isinstance(doc, str) else ""
