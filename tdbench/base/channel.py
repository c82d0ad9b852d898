"""Small messages between processes: a JSON object of plain values, and named arrays of numbers as raw bytes.

Nothing that is received is executed or unpickled. A message has a maximal size, which is checked before its body is
read, and a half-written message is never waited for: `Channel.receive` takes what is there and returns at once.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"tdb1"
_HEADER = struct.Struct("<4sIQ")  # magic, bytes of text, bytes of numbers
_TYPES: dict[str, np.dtype[Any]] = {"f8": np.dtype("<f8"), "f4": np.dtype("<f4")}
_PIECE = 1 << 20
MOST_TEXT = 1 << 16  # bytes


class ChannelClosed(Exception):
    """The other end has gone."""


class BadMessage(Exception):
    """What came is no message, or too large a one; the text says what was wrong."""


@dataclass(frozen=True)
class Message:
    """Plain JSON values by name, and arrays of float32 or float64 by name."""

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def packed(self) -> bytes:
        shapes, parts = [], []
        for name, array in self.arrays.items():
            kind = "f4" if array.dtype == np.float32 else "f8"
            shapes.append([name, kind, list(array.shape)])
            parts.append(np.ascontiguousarray(array, dtype=_TYPES[kind]).tobytes())
        text = json.dumps([dict(self.values), shapes]).encode("ascii")
        return _HEADER.pack(_MAGIC, len(text), sum(map(len, parts))) + text + b"".join(parts)


class Channel:
    """One end of a connection.

    Args:
        most_text, most_numbers: bytes that a message which comes in may have.
    """

    def __init__(self, end: socket.socket, most_text: int = MOST_TEXT, most_numbers: int = 0) -> None:
        self._socket = end
        self._most = (most_text, most_numbers)
        self._in = bytearray()
        self._out = bytearray()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Message) -> None:
        """Send as much as the connection takes now; `wait` sees to the rest. A closed connection is noticed later."""
        self._out += message.packed()
        self.flush()

    def flush(self) -> None:
        with contextlib.suppress(OSError):  # who has gone is noticed when its answer is read
            while self._out:
                sent = self._socket.send(self._out[:_PIECE], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                del self._out[:sent]

    @property
    def sending(self) -> bool:
        """Whether part of a message has not been taken yet."""
        return bool(self._out)

    def receive(self) -> Message | None:
        """The next message if it is there whole, else None. Never waits.

        Raises:
            ChannelClosed: the other end has gone.
            BadMessage: what came is no message of the permitted size.
        """
        message = self._next()
        while message is None:
            try:
                part = self._socket.recv(_PIECE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError as error:
                raise ChannelClosed from error
            if not part:
                raise ChannelClosed
            self._in += part
            message = self._next()
        return message

    def receive_waiting(self, timeout: float | None = None) -> Message:
        """The next message, waited for. Raises TimeoutError too, where no whole one comes within `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (message := self.receive()) is None:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            wait([self], left)
        return message

    def send_waiting(self, message: Message) -> None:
        """Send all of a message, however long the other end takes. Raises OSError where it has gone."""
        self._socket.sendall(message.packed(), socket.MSG_NOSIGNAL)

    def _next(self) -> Message | None:
        if len(self._in) < _HEADER.size:
            return None
        magic, text, numbers = _HEADER.unpack_from(self._in)
        if magic != _MAGIC:
            raise BadMessage("what it sent is no message")
        for size, most in zip((text, numbers), self._most, strict=True):
            if size > most:
                raise BadMessage(f"it sent a message of {size} bytes, and at most {most} are taken")
        size = _HEADER.size + text + numbers
        if len(self._in) < size:
            return None
        body = bytes(self._in[_HEADER.size : size])
        del self._in[:size]
        try:
            return _unpacked(body[:text], body[text:])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadMessage("what it sent is no message") from error


def pair(most_text: int = MOST_TEXT, most_numbers: int = 0) -> tuple[Channel, socket.socket]:
    """Our end of a new connection, and the socket that the other process takes."""
    ours, theirs = socket.socketpair()
    return Channel(ours, most_text, most_numbers), theirs


def wait(channels: Sequence[Channel], timeout: float | None, others: Iterable[Any] = ()) -> set[Any]:
    """The channels and others (with a ``fileno``) from which something can be read; waits up to `timeout` seconds.

    Returns early where a channel could send more of what it has to send.
    """
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            selector.register(channel, selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.sending else 0))
        for other in others:
            selector.register(other, selectors.EVENT_READ)
        readable = set()
        for key, events in selector.select(timeout):
            if events & selectors.EVENT_WRITE:
                key.fileobj.flush()  # type: ignore[union-attr]
            if events & selectors.EVENT_READ:
                readable.add(key.fileobj)
        return readable


def _unpacked(text: bytes, numbers: bytes) -> Message:
    values, shapes = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError
    arrays, start = {}, 0
    for name, kind, shape in shapes:
        count = 1
        for side in shape:
            if not isinstance(side, int) or isinstance(side, bool) or side < 0:
                raise ValueError
            count *= side
        end = start + count * _TYPES[kind].itemsize
        if end > len(numbers):
            raise ValueError
        arrays[str(name)] = np.frombuffer(numbers[start:end], dtype=_TYPES[kind]).reshape(shape).copy()
        start = end
    if start != len(numbers):
        raise ValueError
    return Message(values, arrays)
