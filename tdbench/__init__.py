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
    from tdbench.engine.protocol import TrainingProtocol
    from tdbench.space.task_space import TaskSpace

__all__ = [
    "Problem",
    "Reduction",
    "ReductionProblem",
    "RegisterReduction",
    "RegisterSearcher",
    "Searcher",
    "TaskSpace",
    "TrainingProtocol",
    "UserError",
    "bench",
    "hookimpl",
    "run",
]

_LAZY = {
    "TaskSpace": "space.task_space.TaskSpace",
    "TrainingProtocol": "engine.protocol.TrainingProtocol",
    "Protocol": "engine.protocol.TrainingProtocol",  # its name in 0.1.0
    "run": "api.run",
    "bench": "api.bench",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tdbench' has no attribute {name!r}")
    import importlib

    module, _, attribute = _LAZY[name].rpartition(".")
    return getattr(importlib.import_module(f"tdbench.{module}"), attribute)
