"""A worker's process: it makes its engine, joins a scheduler, and trains what it is sent until it is told to end."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import sys
import threading
from typing import Any

from tdbench.base import environment
from tdbench.base.errors import UserError, printable
from tdbench.cluster.remote import ENGINE_VARIABLE, kind_of, worker_engine
from tdbench.cluster.spec import check_tls, is_loopback, is_open, package


def serve(
    address: str,
    engine: str,
    device: str,
    threads: int | None,
    name: str | None,
    *,
    local_directory: str | None = None,
    patience: float = 60.0,
    with_parent: bool = False,
) -> None:
    """Join the scheduler at that address and work until it ends.

    Args:
        threads: CPU threads of the engine; one per core by default.
        name: of the worker; the host and the process by default.
        local_directory: where Dask may write.
        patience: seconds in which the scheduler must answer.
        with_parent: end when standard input ends.

    Raises:
        UserError: there is no such engine here, or no scheduler there.
    """
    distributed = package()
    check_tls(address, "worker")
    os.environ[ENGINE_VARIABLE] = f"{engine} {device} {threads or environment.available_cores()}"
    kind = kind_of(worker_engine())
    name = name or f"{socket.gethostname()}-{os.getpid()}"
    print(
        f"worker {name}: engine {kind.engine} on {kind.device} ({kind.detail}), {environment.hardware(kind.device)}; "
        f"tdbench {kind.tdbench}, torch {kind.torch}, python {platform.python_version()}; joins {address}",
        flush=True,
    )
    if is_open(address):
        print(
            f"warning: {address} is beyond this machine and without TLS: whoever reaches it can run code here as you; "
            "see docs/scaling.md",
            file=sys.stderr,
        )
    if with_parent:
        threading.Thread(target=_end_with_parent, args=[local_directory], daemon=True).start()
    try:
        asyncio.run(_work(distributed, address, name, local_directory, patience))
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        reason = printable(str(error.__cause__ or error))[:200] or type(error).__name__
        raise UserError(f"the scheduler at {address} cannot be joined: {reason}") from error


async def _work(distributed: Any, address: str, name: str, local_directory: str | None, patience: float) -> None:
    worker = distributed.Worker(
        address,
        nthreads=1,  # an engine takes one call at a time, and has threads of its own
        name=name,
        host="127.0.0.1" if is_loopback(address) else None,
        dashboard=False,
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        local_directory=local_directory,
        death_timeout=patience,
    )
    async with worker:
        await worker.finished()


def _end_with_parent(folder: str | None) -> None:
    """The parent holds the other end of standard input, and nobody else does. A killed one leaves us its folder."""
    while os.read(0, 1):
        pass
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
