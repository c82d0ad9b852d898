"""A batch in pieces: which trainings are still to be sent, what has come back, and whether that can be true."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.cluster.remote import Done, Piece
from tdbench.engine import TrainingBatch
from tdbench.engine.networks import N_PARAMETERS
from tdbench.engine.protocol import TrainingProtocol

RESENDS = 3  # of a piece that was lost


@dataclass(eq=False)
class Part:
    """The trainings from `start` to `stop` of a call, which go to a worker as one piece.

    Attributes:
        lost: how often it was lost.
        not_on: addresses of workers that have lost it.
    """

    call: Call
    start: int
    stop: int
    lost: int = 0
    not_on: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return self.stop - self.start

    def first(self, trainings: int) -> Part:
        """Cut so many trainings off its front, or all."""
        if trainings >= len(self):
            self.call.todo.remove(self)
            return self
        cut = Part(self.call, self.start, self.start + trainings)
        self.start = cut.stop
        return cut


class Call:
    """One call of the engine: a batch to train.

    Attributes:
        todo: parts that no worker has, those that were lost first.
        curves, weights: what has come back, in its place.
        over: is set when all has come back, or with an `error`.
    """

    def __init__(
        self, batch: TrainingBatch, keys: tuple[bytes, ...], protocol: TrainingProtocol, weights_wanted: bool
    ) -> None:
        self._batch, self._keys, self.protocol = batch, keys, protocol
        self.curves = np.empty((len(batch), protocol.steps), dtype=np.float32)
        self.weights = np.empty((len(batch) if weights_wanted else 0, N_PARAMETERS), dtype=np.float32)
        self.weights_wanted = weights_wanted
        self.todo = deque([Part(self, 0, len(batch))])
        self.left = len(batch)
        self.over = threading.Event()
        self.error: BaseException | None = None

    @property
    def work(self) -> int:
        """What a training costs, in images x steps."""
        return int(self._batch.images.shape[1]) * self.protocol.steps

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.todo.clear()
        self.over.set()

    def piece(self, part: Part, known: set[bytes]) -> Piece:
        """What goes to a worker that has the image sets `known`."""
        batch = self._batch.part(slice(part.start, part.stop))
        used, image_set = np.unique(batch.image_set, return_inverse=True)
        keys = tuple(self._keys[i] for i in used)
        images = {key: batch.images[i] for key, i in zip(keys, used, strict=True) if key not in known}
        return Piece(_with_images(batch, image_set.reshape(-1)), self.protocol, keys, images, self.weights_wanted)

    def nonsense(self, part: Part, done: Done) -> str:
        """Why these results cannot be true, or an empty text."""
        expected = (len(part), self.protocol.steps)
        if not _is_float32(done.curves, expected):
            return f"expected float32 curves of shape {expected}, got {_described(done.curves)}"
        if self.weights_wanted and not _is_float32(done.weights, (len(part), N_PARAMETERS)):
            return f"expected float32 weights of shape {(len(part), N_PARAMETERS)}, got {_described(done.weights)}"
        validated = ~self._batch.train_mask[part.start : part.stop].all(axis=1)
        first = done.curves[:, 0]  # type: ignore[index]  # before any update it is finite, whatever the learning rate
        if not np.isfinite(first[validated]).all():
            return "a validation loss before the first update is not a number"
        return ""

    def take(self, part: Part, done: Done) -> None:
        """Put results into their place."""
        self.curves[part.start : part.stop] = done.curves
        if self.weights_wanted:
            self.weights[part.start : part.stop] = done.weights
        self.left -= len(part)
        if not self.left:
            self.over.set()

    def give_back(self, part: Part, address: str, worker: str, cause: str = "") -> None:
        """A part that has not come back goes to the front. With a cause it counts as lost by that worker."""
        if self.over.is_set():
            return
        if cause:
            part.lost += 1
            part.not_on.add(address)
        if part.lost > RESENDS:
            self.fail(
                UserError(
                    f"a piece of {len(part)} trainings was lost {part.lost} times, the last time on {worker}: {cause}; "
                    "everything evaluated is kept"
                )
            )
        else:
            self.todo.appendleft(part)


def _with_images(batch: TrainingBatch, image_set: NDArray[np.intp]) -> TrainingBatch:
    """The batch without its images, for the worker to put in their place those that `image_set` counts."""
    return replace(batch, images=batch.images[:0], image_set=image_set)


def _is_float32(array: object, shape: tuple[int, ...]) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == np.float32 and array.shape == shape


def _described(array: object) -> str:
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
