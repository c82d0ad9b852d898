"""The process of one searcher or one reduction: it makes it, and answers requests until the other end goes away.

A request and its answer are small messages of plain values and numbers (`base.channel`). The other end is
`arena.worker`. Whatever a plugin raises becomes a text; whatever it returns becomes numbers here, so that the core sees
numbers only.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.channel import Channel, ChannelClosed, Message
from tdbench.base.errors import wrong_shape
from tdbench.base.text import error_line
from tdbench.searchers.loading import load_sources
from tdbench.searchers.reduction import ReductionProblem
from tdbench.searchers.registry import REDUCTIONS, SEARCHERS, PluginSource, ReductionRegistration, Registration
from tdbench.searchers.searcher import Done, Problem


class InvalidAnswer(Exception):
    """The plugin answered with something that is not what it was asked for; the message says with what."""


def main(descriptor: int) -> None:
    channel = Channel(socket.socket(fileno=descriptor), most_text=1 << 24, most_numbers=1 << 40)
    with contextlib.suppress(ChannelClosed, OSError):
        start = channel.receive_waiting()
        limit, log = start.values["memory_limit"], start.values["log"]
        if log:
            _begin_log()
        answer: Callable[[Message], Message] | None = None

        def make() -> Message:
            nonlocal answer
            _limit_memory(limit)
            answer, ready = (_searcher if start.values["kind"] == "searcher" else _reduction)(start)
            return ready

        channel.send_waiting(_attempt(make, limit, log))
        while True:
            request = channel.receive_waiting()
            channel.send_waiting(_attempt(lambda request=request: answer(request), limit, log))  # type: ignore[misc]
    os._exit(0)  # threads and exit handlers of the plugin are no concern of ours


def _searcher(start: Message) -> tuple[Callable[[Message], Message], Message]:
    """How the searcher answers a turn, and the message that it is ready."""
    values = start.values
    registration: Registration = _registration(values, SEARCHERS.what)
    problem = Problem(
        **values["problem"],
        images=_read_only(start, "images"),
        avoid=_read_only(start, "avoid", np.uint8),
        start=_read_only(start, "start", np.uint8),
    )
    dim, tasks = problem.dim, problem.tasks  # the searcher may change its problem
    searcher: Any = registration.make(problem, values["variant"])  # it may have more methods than it must
    each = hasattr(searcher, "tell_replicates")

    def answer(turn: Message) -> Message:
        arrays: dict[str, NDArray[Any]] = {}
        if "loss" in turn.arrays:
            scores, loss = turn.arrays["scores"], turn.arrays["loss"]
            if each:
                searcher.tell_replicates(scores, turn.arrays.get("losses", loss[:, None]))
            else:
                searcher.tell(scores, loss)
        if turn.values["recommend"] and hasattr(searcher, "recommend"):
            recommended = searcher.recommend()
            if recommended is not None:
                arrays["recommended"] = numbers(recommended, (dim,), "recommend")[None]
        if (most := turn.values["recommend_many"]) and hasattr(searcher, "recommend_many"):
            arrays["recommended"] = _several(searcher.recommend_many(tasks), most, dim)
        if n := turn.values["ask"]:
            try:
                asked = searcher.ask(n)
            except Done:
                return Message({"ok": True, "done": True})
            arrays["asked"] = numbers(asked, (n, dim), "ask")
        return Message({"ok": True}, arrays)

    return answer, Message({"ok": True, "replicates": each})


def _reduction(start: Message) -> tuple[Callable[[Message], Message], Message]:
    """How the reduction answers vectors, and the message that it is ready, which says its dimensions."""
    values = start.values
    name = values["full_name"]
    registration: ReductionRegistration = _registration(values, REDUCTIONS.what)
    reduction = registration.make(ReductionProblem(**values["problem"], images=_read_only(start, "images")))
    try:
        dim = operator.index(reduction.dim)
    except TypeError as error:
        raise InvalidAnswer(f"reduction {name!r} cannot be used: its dim must be a whole number: {error}") from None

    def answer(request: Message) -> Message:
        vectors = request.arrays["vectors"]
        shape = (len(vectors), values["problem"]["n_images"])
        return Message({"ok": True}, {"scores": numbers(reduction.scores(vectors), shape, f"reduction {name!r}")})

    return answer, Message({"ok": True, "dim": dim})


def _registration(values: Mapping[str, Any], kind: str) -> Any:
    found = load_sources([PluginSource(**values["source"])])
    for failure in found.failures.values():
        raise RuntimeError(f"the plugin cannot be loaded: {failure}")
    registrations = next(registered for registered in found.kinds if registered.kind.what == kind)
    if values["name"] not in registrations:
        raise RuntimeError(f"the plugin does not register {kind} {values['name']!r} any more")
    return registrations[values["name"]]


def _read_only(start: Message, name: str, dtype: type[np.generic] = np.float32) -> NDArray[Any] | None:
    if name not in start.arrays:
        return None
    array = start.arrays[name].astype(dtype)
    array.flags.writeable = False
    return array


def _several(answer: Any, most: int, dim: int) -> NDArray[np.float64]:
    """Recommended vectors as (j, dim) numbers, j at most `most`. Raises InvalidAnswer for anything else."""
    try:
        count = len(answer)
    except Exception as error:  # the answer's own code
        raise InvalidAnswer(f"recommend_many must return vectors of length {dim}: {error_line(error)}") from None
    if count > most:
        raise InvalidAnswer(f"recommend_many must return at most {most} vectors, got {count}")
    return numbers(answer, (count, dim), "recommend_many")


def numbers(answer: Any, shape: tuple[int, ...], what: str) -> NDArray[np.float64]:
    """A plugin's answer as float64 of that shape. Raises InvalidAnswer for anything else."""
    verb = "must give" if what.startswith("reduction") else "must return"
    try:
        found = np.asarray(answer)
        if found.dtype.kind not in "fiubO":
            raise TypeError(f"they were of type {found.dtype}")
        array = np.array(found, dtype=np.float64)
    except MemoryError:
        raise
    except BaseException as error:  # the answer's own code
        raise InvalidAnswer(f"{what} {verb} numbers with shape {shape}: {error_line(error)}") from None
    if array.shape != shape:
        raise InvalidAnswer(wrong_shape(f"an array from {what}", shape, array.shape))
    return array


def _begin_log() -> None:
    """Lines that are printed appear at once; what is logged at level INFO and above is printed."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


def _attempt(call: Callable[[], Message], memory_limit: int, log: bool) -> Message:
    try:
        return call()
    except InvalidAnswer as error:
        return Message({"ok": False, "status": "invalid", "error": str(error)})
    except MemoryError:
        text = f"it needed more than its memory limit of {memory_limit} MiB"
        return Message({"ok": False, "status": "crash", "error": text})
    except BaseException as error:  # whatever a plugin raises is its run's result
        if log:
            with contextlib.suppress(BaseException):  # the error's own code
                traceback.print_exc()
        return Message({"ok": False, "status": "crash", "error": error_line(error)})


def _limit_memory(mebibytes: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = mebibytes * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


if __name__ == "__main__":
    main(int(sys.argv[1]))
