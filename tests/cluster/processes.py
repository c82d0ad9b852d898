"""Real processes of a cluster: a scheduler, workers that are well, workers that are not, and what is left of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from helpers import ROOT, environment

from tdbench.cluster import Cluster, ClusterEngine

# What a worker does in place of training: `wrong` is called with the true function and the piece.
MISBEHAVING = """
import sys, time, os
import numpy as np
from dataclasses import replace
from tdbench.cluster import remote
true = remote.train_piece
def wrong(true, piece):
    {body}
def train_piece(piece):
    return wrong(true, piece)
train_piece.__module__, train_piece.__qualname__ = "tdbench.cluster.remote", "train_piece"
remote.train_piece = train_piece
from tdbench.cli import main
main(sys.argv[1:])
"""


def wait_until(condition: Callable[[], object], seconds: float = 60, what: str = "it does not get on") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@contextmanager
def scheduler(folder: Path, *options: str, **variables: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler in a process of its own, as `dask scheduler` starts it: its address and its process."""
    pid_file = folder / f"scheduler-{time.monotonic_ns()}.log"
    with pid_file.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"),
                *("--dashboard-address", "127.0.0.1:0", "--no-dashboard", *options),
            ],
            stdout=log,
            stderr=log,
            env={**environment(), **variables},
        )
    try:
        wait_until(lambda: b"Scheduler at:" in pid_file.read_bytes())
        address = next(line for line in pid_file.read_text().splitlines() if "Scheduler at:" in line).split()[-1]
        yield address, process
    finally:
        end(process)


@contextmanager
def worker(
    address: str, name: str, *options: str, body: str = "", **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`tdbench worker`; with a body, one that does that in place of training."""
    program = ["-c", MISBEHAVING.format(body=body)] if body else ["-m", "tdbench"]
    process = subprocess.Popen(
        [sys.executable, *program, "worker", address, "--name", name, "--threads", "1", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**environment(), **variables},
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        end(process)


def has_joined(process: subprocess.Popen[bytes], address: str) -> bool:
    """Whether a worker is connected to the scheduler there."""
    port = int(address.rpartition(":")[2])
    connections = psutil.Process(process.pid).net_connections("inet")
    return any(c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in connections)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()


@contextmanager
def engine(address: str, workers: int = 1, timeout: float = 60, name: str = "auto") -> Iterator[ClusterEngine]:
    """The engine of a cluster, once so many workers have said what they are."""
    made = ClusterEngine(Cluster(address, timeout=timeout), name, "auto", None)
    try:
        wait_until(lambda: sum(member.description is not None for member in made._pool.members.values()) >= workers)
        yield made
    finally:
        made.close()


def local_workers(parent: int | None = None) -> list[psutil.Process]:
    """Processes that are workers of a `--cluster local:N`, by their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if "--with-parent" in words and "worker" in words and parent in (None, process.ppid()):
                found.append(process)
        except psutil.Error:  # it has just ended
            continue
    return found


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def listening(pid: int) -> set[str]:
    """The addresses at which a process listens."""
    return {c.laddr.ip for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN}
