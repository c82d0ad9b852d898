"""Trainings on other processes and machines, through Dask: an engine whose pieces go to workers.

`chosen_engine` is where everything that trains gets its engine from; without a cluster it is that of this process.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
from collections.abc import Iterator

from tdbench.base.errors import UserError
from tdbench.cluster.engine import ClusterEngine
from tdbench.cluster.spec import Cluster
from tdbench.engine import Engine, check_engine, make_engine

__all__ = ["Cluster", "ClusterEngine", "chosen_engine", "open_clusters"]

_open: dict[tuple[Cluster, int | None], ClusterEngine] = {}
_users = 0  # blocks of `open_clusters` that are under way


def chosen_engine(name: str, device: str, threads: int | None, cluster: Cluster) -> Engine:
    """The engine of that name on that device: of this process (`make_engine`), or of the workers of a cluster.

    A cluster stays open until the outermost block of `open_clusters` ends, and is one engine until then.

    Raises:
        UserError: as `make_engine` and `ClusterEngine`; or the workers have another engine.
    """
    if not cluster:
        return make_engine(name, device, threads)
    check_engine(name, device)
    if threads is not None and not cluster.local_workers:
        raise UserError(f"--threads belongs to `tdbench worker`, where a worker of {cluster.address} is started")
    key = (cluster, threads)
    if key not in _open:
        _open[key] = ClusterEngine(cluster, name, device, threads)
    engine = _open[key]
    if name not in ("auto", engine.name) or device not in ("auto", engine.device):
        raise UserError(
            f"the workers of {cluster.address} have engine {engine.name} on {engine.device}; "
            f"--engine {name} --device {device} was asked for"
        )
    return engine


@contextlib.contextmanager
def open_clusters(say: bool = False) -> Iterator[None]:
    """Clusters that are opened within the outermost of these blocks are closed at its end.

    Args:
        say: print on standard error how busy their workers were.
    """
    global _users
    _users += 1
    try:
        yield
        for line in filter(None, (engine.summary() for engine in _open.values() if say)):
            print(line, file=sys.stderr, flush=True)
    finally:
        _users -= 1
        if not _users:
            _close()


def _close() -> None:
    while _open:
        _open.popitem()[1].close()


atexit.register(_close)
