"""tdbench: a benchmark of optimizers on task discovery.

The public names. `TaskSpace`, `run` and `bench` are imported when first used, so that a searcher's worker process
starts without torch.
"""

from __future__ import annotations

import typing

from tdbench.base.errors import UserError
from tdbench.searchers.hookspecs import RegisterReduction, RegisterSearcher, hookimpl
from tdbench.searchers.reduction import Reduction, ReductionProblem
from tdbench.searchers.searcher import Problem, Searcher

if typing.TYPE_CHECKING:
    from tdbench.api import bench, run
    from tdbench.engine.protocol import Protocol
    from tdbench.space.task_space import TaskSpace

__all__ = [
    "Problem",
    "Protocol",
    "Reduction",
    "ReductionProblem",
    "RegisterReduction",
    "RegisterSearcher",
    "Searcher",
    "TaskSpace",
    "UserError",
    "bench",
    "hookimpl",
    "run",
]

_LAZY = {
    "TaskSpace": "space.task_space",
    "Protocol": "engine.protocol",
    "run": "api",
    "bench": "api",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tdbench' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"tdbench.{_LAZY[name]}"), name)
