"""The searcher contract in a process of its own, for `tdbench check`: a searcher that hangs or dies fails its check.

The child runs check after check and reports each; where one ends the child, or takes too long, the next child goes on
with the check after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import IO, Any

from tdbench.errors import UserError
from tdbench.testing import CHECKS, CheckResult, check_searcher
from tdbench.worker import die_with_parent

NAMES = tuple(check.__name__ for check in CHECKS)
START_SECONDS = 120.0


def check_apart(
    name: str, plugins: Sequence[str] = (), *, timeout: float = 120.0, deterministic: bool = False
) -> Iterator[CheckResult]:
    """Like `check_searcher`, out of the searcher's reach.

    A searcher that does not get through the very first check in time is not put through the others.

    Args:
        timeout: seconds that one check may take.

    Raises:
        UserError: there is no such searcher, or its plugins end the interpreter or do not load in time.
    """
    done = 0
    while done < len(NAMES):
        with _Child(name, plugins, deterministic, done) as child:
            child.start()
            failure = ""
            while done < len(NAMES) and not failure:
                try:
                    yield CheckResult(**child.answer(timeout))
                except TimeoutError:
                    failure = f"it did not end within {timeout:g} s"
                    yield CheckResult(NAMES[done], False, failure)
                    if done == 0:
                        return
                except EOFError:
                    failure = child.epitaph()
                    yield CheckResult(NAMES[done], False, failure)
                done += 1


class _Child:
    """The parent's end: a process that runs the contract from check number `first` on."""

    def __init__(self, name: str, plugins: Sequence[str], deterministic: bool, first: int) -> None:
        ours, theirs = socket.socketpair()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        arguments = json.dumps([name, list(plugins), deterministic, first])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tdbench.checking", str(theirs.fileno()), arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,  # to be ended with whatever it started
            )
        self._connection = Connection(ours.detach())

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()
        self._stderr.close()

    def start(self) -> None:
        try:
            problem = self.answer(START_SECONDS)["error"]
        except TimeoutError:
            raise UserError(f"loading the plugins did not end within {START_SECONDS:g} s") from None
        except EOFError:
            raise UserError(f"while the plugins were loaded, {self.epitaph()}") from None
        if problem:
            raise UserError(problem)

    def answer(self, timeout: float) -> dict[str, Any]:
        """The next message. Raises TimeoutError where none comes in time, EOFError where the process has ended."""
        if not self._connection.poll(timeout):
            raise TimeoutError
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except ConnectionError:
            raise EOFError from None
        return message

    def epitaph(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed the connection to its parent process"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f"it ended its process with {how}" + (f" ({lines[-1][:300]})" if lines else "")


def main(descriptor: int, name: str, plugins: list[str], deterministic: bool, first: int) -> None:
    """The child's end: first it says whether there is such a searcher, then what came of each check."""
    die_with_parent()
    connection = Connection(descriptor)

    def send(**message: Any) -> None:
        connection.send_bytes(json.dumps(message).encode())

    try:
        results = check_searcher(name, plugins, deterministic=deterministic, checks=CHECKS[first:])
    except UserError as error:
        send(error=str(error))
        return
    send(error="")
    for result in results:
        send(name=result.name, passed=result.passed, message=result.message)


if __name__ == "__main__":
    main(int(sys.argv[1]), *json.loads(sys.argv[2]))
