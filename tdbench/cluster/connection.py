"""A Dask scheduler as this package needs it: calls on one worker that do not block, and who its workers are."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tdbench.base.errors import UserError, printable
from tdbench.cluster.local import start_scheduler
from tdbench.cluster.slurm import slurm_cluster
from tdbench.cluster.spec import SLURM, Cluster, check_tls, package

_CONNECT_SECONDS = 10.0
_SETTINGS = {"distributed.admin.large-graph-warning-threshold": "1 GiB"}


class Connection:
    """A client of a scheduler, which is started in this process for ``local:N`` and ``slurm``.

    Attributes:
        address: of the scheduler.
    """

    def __init__(self, cluster: Cluster) -> None:
        distributed = package()
        self._config = package("dask").config
        check_tls(cluster.address, "client")
        self._own: Any = None
        if cluster.local_workers:
            self._own = start_scheduler(distributed)
        elif cluster.address == SLURM:
            self._own = slurm_cluster(cluster)
        self.address: str = cluster.address if self._own is None else self._own.scheduler_address
        try:
            self._client = distributed.Client(self.address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            self._close_own()
            raise UserError(
                f"no Dask scheduler answers at {self.address}: {printable(str(error))[:200]}; start one with "
                "`dask scheduler`"
            ) from error
        self._loop = self._client.loop.asyncio_loop
        self._keys = (f"tdbench-{secrets.token_hex(6)}-{i}" for i in itertools.count())

    @property
    def alive(self) -> bool:
        """Whether the scheduler is there."""
        return bool(self._client.status == "running")

    def call(self, address: str, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """The future of what the function gives on that worker, and on no other one."""
        with self._config.set(_SETTINGS):  # a piece may have megabytes of images or weights
            task = self._client.submit(
                function, *arguments, key=next(self._keys), workers=[address], allow_other_workers=False, pure=False
            )

        async def result() -> Any:
            return await task

        return asyncio.run_coroutine_threadsafe(result(), self._loop)

    def workers(self) -> Future[dict[str, str]]:
        """The future of the names of all workers, by their address."""

        async def names() -> dict[str, str]:
            found = await self._client.scheduler.identity(n_workers=-1)
            return {address: str(worker["name"]) for address, worker in found["workers"].items()}

        return asyncio.run_coroutine_threadsafe(names(), self._loop)

    def close(self) -> None:
        self._client.close(timeout=2)
        self._close_own()

    def _close_own(self) -> None:
        if self._own is not None:
            self._own.close(timeout=5)
