"""Searchers and reductions in processes of their own: the arena's end. The other end is `searchers.process`.

One request and one answer at a time. An answer must be there whole before its deadline, is checked number by number,
and is never executed. What hangs, dies, leaks or talks nonsense is the trouble of its own runs alone.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.channel import BadMessage, ChannelClosed, Message
from tdbench.base.process import ChildProcess
from tdbench.base.text import plain_line
from tdbench.searchers.reduction import ReductionProblem
from tdbench.searchers.registry import ReductionRegistration, Registration
from tdbench.searchers.searcher import Problem

STATUSES = ("crash", "invalid")
_NUMBER = 8  # bytes
_ARRAYS = ("images", "avoid", "start")  # fields of a problem that are sent as arrays
_RECOMMENDED = 64  # vectors for each labeling of a library: those too similar to one before are skipped


@dataclass(frozen=True)
class Limits:
    """What a plugin's process may take: seconds to start, seconds to answer, MiB of memory; and where it prints to."""

    start_timeout: float
    ask_timeout: float
    memory: int
    log: Path | None = None


@dataclass(frozen=True)
class Turn:
    """A request to a searcher: tell, then recommend, then ask; each where given.

    `recommend_many` is the most vectors that it may recommend for a library, 0 where it is not asked to. `losses` are
    the (n, k) losses of single replicates, for a searcher that wants them where there are several.
    """

    tell: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    recommend: bool = False
    recommend_many: int = 0
    ask: int = 0
    losses: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Reply:
    """A searcher's answer to a turn, not checked yet: (n, dim) asked, (m, dim) recommended; None where absent.

    `done` is that it wants no more evaluations; `replicates`, that it wants the losses of single ones.
    """

    asked: NDArray[np.float64] | None = None
    recommended: NDArray[np.float64] | None = None
    done: bool = False
    replicates: bool = False


def most_recommended(tasks: int) -> int:
    """The most vectors that a searcher may recommend where so many labelings are wanted."""
    return _RECOMMENDED * tasks


class WorkerFailure(Exception):
    """The plugin failed; `status` is crash, invalid or timeout."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(plain_line(message))
        self.status = status


class Worker:
    """A plugin's process. At most one request is under way.

    Attributes:
        channel: where its answers come.
        deadline: on the monotonic clock, until when it must have answered; inf while nothing is asked of it.
        ready: it has been made.
    """

    def __init__(self, what: str, start: Message, most_numbers: int, limits: Limits, label: str) -> None:
        self._child = ChildProcess(
            "tdbench.searchers.process", most_numbers=_NUMBER * most_numbers, log=limits.log, label=label
        )
        self.channel = self._child.channel
        self._what, self._doing, self._timeout = what, "start", limits.start_timeout
        self._limits = limits
        self.deadline = time.monotonic() + limits.start_timeout
        self.ready = False
        self.channel.send(start)

    def request(self, message: Message) -> None:
        """Hand it a request; its time runs from now."""
        self._doing, self._timeout = "answer", self._limits.ask_timeout
        self.deadline = time.monotonic() + self._timeout
        self.channel.send(message)

    def receive(self) -> Message | None:
        """The answer where it is there whole, else None.

        Raises:
            WorkerFailure: the plugin raised, its process ended, or what it sent is no answer.
        """
        try:
            message = self.channel.receive()
        except ChannelClosed:
            raise WorkerFailure("crash", f"the {self._what}'s process {self._child.epitaph()}") from None
        except BadMessage as bad:
            raise WorkerFailure("invalid", f"unreadable answer of the {self._what}: {bad}") from None
        if message is None:
            return None
        if message.values.get("ok") is not True:
            status = message.values.get("status")
            error = message.values.get("error")
            text = plain_line(error) if isinstance(error, str) else "it failed and did not say why"
            raise self._failure(status if status in STATUSES else "crash", text)
        self.deadline = math.inf
        return message

    def _failure(self, status: str, text: str) -> WorkerFailure:
        """What the plugin itself says went wrong."""
        return WorkerFailure(status, text)

    def overdue(self) -> WorkerFailure:
        return WorkerFailure("timeout", f"the {self._what} did not {self._doing} within {self._timeout:g} s")

    def kill(self) -> None:
        """End the process and all that it started."""
        self._child.kill()


class SearcherWorker(Worker):
    """The process of a run's searcher."""

    def __init__(self, registration: Registration, variant: str | None, problem: Problem, limits: Limits) -> None:
        values = {"variant": variant, "problem": _plain(problem)}
        start = _start("searcher", registration, values, {name: getattr(problem, name) for name in _ARRAYS}, limits)
        most_vectors = problem.batch_size + most_recommended(problem.tasks)
        name = registration.name if variant is None else f"{registration.name}:{variant}"
        super().__init__("searcher", start, most_vectors * problem.dim, limits, f"{name}, seed {problem.seed}")

    def ask(self, turn: Turn) -> None:
        arrays = {} if turn.tell is None else {"scores": turn.tell[0], "loss": turn.tell[1]}
        if turn.losses is not None:
            arrays["losses"] = turn.losses
        self.request(
            Message({"recommend": turn.recommend, "recommend_many": turn.recommend_many, "ask": turn.ask}, arrays)
        )

    def reply(self) -> Reply | None:
        """The answer where it is there. Raises WorkerFailure as `receive`."""
        message = self.receive()
        if message is None:
            return None
        done, replicates = (message.values.get(name) is True for name in ("done", "replicates"))
        return Reply(message.arrays.get("asked"), message.arrays.get("recommended"), done, replicates)


