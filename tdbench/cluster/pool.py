"""The coordinator's side of a cluster: a thread that gives pieces to workers, and sees to what they lose.

Which worker has what is decided here, never by Dask: every call of a worker is tied to it, so nothing is stolen or
queued, and a worker that is refused cannot get anything. Results are put into their place in the batch, so that
neither the size of pieces, nor their order, nor who trained them makes a difference.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tdbench.base import environment
from tdbench.base.errors import UserError, printable
from tdbench.cluster.connection import Connection
from tdbench.cluster.local import LocalWorkers
from tdbench.cluster.member import IN_FLIGHT, Member, Sent, Work
from tdbench.cluster.pieces import Call, Part
from tdbench.cluster.remote import Description, Done, Kind, describe, train_piece
from tdbench.cluster.spec import Cluster

_POLL = 0.1  # seconds between two looks at the clock
_LOOK = 0.5  # seconds between two looks at who is there; more where there are many workers
_LOOK_EACH = 0.01
_SCHEDULER_SECONDS = 30.0  # in which it must say who is there
_LONGEST = 600  # characters of an error that names many workers
_SMALLEST = 4  # parts of a good piece that the last pieces of all may be
_GATHER = 5.0  # seconds to wait for further workers that have joined already, before the first piece
_ALIKE = "; TDBENCH_NATIVE_ISA=avx2 in the environment of all workers makes machines with and without AVX-512 alike"


class Pool:
    """The workers of a cluster.

    Args:
        engine, device: what the workers must have; ``auto`` takes what most of them have.
        threads: CPU threads of a worker of ``local:N``.
        say: where a line about a refused worker goes.

    Raises:
        UserError: the scheduler cannot be reached, or no worker that can be used joins in time.
    """

    def __init__(
        self, cluster: Cluster, engine: str, device: str, threads: int, say: Callable[[str], None] | None = None
    ) -> None:
        self._wanted, self._timeout = (engine, device), cluster.timeout
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._connection = Connection(cluster)
        self._local: LocalWorkers | None = None
        self._at_least = cluster.local_workers or 1
        if cluster.local_workers:
            self._local = LocalWorkers(self._connection.address, cluster.local_workers, engine, device, threads)
        self.members: dict[str, Member] = {}
        self._gone: list[Work] = []  # what workers have done that are gone
        self._lock = threading.Lock()  # held while the thread changes anything
        self.kind: Kind | None = None
        self.waited, self.present = 0.0, 0.0  # worker-seconds without anything to do; in all
        self._calls: list[Call] = []
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ready, self._closing = threading.Event(), threading.Event()
        self._error: UserError | None = None
        self._looking: Future[dict[str, str]] | None = None
        self._began = self._looked = self._peopled = self._counted = time.monotonic()
        self._said_waiting = False
        self._idle = 0.0  # worker-seconds since the last piece was sent; they count once another one is
        self._thread = threading.Thread(target=self._run, name="tdbench-cluster", daemon=True)
        self._thread.start()
        try:
            while not self._ready.wait(_POLL):
                pass
        except BaseException:
            self.close()
            raise
        if self._error is not None:
            self.close()
            raise self._error

    def submit(self, call: Call) -> None:
        """Train a call; `call.over` is set when it is done."""
        self._events.put(functools.partial(self._begin, call))

    def drop(self, call: Call) -> None:
        """Nobody wants the results any more."""
        self._events.put(functools.partial(self._calls_without, call))

    def call(self, address: str, function: Callable[[], Any]) -> Future[Any]:
        """The future of what the function gives on the worker with that address."""
        return self._connection.call(address, function)

    def check(self) -> None:
        """Raises UserError where nothing is trained any more."""
        if self._error is not None:
            raise self._error

    def take_work(self) -> list[Work]:
        """What each worker has done since this was last asked."""
        with self._lock:
            done, self._gone = self._gone, []
            done += [member.take_work() for member in self.members.values() if member.description]
        return [work for work in done if work.pieces or work.lost]

    def descriptions(self) -> list[Description]:
        """The workers that are used."""
        with self._lock:
            return [m.description for m in self.members.values() if m.usable and m.description]

    def best_batch(self, work: int | None) -> int:
        """Trainings that give every worker a piece."""
        with self._lock:
            usable = [m for m in self.members.values() if m.usable]
            each = (m.trainings(work, False) if work else m.description.best_batch for m in usable if m.description)
            return max(1, sum(each))

    def close(self) -> None:
        """End the connection, and what this process has started. May be called again."""
        if not self._closing.is_set():
            self._closing.set()
            self._thread.join()
            if self._local is not None:
                self._local.close()
            self._connection.close()

    # What follows is called by the thread alone.

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                events = self._wait()
                with self._lock:
                    for event in events:
                        event()
                    self._look()
                    self._give_up()
                    self._choose_kind()
                    self._count_time()
                    self._send()
        except UserError as error:
            self._error = error
        except BaseException as error:
            self._error = UserError(f"the cluster failed: {error!r}")
            self._error.__cause__ = error
        for call in self._calls:
            call.fail(self._error or UserError("the cluster was closed"))
        for member in self.members.values():
            member.forget()
        self._ready.set()

    def _wait(self) -> list[Callable[[], None]]:
        """What there is to be done; after a while nothing."""
        events: list[Callable[[], None]] = []
        with contextlib.suppress(queue.Empty):
            events.append(self._events.get(timeout=_POLL))
            while True:
                events.append(self._events.get_nowait())
        return events

    def _when_done(self, future: Future[Any], then: Callable[[Future[Any]], None]) -> None:
        future.add_done_callback(lambda done: self._events.put(functools.partial(then, done)))

    def _begin(self, call: Call) -> None:
        self._calls.append(call)

    def _calls_without(self, call: Call) -> None:
        self._calls = [other for other in self._calls if other is not call]

    # Who is there.

    def _look(self) -> None:
        now = time.monotonic()
        if not self._connection.alive or (self._looking and now - self._looked > _SCHEDULER_SECONDS):
            raise self._lost()
        if self._looking is None and now - self._looked >= max(_LOOK, _LOOK_EACH * len(self.members)):
            if self._local is not None:
                self._local.mend({member.name for member in self.members.values()})
            self._looked, self._looking = now, self._connection.workers()
            self._when_done(self._looking, self._see)

    def _lost(self) -> UserError:
        return UserError(
            f"the scheduler at {self._connection.address} is lost; everything evaluated is kept. Start a scheduler and "
            "workers again, and go on with --resume"
        )

    def _see(self, found: Future[dict[str, str]]) -> None:
        """Welcome the workers that are new, and take back what those had that are gone."""
        self._looking = None
        if found.cancelled() or found.exception() is not None:
            raise self._lost()
        there = found.result()
        for address in [address for address in self.members if address not in there]:
            member = self.members.pop(address)
            self._take_back(member, "its process ended")
            member.forget()
            if member.description:
                self._gone.append(member.take_work())
        for address, name in there.items():
            if address not in self.members:
                member = self.members[address] = Member(address, name)
                member.describing = self._connection.call(address, describe)
                self._when_done(member.describing, functools.partial(self._described, member))

    def _described(self, member: Member, described: Future[Description]) -> None:
        if member.refused or described.cancelled():
            return
        error = described.exception()
        if error is not None:
            self._refuse(member, printable(f"{type(error).__name__}: {error}")[:300])
            return
        member.accept(described.result())
        if self.kind is not None:
            self._check_kind(member)

    def _choose_kind(self) -> None:
        """Decide what all workers must be, once the first ones have said what they are."""
        now = time.monotonic()
        described = [m for m in self.members.values() if m.description and not m.refused]
        if described or (self.kind is not None and not self._calls):
            self._peopled = now
        if now - self._peopled > self._timeout:
            refused = next((f"; {m.place} is refused: {m.refused}" for m in self.members.values() if m.refused), "")
            raise UserError(
                f"the cluster at {self._connection.address} has had no worker that can be used for "
                f"{self._timeout:.0f} seconds{refused}; start one with `tdbench worker {self._connection.address}`"
            )
        everybody_refused = bool(self.members) and all(m.refused for m in self.members.values())
        if everybody_refused and self._local is None and (self.kind is None or self._calls):
            refused = "; ".join(f"{m.place}: {m.refused}" for m in self.members.values())
            raise UserError(f"no worker of {self._connection.address} can be used: {refused}"[:_LONGEST])
        if self.kind is not None:
            return
        if not self.members and not self._said_waiting and now - self._began > _GATHER:
            self._said_waiting = True
            self._say(f"waiting for workers: start them with `tdbench worker {self._connection.address}`")
        if not described:
            return
        silent = [m for m in self.members.values() if not m.description and not m.refused]
        if (silent or len(self.members) < self._at_least) and now - self._began < (60 if self._local else _GATHER):
            return
        named = [m for m in described if not self._unwanted(m)]
        kinds = Counter(m.description.kind for m in named if m.description)
        for member in described:
            if member not in named:
                self._refuse(member, self._unwanted(member))
        if kinds:
            self.kind = min(kinds, key=lambda kind: (-kinds[kind], repr(kind)))
            for member in named:
                self._check_kind(member)
            self._ready.set()

    def _unwanted(self, member: Member) -> str:
        """Why it is not what was asked for, in words."""
        assert member.description is not None
        kind, (engine, device) = member.description.kind, self._wanted
        if engine not in ("auto", kind.engine) or device not in ("auto", kind.device):
            return f"it has engine {kind.engine} on {kind.device}; --engine {engine} --device {device} was asked for"
        own = environment.version("tdbench")
        return f"its tdbench is {kind.tdbench or 'none'}, here it is {own}" if kind.tdbench != own else ""

    def _check_kind(self, member: Member) -> None:
        assert member.description is not None and self.kind is not None
        reason = self._unwanted(member) or self.kind.difference(member.description.kind)
        if reason:
            self._refuse(member, reason + (_ALIKE if reason.startswith("its detail") else ""))

    def _refuse(self, member: Member, reason: str) -> None:
        member.refused = reason
        self._say(f"{member.place} ({member.address}) is refused: {reason}")

    # What is where.

    def _give_up(self) -> None:
        """Workers that have taken too long get nothing any more, and what they have goes to others."""
        now = time.monotonic()
        for member in list(self.members.values()):
            waiting = member.sent or (member.description is None and not member.refused)
            if waiting and now - member.since > self._timeout:
                self._dismiss(member, f"it did not answer for {self._timeout:g} seconds")

    def _dismiss(self, member: Member, cause: str) -> None:
        """It gets nothing any more; one of this machine is replaced."""
        self._refuse(member, cause)
        self._take_back(member, cause)
        member.forget()
        if self._local is not None:
            self._local.kill(member.name)

    def _take_back(self, member: Member, cause: str) -> None:
        """What it has is to be trained by others. The oldest piece was in training, so it alone counts as lost."""
        for i, sent in reversed(list(enumerate(member.sent))):
            sent.future.cancel()
            sent.part.call.give_back(sent.part, member.address, member.place, "" if i else cause)
        if member.sent:
            member.lost_one()
        member.sent.clear()

    def _send(self) -> None:
        """Give pieces to workers until each has enough, those with the least first."""
        if self.kind is None:
            return
        self._calls = [call for call in self._calls if not call.over.is_set()]
        for level in range(IN_FLIGHT):
            for member in list(self.members.values()):
                if member.usable and len(member.sent) == level and (part := self._next_part(member)) is not None:
                    self._send_part(member, part)

    def _next_part(self, member: Member) -> Part | None:
        """What that worker should train next: of the oldest call, first what was lost, but not by this worker."""
        usable = {m.address for m in self.members.values() if m.usable}
        for call in self._calls:
            for part in call.todo:
                if member.address not in part.not_on or usable <= part.not_on:
                    if part.lost:
                        return part.first(len(part))
                    whole = member.trainings(call.work, call.weights_wanted)
                    return part.first(min(whole, max(self._share(len(usable)), -(-whole // _SMALLEST))))
        return None

    def _share(self, workers: int) -> int:
        """At the end of all work pieces become small, so that workers end at the same time."""
        return -(-sum(len(part) for call in self._calls for part in call.todo) // (2 * workers))

    def _send_part(self, member: Member, part: Part) -> None:
        piece = part.call.piece(part, member.images)
        sent = Sent(part, set(piece.image_keys), self._connection.call(member.address, train_piece, piece))
        if not member.sent:
            member.since = time.monotonic()
        member.sent.append(sent)
        self.waited += self._idle
        self._idle = 0.0
        self._when_done(sent.future, functools.partial(self._returned, member, sent))

    def _returned(self, member: Member, sent: Sent, future: Future[Done]) -> None:
        if sent not in member.sent:
            return  # it was taken back
        member.sent.remove(sent)
        member.since = time.monotonic()
        call, part = sent.part.call, sent.part
        if future.cancelled() or not self._connection.alive:
            call.give_back(part, member.address, member.place)
            return
        error = future.exception()
        done = None if error is not None else future.result()
        if done is not None and done.missing:  # it has forgotten images
            member.images -= sent.keys
            call.give_back(part, member.address, member.place)
            return
        cause = printable(f"{type(error).__name__}: {error}")[:300] if error is not None else ""
        wrong = "" if done is None else call.nonsense(part, done)
        if wrong:
            cause = f"it returned nonsense: {wrong}"
        if cause:
            call.give_back(part, member.address, member.place, cause)
            if member.lost_one() or wrong:
                self._dismiss(member, cause)
        elif done is not None:
            member.came_back(sent, done)
            if not call.over.is_set():
                call.take(part, done)

    def _count_time(self) -> None:
        """How long workers had nothing to do, because nothing was there to be trained."""
        now = time.monotonic()
        passed, self._counted = now - self._counted, now
        usable = [member for member in self.members.values() if member.usable]
        if not self.present and not self._calls:
            return  # the first batch has not come yet
        if any(call.todo for call in self._calls):
            self.waited += self._idle
            self._idle = 0.0
        else:
            self._idle += passed * sum(not member.sent for member in usable)
        self.present += passed * len(usable)
