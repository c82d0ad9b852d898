"""`tdbench new-searcher` and `new-reduction`: a small package to start from, rendered from templates/.

The packages of the docs are these ones: docs/example-searcher is the searcher ``mine``, docs/example-reduction the
reduction ``waves``.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jinja2

from tdbench.base.errors import UserError
from tdbench.searchers.catalogue import find_plugins
from tdbench.searchers.registry import MAX_NAME, Plugins, Registrations

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
_TAKEN_BY_THE_PACKAGE = {"build", "conftest", "setup", "test_contract", "tests"}
_TAKEN_BY_THE_MODULE = {"Problem", "ReductionProblem", "RegisterSearcher", "RegisterReduction", "UserError"}


@dataclass(frozen=True)
class NewPlugin:
    """What a new plugin and its parts are called, all made from its name.

    Raises:
        UserError: the name cannot be a plugin's, a module's and a package's at once, or is in use.

    Attributes:
        kind: searcher or reduction.
    """

    name: str
    kind: ClassVar[str]
    command: ClassVar[str]  # that uses it, with {} for its name

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > MAX_NAME:
            raise UserError(
                f"{self.name!r} cannot name a new {self.kind}: expected at most {MAX_NAME} letters, digits, - and _, "
                "with a letter first and a letter or digit last"
            )
        if keyword.iskeyword(self.module) or self.module in _TAKEN_BY_THE_PACKAGE:
            raise UserError(f"{self.name!r} cannot name a new {self.kind}: its file cannot be called {self.module}.py")
        if keyword.iskeyword(self.class_name):
            raise UserError(
                f"{self.name!r} cannot name a new {self.kind}: its class cannot be called {self.class_name}"
            )
        installed = self._installed(find_plugins())
        for taken in (*installed, *installed.conflicts):
            if taken.lower() == self.name.lower():
                raise UserError(
                    f"there is a {self.kind} {taken!r} already (see `tdbench searchers`); take another name"
                )
        if self.module in sys.stdlib_module_names or _importable(self.module):
            raise UserError(
                f"{self.name!r} cannot name a new {self.kind}: {self.module}.py would hide the Python module "
                f"{self.module!r}; take another name, such as {self.name + '-' + self.kind!r}"
            )

    def _installed(self, plugins: Plugins) -> Registrations[Any]:
        """What is installed of its kind."""
        raise NotImplementedError

    @property
    def module(self) -> str:
        return self.name.lower().replace("-", "_")

    @property
    def class_name(self) -> str:
        name = "".join(part.capitalize() for part in re.split("[-_]+", self.name))
        return name + self.kind.capitalize() if name in _TAKEN_BY_THE_MODULE else name

    @property
    def package(self) -> str:
        """The distribution's name. Its hyphen keeps a folder of that name from hiding a Python module."""
        return f"tdbench-{self.name}"

    @property
    def words(self) -> dict[str, str]:
        """What the templates call them."""
        return {
            **{"name": self.name, "module": self.module, "class": self.class_name, "package": self.package},
            **{"kind": self.kind, "command": self.command.format(self.name)},
        }

    @property
    def files(self) -> dict[str, str]:
        """Template -> path in the package."""
        return {
            f"new-{self.kind}/module.py.jinja": f"{self.module}.py",
            f"new-{self.kind}/test_contract.py.jinja": "tests/test_contract.py",
            "new-plugin/pyproject.toml.jinja": "pyproject.toml",
            "new-plugin/README.md.jinja": "README.md",
            "new-plugin/test.yml.jinja": ".github/workflows/test.yml",
        }


class NewSearcher(NewPlugin):
    """A new searcher."""

    kind = "searcher"
    command = "tdbench run --searcher {} --budget 320"

    def _installed(self, plugins: Plugins) -> Registrations[Any]:
        return plugins.searchers


class NewReduction(NewPlugin):
    """A new reduction."""

    kind = "reduction"
    command = "tdbench run --searcher cmaes --reduction {}:12 --budget 320"

    def _installed(self, plugins: Plugins) -> Registrations[Any]:
        return plugins.reductions


def write_package(new: NewPlugin, to: Path | None = None) -> Path:
    """Write the package of a new plugin, completely or not at all, and return its folder.

    Args:
        to: the folder to make; ``tdbench-NAME`` in the working directory by default.

    Raises:
        UserError: the folder exists or cannot be written.
    """
    folder = Path(new.package) if to is None else to
    try:
        if folder.exists() or folder.is_symlink():
            raise UserError(f"{folder} exists already; give another folder with --to")
        if not folder.parent.is_dir():
            raise UserError(f"there is no folder {folder.parent} to make {folder.name} in")
        with tempfile.TemporaryDirectory(prefix=".tdbench-new-", dir=folder.parent) as scratch:
            draft = Path(scratch) / "package"  # with ordinary permissions, unlike the scratch folder
            _render(new, draft)
            draft.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def rendered(template: str, words: dict[str, str]) -> str:
    """The text of one file of the package."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return jinja.get_template(template).render(words)


def _render(new: NewPlugin, folder: Path) -> None:
    for template, path in new.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(rendered(template, new.words), encoding="utf-8")


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return True  # the name is taken by something that cannot be imported
