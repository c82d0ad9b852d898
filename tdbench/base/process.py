"""A module of tdbench in a process of its own, that can be talked to, and that leaves nothing running behind.

The process is a plugin's: nothing of what it sends is trusted (`channel`), its arguments and its environment say
nothing of the run, its working directory is an empty folder, and a supervisor ends all that it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tdbench.base import channel as channels
from tdbench.base.text import plain_line

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_PATIENCE = 10.0  # seconds in which the supervisor must have ended what it watches over
_LAST_WORDS = 2.0  # seconds in which a process that has closed its connection must have ended to be asked how


class ChildProcess:
    """``python -m MODULE DESCRIPTOR``, whose end of the connection is that file descriptor.

    It must be started on a thread that outlives it: on Linux it dies with the thread that started it.

    Attributes:
        channel: our end.
    """

    def __init__(
        self,
        module: str,
        *,
        most_text: int = channels.MOST_TEXT,
        most_numbers: int = 0,
        log: Path | None = None,
        label: str = "",
    ) -> None:
        """Start it. All that it prints is appended to the file `log`, where one is given, each line after `label`."""
        self.channel, theirs = channels.pair(most_text, most_numbers)
        self._folder = str(Path(tempfile.gettempdir()) / f"tdbench-{secrets.token_hex(8)}")
        self._report, report = os.pipe()
        self._said = b""
        copied = None if log is None else os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
                    *(str(theirs.fileno()), str(report), self._folder, module),
                    *(() if copied is None else (str(copied), plain_line(label))),
                ],
                pass_fds=[theirs.fileno(), report, *(() if copied is None else (copied,))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent
                env=_environment(),
            )
        os.close(report)
        if copied is not None:
            os.close(copied)

    def kill(self) -> None:
        """End the process and all that it started. May be called again."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._wait(_PATIENCE)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.channel.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._report >= 0:
            os.close(self._report)
            self._report = -1

    def epitaph(self) -> str:
        """How the process ended and the last line it said, to follow "its process"."""
        self._wait(_LAST_WORDS)
        try:
            ended = json.loads(self._said or b"{}")
            code = os.waitstatus_to_exitcode(ended["status"])
            last = ended["tail"].strip().splitlines()[-1:]
        except (ValueError, KeyError):
            return "closed its connection"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"ended with {how}" + "".join(f": {plain_line(line, 300)}" for line in last)

    def _wait(self, timeout: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        if self._report >= 0 and self._process.poll() is not None:
            with contextlib.suppress(OSError):
                self._said += os.read(self._report, 1 << 16)


def _environment() -> dict[str, str]:
    """Ours without what names a run; modules are found where they are found here; one thread for libraries."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TDBENCH_")}
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    return {**kept, **_ONE_THREAD, "PYTHONPATH": path}
