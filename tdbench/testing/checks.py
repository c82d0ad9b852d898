"""What single checks are made of: expectations, what comes of a check, and a watch over the global random state."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdbench.base.errors import wrong_shape


@dataclass(frozen=True)
class CheckResult:
    """What came of one check; `message` says what was expected and what came."""

    name: str
    passed: bool
    message: str


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
    expect(bool(np.isfinite(array).all()), f"{source} must return finite numbers, but there were NaN or inf")


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
