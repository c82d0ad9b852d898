"""A space as a problem of other tools: Optuna, Nevergrad, pymoo, IOHexperimenter, pyribs. See docs/other-tools.md.

    from tdbench.problems import PymooProblem

Each tool has a module, which is imported when its name is first used, so only that tool has to be installed. The
package imports `space` and `base`.
"""

from __future__ import annotations

import importlib
import typing

from tdbench.base.errors import UserError

if typing.TYPE_CHECKING:
    from tdbench.problems.ioh import ioh_problem
    from tdbench.problems.nevergrad import NevergradFunction
    from tdbench.problems.optuna import OptunaProblem
    from tdbench.problems.pymoo import PymooProblem
    from tdbench.problems.ribs import ribs_search

__all__ = ["NevergradFunction", "OptunaProblem", "PymooProblem", "ioh_problem", "ribs_search"]

_MODULE_OF = {
    "NevergradFunction": "nevergrad",
    "OptunaProblem": "optuna",
    "PymooProblem": "pymoo",
    "ioh_problem": "ioh",
    "ribs_search": "ribs",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tdbench.problems' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"tdbench.problems.{_MODULE_OF[name]}")
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs {error.name}: pip install 'tdbench[interop]'") from error
    return getattr(module, name)
