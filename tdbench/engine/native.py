"""The engine `native`: the C++ kernel in lanes.cpp, which trains networks on all cores of a CPU.

The kernel is compiled once per instruction set (setup.py); the best one that this processor can run is loaded.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdbench.base.environment import available_cores
from tdbench.base.errors import UserError
from tdbench.engine.batch import TrainingBatch
from tdbench.engine.engine import TrainsOnce, check_stop
from tdbench.engine.networks import N_PARAMETERS
from tdbench.engine.protocol import TrainingProtocol

ISAS = ("base", "avx2", "avx512")  # in the order of lanes_best_isa()
ISA_VARIABLE = "TDBENCH_NATIVE_ISA"  # forces one of them, for tests and comparisons
TEAM = 12  # at most so many threads train one network together (kTeam in lanes.cpp)
WAKE_SECONDS = 0.05  # between checks of `stop` while the kernel runs
HERE = Path(__file__).resolve().parent


def unavailable() -> str | None:
    """Why the kernel cannot be used here, and how to get it, in one line; None if it can be used."""
    try:
        _library(_chosen_isa())
    except UserError as error:
        return str(error)
    return None


def available_isas() -> tuple[str, ...]:
    """The instruction sets that are built and that this processor can run, the best one last."""
    if _file("base") is None:
        return ()
    best: int = _library("base").lanes_best_isa()
    return tuple(isa for isa in ISAS[: best + 1] if _file(isa) is not None)


def peak_gflops(threads: int | None = None, seconds: float = 0.5) -> float:
    """GFLOP/s of a register-only fused multiply-add loop on that many threads (one per available core)."""
    rate: float = _library(_chosen_isa()).lanes_peak_gflops(threads or available_cores(), seconds)
    return rate


def initial_weights(seeds: NDArray[np.uint64]) -> NDArray[np.float32]:
    """(B, 61326) weights as the kernel draws them: the same, bit for bit, as `networks.initial_weights`."""
    library = _library(_chosen_isa())
    weights = np.empty((len(seeds), N_PARAMETERS), dtype=np.float32)
    for seed, row in zip(seeds, weights, strict=True):
        library.lanes_initial_weights(int(seed), _pointer(row))
    return weights


class NativeEngine(TrainsOnce):
    """Trains networks in C++, `threads` at a time.

    Memory during a call: 2 MB + 0.016 MB per image for each network in training (one per thread, four from 100 images
    on), and 0.1 MB per image for each image set in use (one or two at a time; shared by all threads).
    Initial and final weights are read and written in place. Nothing is kept between calls.

    Args:
        threads: one per available core by default.
        isa: ``avx512``, ``avx2`` or ``base``; by default the best that this processor can run.

    Raises:
        UserError: the kernel is not built, or the processor cannot run that instruction set.
    """

    name = "native"
    device = "cpu"

    def __init__(self, threads: int | None = None, isa: str | None = None) -> None:
        self.threads = available_cores() if threads is None else threads
        if self.threads < 1:
            raise UserError(f"threads must be at least 1, got {threads}")
        isa = isa or _chosen_isa()
        self._library = _library(isa)
        self.best_batch = 8 * self.threads
        self.detail = f"lanes-{isa}"

    def _run(
        self,
        batch: TrainingBatch,
        protocol: TrainingProtocol,
        stop: threading.Event | None,
        weights: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        curves = np.empty((len(batch), protocol.steps), dtype=np.float32)
        if len(batch) == 0:
            return curves
        arrays = [
            None if array is None else np.ascontiguousarray(array)
            for array in (batch.labels, batch.train_mask, batch.seeds, batch.weights, batch.image_set.astype(np.int64))
        ]
        cancel = ctypes.c_int32(0)
        status: list[int] = []

        def call() -> None:
            status.append(
                self._library.lanes_train(
                    _pointer(batch.images),
                    batch.images.shape[1],
                    *map(_pointer, arrays),
                    len(batch),
                    protocol.steps,
                    protocol.lr,
                    batch.frozen,
                    self.threads,
                    ctypes.byref(cancel),
                    _pointer(curves),
                    _pointer(weights),
                )
            )

        # The kernel runs in another thread, without the GIL. This thread waits in Python, so that Ctrl-C can interrupt
        # it. It wakes regularly, to check `stop`, and because a signal that arrives just before a wait begins does not
        # end that wait.
        worker = threading.Thread(target=call, name="tdbench-native")
        worker.start()
        try:
            while worker.is_alive():
                check_stop(stop)
                worker.join(WAKE_SECONDS)
        except BaseException:
            cancel.value = 1
            worker.join()
            raise
        if status != [0]:
            raise MemoryError(f"{self.threads} threads and {batch.images.shape[1]} images")
        return curves


def _pointer(array: NDArray[np.generic] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def _file(isa: str, folder: Path | None = None) -> Path | None:
    return next((f for s in EXTENSION_SUFFIXES if (f := (folder or HERE) / f"_lanes_{isa}{s}").exists()), None)


def _not_built() -> str:
    """Why there is no kernel. Python in a clone imports the clone, whose kernel only an editable install builds."""
    elsewhere = [Path(str(found.locate_file("tdbench/engine"))) for found in distributions(name="tdbench")]
    if any(_file("base", folder) is not None for folder in elsewhere):
        return (
            f"Python imports tdbench from {HERE.parents[1]}, where the native kernel is not built, and not the "
            "installed one; start Python in another folder, or install with pip install -e ."
        )
    return (
        "the native kernel is not built (no C++ compiler when tdbench was installed); "
        "install g++ or clang and reinstall tdbench"
    )


def _chosen_isa() -> str:
    forced = os.environ.get(ISA_VARIABLE)
    if forced:
        return forced
    isas = available_isas()
    if not isas:
        raise UserError(_not_built())
    return isas[-1]


@functools.cache
def _library(isa: str) -> ctypes.CDLL:
    file = _file(isa) if isa in ISAS else None
    if file is None and isa in ISAS:
        raise UserError(_not_built())
    if file is None or (isa != "base" and isa not in available_isas()):
        raise UserError(f"no native kernel for {isa!r} runs here; these do: {', '.join(available_isas())}")
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:
        raise UserError(f"the native kernel cannot be loaded: {error}; reinstall tdbench") from error
    if not hasattr(library, "lanes_train"):  # it had another name before `frozen`, which an older kernel would ignore
        raise UserError("the native kernel was built for an older tdbench; reinstall tdbench")
    p, i = ctypes.c_void_p, ctypes.c_int
    library.lanes_best_isa.argtypes = []
    library.lanes_initial_weights.argtypes = [ctypes.c_uint64, p]
    library.lanes_initial_weights.restype = None
    library.lanes_train.argtypes = [p, i, p, p, p, p, p, ctypes.c_int64, i, ctypes.c_double, i, i, p, p, p]
    library.lanes_peak_gflops.argtypes = [i, ctypes.c_double]
    library.lanes_peak_gflops.restype = ctypes.c_double
    return library
