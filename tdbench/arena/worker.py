"""A searcher in a process of its own: `Worker` is the arena's end, `main` the other one.

One request and one reply at a time: a turn tells the losses of the last ask, asks for a recommendation where one is
due, and asks for the next vectors. A searcher that hangs, dies or leaks is this process's trouble alone.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.process import ChildProcess, die_with_parent
from tdbench.searchers.searcher import Problem


@dataclass(frozen=True)
class Start:
    """What a worker needs to make its searcher."""

    searcher: str
    plugins: tuple[str, ...]
    problem: Problem
    memory_limit: int  # MiB


@dataclass(frozen=True)
class Turn:
    """One request: tell, then recommend, then ask; each where given."""

    tell: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    recommend: bool = False
    ask: int = 0


@dataclass(frozen=True)
class Reply:
    """The answer to a Start or a Turn. `error` is set where the searcher raised."""

    asked: Any = None
    recommended: Any = None
    error: str = ""


class WorkerFailure(Exception):
    """The searcher failed; `status` is crash or timeout."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Worker:
    """The arena's end. At most one request is under way."""

    def __init__(self, start: Start, start_timeout: float, ask_timeout: float) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._child = ChildProcess("tdbench.arena.worker", environment=one_thread)
        self.connection = self._child.connection
        self._ask_timeout = ask_timeout
        self._what = "start"
        self._timeout = start_timeout
        self.deadline = time.monotonic() + start_timeout
        self.ready = False  # it has answered its Start
        self._send(start)

    def request(self, turn: Turn) -> None:
        """Hand a turn to the searcher; its time runs from now."""
        self._what = "answer"
        self._timeout = self._ask_timeout
        self.deadline = time.monotonic() + self._ask_timeout
        self._send(turn)

    def reply(self) -> Reply:
        """The answer, which must have arrived. Raises WorkerFailure where the searcher raised or its process died."""
        try:
            reply = self.connection.recv()
        except (EOFError, ConnectionError):
            raise WorkerFailure("crash", f"the searcher's process {self._child.epitaph()}") from None
        except Exception as error:  # an answer that cannot be unpickled
            raise WorkerFailure("crash", f"unreadable answer: {error}") from None
        if not isinstance(reply, Reply):
            raise WorkerFailure("crash", f"unreadable answer: {reply!r}"[:200])
        if reply.error:
            raise WorkerFailure("crash", reply.error)
        self.deadline = float("inf")
        return reply

    def overdue(self) -> WorkerFailure:
        return WorkerFailure("timeout", f"the searcher did not {self._what} within {self._timeout:g} s")

    def kill(self) -> None:
        self._child.kill()

    def _send(self, message: Start | Turn) -> None:
        with contextlib.suppress(OSError):  # a dead process is noticed when its reply is read
            self.connection.send(message)


def main(descriptor: int) -> None:
    """The searcher's end: answer requests until the arena goes away."""
    die_with_parent()
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):
        start: Start = connection.recv()
        searcher, error = _attempt(lambda: _make(start), start)
        connection.send(Reply(error=error))
        while True:
            turn: Turn = connection.recv()
            reply, error = _attempt(lambda turn=turn: _answer(searcher, turn), start)
            try:
                connection.send(Reply(error=error) if reply is None else reply)
            except (TypeError, AttributeError, ValueError) as unpicklable:
                connection.send(Reply(error=f"the answer cannot be sent: {unpicklable}"))


def _make(start: Start) -> Any:
    from tdbench.searchers.registry import load_plugins

    _limit_memory(start.memory_limit)
    registration, variant = load_plugins(start.plugins).searcher(start.searcher)
    return registration.make(start.problem, variant)


def _answer(searcher: Any, turn: Turn) -> Reply:
    recommended = asked = None
    if turn.tell is not None:
        searcher.tell(*turn.tell)
    if turn.recommend and hasattr(searcher, "recommend"):
        recommended = searcher.recommend()
    if turn.ask:
        asked = searcher.ask(turn.ask)
    return Reply(asked=asked, recommended=recommended)


def _attempt(call: Any, start: Start) -> tuple[Any, str]:
    try:
        return call(), ""
    except MemoryError:
        return None, f"the searcher needed more than its memory limit of {start.memory_limit} MiB"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a searcher raises is its run's result
        return None, f"{type(error).__name__}: {error}"


def _limit_memory(mebibytes: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = mebibytes * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


if __name__ == "__main__":
    # Under its own name, so that what is pickled here is what the arena knows.
    from tdbench.arena import worker

    worker.main(int(sys.argv[1]))
