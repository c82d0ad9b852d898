"""A searcher class that was defined in a notebook or a script, written to a file as a plugin.

The file has the class, the register line, and all that the class takes from around it: imports, plain constants, and
functions and classes that were defined beside it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import math
import symtable
import sys
import textwrap
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from tdbench.base.errors import UserError, echo
from tdbench.base.files import check_target, write_bytes
from tdbench.searchers.catalogue import find_plugins

_PLAIN = (int, float, complex, bool, str, bytes, type(None))
_OWN = {"hookimpl", "register_searchers"}


def write_plugin(searcher: type, path: str | Path, name: str | None = None, **options: Any) -> Path:
    """Write a searcher class to a ``.py`` file that ``--plugin`` takes, and load it once to see that it works.

    Args:
        searcher: the class, wherever it was defined.
        path: the file; one that is there is replaced, and removed where the new one cannot be loaded.
        name: what it is registered as; the name of the file without ``.py`` by default.
        options: of ``register(...)``, such as ``sees_images=True``.

    Raises:
        UserError: it uses something that cannot be written to a file, or the file cannot be written or loaded.
    """
    path = Path(path)
    if not isinstance(searcher, type):
        raise UserError(f"searcher must be a class, got {echo(searcher)}")
    if path.suffix != ".py":
        raise UserError(f"a plugin is a .py file, got {echo(str(path))}")
    if path.exists() and _file_of(searcher) == str(path.resolve()):
        raise UserError(f"{searcher.__name__} is defined in {path} already")
    check_target(path)
    parts = _Parts()
    parts.add(searcher)
    words = ", ".join([repr(name or path.stem), searcher.__name__, *(f"{k}={v!r}" for k, v in options.items())])
    imports = sorted({*parts.imports, "from tdbench import hookimpl"})
    hook = f"@hookimpl\ndef register_searchers(register):\n    register({words})"
    sections = [f'"""The searcher {name or path.stem} for tdbench."""', "\n".join(imports)]
    sections += ["\n".join(parts.constants)] if parts.constants else []
    text = "\n\n".join(sections) + "\n\n\n" + "\n\n\n".join([*parts.definitions, hook]) + "\n"
    write_bytes(path, text.encode())
    try:
        find_plugins([str(path.resolve())], extra_must_load=True)
    except UserError:
        path.unlink()
        raise
    return path


class _Parts:
    """What a file needs so that a class works in it."""

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.constants: list[str] = []
        self.definitions: list[str] = []
        self._seen: set[str] = set()

    def add(self, defined: Any) -> None:
        """A class or a function, after all that it uses."""
        source, around = _source(defined)
        self._seen.add(defined.__name__)
        for name in sorted(_free_names(source) - self._seen):
            if name in around:
                self._seen.add(name)
                self._add_name(name, around[name], defined.__name__)
            elif not hasattr(builtins, name):
                raise UserError(f"{defined.__name__} uses {name!r}, which is not defined")
        self.definitions.append(source)

    def _add_name(self, name: str, value: Any, user: str) -> None:
        module = getattr(value, "__module__", None)
        if isinstance(value, ModuleType):
            self.imports.append(f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}"))
        elif _is_plain(value):
            self.constants.append(f"{name} = {value!r}")
        elif _importable(value):
            own = value.__qualname__
            self.imports.append(f"from {module} import {own}" + ("" if own == name else f" as {name}"))
        elif isinstance(value, type | FunctionType) and value.__name__ == name and value.__module__ == "__main__":
            self.add(value)
        elif exporter := _exporter(name, value):
            self.imports.append(f"from {exporter} import {name}")
        elif isinstance(value, type | FunctionType) and value.__name__ == name:
            self.add(value)
        else:
            raise UserError(
                f"{user} uses {name}, which cannot be written to a file: {echo(value)}; make it a constant, or make it "
                "inside of the class"
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(part) for pair in value.items() for part in pair)
    return type(value) in _PLAIN and not (isinstance(value, float) and not math.isfinite(value))  # they have no literal


def _importable(value: Any) -> bool:
    """Whether a class or function can be imported from a module that is no notebook and no script."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__ == "__main__" or not getattr(module, "__file__", None):
        return False
    return getattr(module, getattr(value, "__qualname__", ""), None) is value


def _exporter(name: str, value: Any) -> str | None:
    """A module that publishes this object under this name, as `numpy.typing` does NDArray; the shortest such name."""
    modules = {key: vars(module) for key, module in list(sys.modules.items()) if isinstance(module, ModuleType)}
    published = [key for key, names in modules.items() if name in names.get("__all__", ()) and names.get(name) is value]
    found = [key for key in published if "._" not in f".{key}"]
    return min(found, key=len, default=None)


def _source(defined: Any) -> tuple[str, dict[str, Any]]:
    """The text of a class or function, and the names around it.

    ``inspect.getsource`` finds no class of a notebook, whose module has no file; its methods know where they are.
    """
    functions = [defined] if isinstance(defined, FunctionType) else list(_functions(defined))
    for function in functions:
        lines = linecache.getlines(function.__code__.co_filename)
        for node in ast.walk(ast.parse("".join(lines))) if lines else ():
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == defined.__name__:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if first <= function.__code__.co_firstlineno <= (node.end_lineno or first):
                    return textwrap.dedent("".join(lines[first - 1 : node.end_lineno])).rstrip(), _names(function)
    raise UserError(f"the source of {defined.__name__} cannot be found: define it in a notebook cell or in a file")


def _functions(defined: type) -> Any:
    for value in vars(defined).values():
        function = inspect.unwrap(getattr(value, "__func__", value))  # of static and class methods
        if isinstance(function, FunctionType) and function.__module__ == defined.__module__:
            yield function


def _names(function: FunctionType) -> dict[str, Any]:
    """The global names around a function, and those that it takes from a function around it."""
    return {**function.__globals__, **inspect.getclosurevars(function).nonlocals}


def _free_names(source: str) -> set[str]:
    """The names that a class or function uses and does not define."""
    found: set[str] = set()
    tables = [symtable.symtable(source, "<plugin>", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (not symbol.is_assigned() if top else symbol.is_global()):
                found.add(symbol.get_name())
    return {name for name in found - _OWN if not name.startswith("__")}  # every module has a __name__ of its own


def _file_of(searcher: type) -> str | None:
    module = sys.modules.get(searcher.__module__)
    file = getattr(module, "__file__", None)
    return str(Path(file).resolve()) if file and searcher.__module__ != "__main__" else None
