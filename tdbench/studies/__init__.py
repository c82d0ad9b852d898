"""The studies (definitions, sections 7, 10 and 11): experiments that say what a taskness means, each in a module.

A module has a docstring (its first line is the command's help), a frozen dataclass `Settings` (each field is an
option), `QUICK` (the settings that ``--quick`` changes), and ``study(settings, lab) -> Findings``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdbench.base.errors import UserError, nearest
from tdbench.base.files import write_bytes
from tdbench.report.pictures import figure_png
from tdbench.studies._lab import Findings, Lab

NAMES = (
    "search",
    "class-tasks",
    "ablation",
    "ratio",
    "positives",
    "features",
    "real-vs-random",
    "random-search",
    "clustering",
    "proxies",
    "discovery",
    "transfer",
)


@dataclass(frozen=True)
class Study:
    """A study: the members of its module."""

    name: str
    help: str
    settings: type[Any]
    quick: Mapping[str, Any]
    run: Callable[[Any, Lab], Findings]


def load_study(name: str) -> Study:
    """The study of that name. Raises UserError for an unknown one."""
    if name not in NAMES:
        raise UserError(f"unknown study {name!r}{nearest(name, NAMES)}; there are {', '.join(NAMES)}")
    module = importlib.import_module(f"tdbench.studies.{name.replace('-', '_')}")
    return Study(name, (module.__doc__ or "").strip(), module.Settings, module.QUICK, module.study)


def write_findings(name: str, findings: Findings, folder: Path) -> list[Path]:
    """Write NAME.csv, NAME.png and NAME.md into the folder. Each file appears complete or not at all."""
    written = [folder / f"{name}.csv", folder / f"{name}.png", folder / f"{name}.md"]
    page = f"# Study {name}\n\n{findings.paragraph}\n\n![{name}]({name}.png)\n"
    contents = [findings.table.to_csv(index=False).encode(), figure_png(findings.figure), page.encode()]
    for path, content in zip(written, contents, strict=True):
        write_bytes(path, content)
    return written
