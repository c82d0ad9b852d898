"""What ``--cluster`` and the table ``[cluster]`` of a campaign may say, and the package that they need."""

from __future__ import annotations

import importlib
import ipaddress
import json
import logging
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tdbench.base.arguments import real, set_fields, text, whole
from tdbench.base.errors import UserError, echo, nearest

SLURM = "slurm"
MOST_LOCAL = 1024
_KEYS = ("address", "timeout", "jobs", SLURM)
_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://[^\s/]+:\d+")


@dataclass(frozen=True)
class Cluster:
    """Where the workers are. An empty address is no cluster: the engine of this process trains.

    Attributes:
        address: ``local:N``, N worker processes on this machine; ``tcp://HOST:PORT`` or ``tls://HOST:PORT`` of a Dask
            scheduler that runs; or ``slurm``.
        timeout: seconds that a worker may take for a piece of about a second, and that a cluster may be without any
            worker, before it is given up.
        jobs: of ``slurm``, how many jobs to submit, one worker each.
        slurm: of ``slurm``, the arguments of `dask_jobqueue.SLURMCluster` by name, as JSON.
    """

    address: str = ""
    timeout: float = 600.0
    jobs: int = 0
    slurm: str = ""

    @classmethod
    def of(cls, value: Any) -> Cluster:
        """What a user gave: an address, a table of the fields above, or None.

        Raises:
            UserError: it is neither, or a field has a value that it cannot have.
        """
        if isinstance(value, Cluster):
            return value
        if value is None or isinstance(value, str):
            return cls(value or "")
        if not isinstance(value, Mapping):
            raise UserError(f"cluster must be an address or a table of {', '.join(_KEYS)}, got {echo(value)}")
        if unknown := [key for key in value if key not in _KEYS]:
            raise UserError(f"cluster has no key {echo(unknown[0])}{nearest(str(unknown[0]), _KEYS)}")
        slurm = value.get(SLURM, {})
        if not isinstance(slurm, Mapping):
            raise UserError(f"cluster.slurm must be a table of SLURMCluster's arguments, got {echo(slurm)}")
        return cls(**{**value, SLURM: json.dumps(slurm, sort_keys=True, default=str) if slurm else ""})

    def __post_init__(self) -> None:
        set_fields(
            self,
            address=text("cluster", self.address),
            timeout=real("cluster timeout", self.timeout, "a number above 0"),
            jobs=whole("cluster jobs", self.jobs, 0, 10**6),
        )
        if self.address == SLURM:
            if not self.jobs or not self.slurm:
                raise UserError(
                    'the cluster "slurm" needs a number of jobs and a table [cluster.slurm] with the arguments of '
                    "dask_jobqueue.SLURMCluster, such as queue, cores, memory and walltime"
                )
        elif self.jobs or self.slurm:
            raise UserError('cluster jobs and [cluster.slurm] are for address = "slurm"')
        elif self.address and not self.local_workers and not _ADDRESS.fullmatch(self.address):
            raise UserError(
                "cluster must be local:N (N worker processes on this machine), or the address of a Dask scheduler such "
                f"as tcp://head:8786, got {echo(self.address)}"
            )

    def __bool__(self) -> bool:
        return bool(self.address)

    @property
    def local_workers(self) -> int:
        """N of ``local:N``; 0 for any other address."""
        name, _, count = self.address.partition(":")
        if name != "local":
            return 0
        if not count.isdecimal() or not 1 <= int(count) <= MOST_LOCAL:
            raise UserError(f"cluster local:N needs a number N from 1 to {MOST_LOCAL}, got {echo(self.address)}")
        return int(count)


def package(name: str = "distributed") -> Any:
    """A package of the extra ``cluster``, without what it logs. Raises UserError where it is not installed."""
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"a cluster needs the package {name.replace('_', '-')}, which is not here; install it with "
            'pip install "tdbench[cluster]"'
        ) from error
    for logger in ("distributed", "distributed.client", "tornado.application"):  # errors are said in one line, by us
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    return found


def check_tls(address: str, role: str) -> None:
    """Raises UserError where that address needs TLS and Dask's settings have no certificate of that role."""
    if not address.startswith(("tls://", "wss://")):
        return
    try:
        context = package().Security().get_connection_args(role).get("ssl_context")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{address} needs TLS, and its settings cannot be used: {error}; see docs/scaling.md"
        ) from error
    if context is None:
        raise UserError(f"{address} needs TLS; Dask's settings name no certificate of a {role}, see docs/scaling.md")


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach that address."""
    host = urllib.parse.urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_open(address: str) -> bool:
    """Whether the scheduler there runs the code of whoever reaches it: it is beyond this machine, and without TLS."""
    return not is_loopback(address) and not address.startswith(("tls://", "wss://"))
