"""Child processes: each runs a module of tdbench, is connected to its parent, and ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection


class ChildProcess:
    """The process ``python -m MODULE DESCRIPTOR ARGUMENTS``.

    DESCRIPTOR is the file descriptor of its end of the connection.

    Attributes:
        connection: the parent's end.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,  # Ctrl-C reaches the parent alone, and `kill` can end the whole group
                env=None if environment is None else {**os.environ, **environment},
            )
        self.connection = Connection(ours.detach())

    def kill(self) -> None:
        """End the process and all processes that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.connection.close()
        self._stderr.close()

    def epitaph(self) -> str:
        """How the process ended, and its last line on standard error; continues a sentence after "its process"."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f"ended with {how}" + (f": {lines[-1][:300]}" if lines else "")


def die_with_parent() -> None:
    """Called in the child: on Linux, the system kills it when its parent ends, even in code that never returns."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    set_parent_death_signal = 1
    parent = os.getppid()
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
