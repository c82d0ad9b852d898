"""tdbench: a benchmark of optimizers on task discovery.

The public names, each imported when it is first used: a searcher's process starts without torch, and Ctrl-C while the
command line starts is one line.
"""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from tdbench.api import bench, discover, load, run
    from tdbench.base.errors import Stopped, UserError
    from tdbench.engine.protocol import TrainingProtocol
    from tdbench.searchers.hookspecs import RegisterReduction, RegisterSearcher, hookimpl
    from tdbench.searchers.reduction import Reduction, ReductionProblem
    from tdbench.searchers.searcher import Done, Problem, Searcher
    from tdbench.settings import RunProgress
    from tdbench.space.task_space import TaskSpace
    from tdbench.store.library import TaskLibrary
    from tdbench.store.merge import merge

__all__ = [
    "Done",
    "Problem",
    "Reduction",
    "ReductionProblem",
    "RegisterReduction",
    "RegisterSearcher",
    "RunProgress",
    "Searcher",
    "Stopped",
    "TaskLibrary",
    "TaskSpace",
    "TrainingProtocol",
    "UserError",
    "bench",
    "discover",
    "hookimpl",
    "load",
    "merge",
    "run",
]

_LAZY = {
    "Stopped": "base.errors.Stopped",
    "UserError": "base.errors.UserError",
    "Done": "searchers.searcher.Done",
    "Problem": "searchers.searcher.Problem",
    "Searcher": "searchers.searcher.Searcher",
    "Reduction": "searchers.reduction.Reduction",
    "ReductionProblem": "searchers.reduction.ReductionProblem",
    "RegisterReduction": "searchers.hookspecs.RegisterReduction",
    "RegisterSearcher": "searchers.hookspecs.RegisterSearcher",
    "hookimpl": "searchers.hookspecs.hookimpl",
    "TaskLibrary": "store.library.TaskLibrary",
    "TaskSpace": "space.task_space.TaskSpace",
    "TrainingProtocol": "engine.protocol.TrainingProtocol",
    "Protocol": "engine.protocol.TrainingProtocol",  # its name in 0.1.0
    "RunProgress": "settings.RunProgress",
    "load": "api.load",
    "run": "api.run",
    "bench": "api.bench",
    "discover": "api.discover",
    "transfer": "api.transfer",
    "merge": "store.merge.merge",
    "run_in_process": "api.run_in_process",
    "write_plugin": "searchers.writing.write_plugin",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tdbench' has no attribute {name!r}")
    import importlib

    module, _, attribute = _LAZY[name].rpartition(".")
    return getattr(importlib.import_module(f"tdbench.{module}"), attribute)
