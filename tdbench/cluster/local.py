"""Worker processes on this machine, for ``--cluster local:N``: they hear nobody but this machine, and end with us.

Each is ``python -m tdbench worker ADDRESS``. It ends when its standard input does, and that ends with this process,
however this process ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tdbench.base.errors import UserError, printable
from tdbench.engine import cuda_available

_MOST_FAILED_STARTS = 3  # in a row, before no worker is started any more
_LAST_WORDS = 300  # characters


class LocalWorkers:
    """N worker processes; one that has ended is started again.

    Args:
        address: of the scheduler.
        count: N.
        engine, device: as asked for.
        threads: CPU threads of each.
    """

    def __init__(self, address: str, count: int, engine: str, device: str, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tdbench-workers-")
        self._gpus = _gpus() if device != "cpu" and engine not in ("native",) and cuda_available() else []
        self._command = [
            *(sys.executable, "-P", "-m", "tdbench", "worker", address, "--with-parent"),
            *("--engine", engine, "--device", device, "--threads", str(threads)),
            *("--local-directory", self._folder.name),
        ]
        self._environment = {**os.environ, **_threads(threads)}
        self._environment["PYTHONPATH"] = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
        self._names = [f"local-{i + 1}" for i in range(count)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._joined: set[str] = set()  # names whose process has been a worker
        self._failed_starts = 0

    def mend(self, joined: set[str]) -> None:
        """Start those that do not run. `joined` are the names of the workers that the scheduler has.

        Raises:
            UserError: several in a row ended before they had joined.
        """
        if joined & set(self._names):
            self._failed_starts = 0
        self._joined |= joined
        for i, name in enumerate(self._names):
            process = self._processes.get(name)
            if process is not None and process.poll() is None:
                continue
            if process is not None and name not in self._joined:
                self._failed_starts += 1
                if self._failed_starts >= _MOST_FAILED_STARTS:
                    raise UserError(f"worker {name} on this machine ended as it started: {self.last_words(name)}")
            self._joined.discard(name)
            self._processes[name] = self._start(i, name)

    def kill(self, name: str) -> None:
        """End a worker at once; `mend` starts another one in its place."""
        if name in self._processes:
            self._processes[name].kill()
            self._processes[name].wait()

    def last_words(self, name: str) -> str:
        """How a worker's process has ended, with the last line that it wrote."""
        code = self._processes[name].poll()
        lines = self._log(name).read_text(errors="replace").strip().splitlines() if self._log(name).exists() else []
        return printable(f"exit code {code}" + "".join(f": {line}" for line in lines[-1:]))[:_LAST_WORDS]

    def close(self) -> None:
        """End all of them."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._processes.clear()
        self._folder.cleanup()

    def _start(self, i: int, name: str) -> subprocess.Popen[bytes]:
        environment = dict(self._environment)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[i % len(self._gpus)]
        with self._log(name).open("wb") as log:
            return subprocess.Popen(
                [*self._command, "--name", name],
                stdin=subprocess.PIPE,  # held open by this process alone
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us
                env=environment,
            )

    def _log(self, name: str) -> Path:
        return Path(self._folder.name) / f"{name}.log"


def start_scheduler(distributed: object) -> object:
    """A Dask scheduler in this process that only this machine can reach."""
    return distributed.LocalCluster(  # type: ignore[attr-defined]
        n_workers=0,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=False,
        scheduler_kwargs={"dashboard": False},
    )


def _threads(threads: int) -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


def _gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` calls them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [part.strip() for part in visible.split(",") if part.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