class ReductionWorker(Worker):
    """The process of a reduction on one space, for all runs that use it.

    Attributes:
        dim: length of its vectors, once it is ready.
        queue: who waits for the scores of which (n, dim) vectors; the first is being answered.
    """

    def __init__(
        self,
        name: str,
        registration: ReductionRegistration,
        problem: ReductionProblem,
        most_vectors: int,
        limits: Limits,
    ) -> None:
        values = {"full_name": name, "problem": _plain(problem)}
        start = _start("reduction", registration, values, {"images": problem.images}, limits)
        super().__init__(f"reduction {name!r}", start, most_vectors * problem.n_images, limits, name)
        self.queue: deque[tuple[Any, NDArray[np.float64]]] = deque()
        self.dim = 0
        self._name, self._dim = name, problem.dim if registration.takes_dim else None

    def _failure(self, status: str, text: str) -> WorkerFailure:
        return WorkerFailure(status, f"{self._what} raised {text}" if status == "crash" else text)

    def take_ready(self, message: Message) -> None:
        """It has been made. Raises WorkerFailure where it is not what was asked for."""
        dim = message.values.get("dim")
        if not isinstance(dim, int) or dim < 1 or (self._dim is not None and dim != self._dim):
            expected = "at least 1" if self._dim is None else self._dim
            text = f"reduction {self._name!r} cannot be used: its dim must be {expected}, got {plain_line(dim, 80)}"
            raise WorkerFailure("invalid", text)
        self.ready, self.dim = True, dim

    def enqueue(self, who: Any, vectors: NDArray[np.float64]) -> None:
        """Ask for the scores of (n, dim) vectors, after those that were asked for before."""
        self.queue.append((who, vectors))
        if len(self.queue) == 1:
            self.request(Message({}, {"vectors": vectors}))

    def answered(self, message: Message) -> tuple[Any, NDArray[np.float64] | None]:
        """Who gets these scores; the next request is sent."""
        who, _ = self.queue.popleft()
        if self.queue:
            self.request(Message({}, {"vectors": self.queue[0][1]}))
        return who, message.arrays.get("scores")


def _plain(problem: Problem | ReductionProblem) -> dict[str, Any]:
    return {field.name: getattr(problem, field.name) for field in fields(problem) if field.name not in _ARRAYS}


def _start(
    kind: str,
    registration: Registration | ReductionRegistration,
    values: dict[str, Any],
    arrays: dict[str, NDArray[Any] | None],
    limits: Limits,
) -> Message:
    common = {"kind": kind, "source": asdict(registration.source), "name": registration.name}
    given = {name: array for name, array in arrays.items() if array is not None}
    return Message({**common, "memory_limit": limits.memory, "log": limits.log is not None, **values}, given)
