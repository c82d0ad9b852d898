"""What the adapters of other people's libraries share: quiet calls, borrowed random state, finite losses."""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

WORST = 2.0  # the loss at taskness -1, of a training without any finite validation loss (definitions, section 4)


def finite(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) losses in which NaN and inf are as bad as the worst of the finite ones, and no better than `WORST`."""
    loss = np.array(loss, dtype=np.float64)
    usable = np.isfinite(loss)
    if not usable.all():
        loss[~usable] = max(WORST, loss[usable].max(initial=WORST))
    return loss


@contextlib.contextmanager
def quiet(logger_name: str | None = None) -> Iterator[None]:
    """No warnings, and nothing below an error from that logger, for the time of one call into a library."""
    logger = logging.getLogger(logger_name) if logger_name else None
    level = logger.level if logger else logging.NOTSET
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if logger:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            if logger:
                logger.setLevel(level)


class BorrowedRandomState:
    """Lends a library numpy's and Python's global generators, and puts their state back.

    Some libraries draw from them whatever generator they are given. Inside ``with borrowed:`` the global
    generators continue a private sequence that starts at `seed`; outside they are as they were.
    """

    def __init__(self, seed: int) -> None:
        self._numpy = np.random.RandomState([seed, 1]).get_state()  # not the sequence of the library's own generator
        self._python = random.Random(seed).getstate()
        self._swap_back: list[tuple[object, object]] = []

    def __enter__(self) -> None:
        self._swap_back.append((np.random.get_state(), random.getstate()))  # noqa: NPY002 - to put it back
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._python)

    def __exit__(self, *_: object) -> None:
        self._numpy, self._python = np.random.get_state(), random.getstate()  # noqa: NPY002
        theirs_numpy, theirs_python = self._swap_back.pop()
        np.random.set_state(theirs_numpy)  # type: ignore[arg-type] # noqa: NPY002
        random.setstate(theirs_python)  # type: ignore[arg-type]
