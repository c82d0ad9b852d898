"""Fixtures for all tests: real CIFAR images where they are at hand, and a watch over global random state."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # side by side, torch's threads would mostly wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch

# A shell starts background jobs with SIGINT ignored, and children inherit that; the tests of Ctrl-C need it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def _sample(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"the real images are not here: {path}")
    return path


@pytest.fixture(scope="session")
def cifar10_sample() -> Path:
    """An .npz of 1,017 real CIFAR-10 images."""
    return _sample("cifar10-sample.npz")


@pytest.fixture(scope="session")
def cifar100_sample() -> Path:
    """An .npz of 2,033 real CIFAR-100 images."""
    return _sample("cifar100-sample.npz")


@pytest.fixture
def random_state_untouched() -> Callable[[], AbstractContextManager[None]]:
    """A block in which no global generator may move."""

    @contextmanager
    def watch() -> Iterator[None]:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        yield
        assert random.getstate() == before[0]
        for now, then in zip(np.random.get_state(), before[1], strict=True):  # noqa: NPY002
            np.testing.assert_array_equal(now, then)
        assert torch.equal(torch.get_rng_state(), before[2])

    return watch
