"""What single checks are made of: expectations, what comes of a check, and a watch over the global random state."""

from __future__ import annotations

import contextlib
import random
import sys
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import echo, wrong_shape

MOST_SHOWN = 5  # values, or lines of a traceback
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class CheckResult:
    """What came of one check; `message` says what was expected and what came.

    Of a failed one, `details` has a line each for the offending values, the last call of the author's code, and the
    lines of the author's file.
    """

    name: str
    passed: bool
    message: str
    details: tuple[str, ...] = ()


class ContractError(AssertionError):
    """The searcher or reduction does not hold the contract; the message says how."""


def expect(condition: bool, message: str) -> None:
    """Raises ContractError with `message` unless the condition holds (also under ``python -O``)."""
    if not condition:
        raise ContractError(message)


def expect_numbers(array: Any, shape: tuple[int, ...], source: str) -> None:
    """Raises ContractError unless `source` gave a numpy array of that shape with finite numbers."""
    expect(isinstance(array, np.ndarray), f"{source} must return a numpy array, not {type(array).__name__}")
    expect(array.shape == shape, wrong_shape(f"an array from {source}", shape, array.shape))
    expect(array.dtype.kind in "fiub", f"{source} must return numbers, but they were of type {array.dtype}")
    expect_all(np.isfinite(array), array, f"{source} must return finite numbers, but there were NaN or inf")


def expect_all(fits: NDArray[np.bool_], values: NDArray[Any], message: str) -> None:
    """Raises ContractError with `message` unless all values fit; its notes show the first ones that do not."""
    if fits.all():
        return
    wrong = np.argwhere(~fits)
    first = ", ".join(f"[{', '.join(map(str, at))}] = {values[tuple(at)]:g}" for at in wrong[:MOST_SHOWN].tolist())
    error = ContractError(message)
    error.add_note(f"{len(wrong)} of {values.size} values: {first}{', ...' if len(wrong) > MOST_SHOWN else ''}")
    raise error


@dataclass
class Call:
    """A call of the author's code: which object's, of which method, what it was given, and which call of it it was."""

    made: Any
    method: str
    given: tuple[Any, ...]
    number: int

    def __str__(self) -> str:
        """As in ``ask(8) of Mine (mine.py, line 24), its call number 3``."""
        code = getattr(getattr(self.made, self.method, None), "__code__", None)
        where = f" ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code is not None else ""
        given = ", ".join(_given(value) for value in self.given)
        return f"{self.method}({given}) of {type(self.made).__name__}{where}, its call number {self.number}"


class Watched:
    """A searcher or a reduction whose last call is kept in `calls`, for messages."""

    def __init__(self, made: Any, calls: deque[Call]) -> None:
        self._made, self._calls = made, calls
        self._counts: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._made, name)
        if not callable(value):
            return value

        def call(*given: Any) -> Any:
            self._counts[name] += 1
            self._calls.append(Call(self._made, name, given, self._counts[name]))
            return value(*given)

        return call


def lines_of_the_author(error: BaseException) -> list[str]:
    """The lines of the traceback from where tdbench called the author's code: file, line, function and text."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [i for i, frame in enumerate(frames) if Path(frame.filename).is_relative_to(_PACKAGE)]
    called = frames[own[-1] + 1 :] if own else list(frames)
    files = {frame.filename for frame in called[:1]}
    shown = [frame for frame in called if frame.filename in files][-MOST_SHOWN:]
    return [f"{Path(f.filename).name}, line {f.lineno}, in {f.name}: {f.line}" for f in shown]


def _given(value: Any) -> str:
    return f"array {value.shape}" if isinstance(value, np.ndarray) else echo(value)


@contextlib.contextmanager
def global_random_state_left_alone() -> Iterator[None]:
    """Raises ContractError at the end of a block that touched Python's, numpy's or torch's global generator."""
    before = _global_random_states()
    yield
    after = _global_random_states()
    touched = [name for name in before if before[name] != after[name]]
    expect(not touched, f"it changed the global random state of {' and '.join(touched)}: use a generator of its own")


@contextlib.contextmanager
def global_random_state_of_another_process() -> Iterator[None]:
    """Other global generators for the time of a block."""
    theirs_python, theirs_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - put back below
    random.seed(987654321)
    np.random.seed(987654321)  # noqa: NPY002 - nothing must depend on it
    try:
        yield
    finally:
        random.setstate(theirs_python)
        np.random.set_state(theirs_numpy)  # noqa: NPY002


def _global_random_states() -> dict[str, Any]:
    numpy_state = [np.asarray(part).tobytes() for part in np.random.get_state()]  # noqa: NPY002 - looked at, not used
    states: dict[str, Any] = {"random": random.getstate(), "numpy": numpy_state}
    if "torch" in sys.modules:
        states["torch"] = sys.modules["torch"].get_rng_state().numpy().tobytes()
    return states
