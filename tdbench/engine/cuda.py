"""The engine `cuda`: the kernel in cells.cu, which trains each network in a thread block of its own.

NVRTC compiles the kernel at first use, and the CUDA driver runs it. Then three short trainings are compared with
`reference`. Without a GPU, tests run all of this on a driver that calls the same kernel compiled for the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.engine.batch import TrainingBatch
from tdbench.engine.cuda_driver import CudaError, Driver, load_driver
from tdbench.engine.engine import TrainsOnce, check_stop
from tdbench.engine.networks import N_PARAMETERS
from tdbench.engine.nvrtc import Compiler, cached_binary, load_compiler
from tdbench.engine.protocol import TrainingProtocol

SOURCE = Path(__file__).with_name("cells.cu")
KERNEL = "train_cells"
VERSION = 1  # of the kernel's bits: a change of cells.cu that changes a result gets a new one
THREADS = 256  # of a block
BETA1, BETA2 = 0.9, 0.999  # torch.optim.Adam's defaults

NETWORKS_A_MULTIPROCESSOR = 8  # in training at once: 2 are worked on at a time, so few wait for the last ones
MEMORY_SHARE = 0.8  # of the free memory that a call takes
LAUNCH_SECONDS = 0.25  # a launch cannot be interrupted, so it does as many steps as this time suffices for

CHECK_STEPS = 8
CHECK_TOLERANCE = 1e-4  # nats; rounding gives 1e-7, and up to 2e-5 where it decides on which side of a ReLU a sum is


class CudaEngine(TrainsOnce):
    """Trains networks on a GPU, up to 8 for each of its multiprocessors at once.

    Memory on the GPU during a call: 0.78 MB + 0.016 MB per image for each network in training (1.7 GB for 1056 networks
    of 50 images), and 0.012 MB per image for all image sets. Where it does not suffice, fewer are trained at once,
    which changes no bit. Nothing is kept between calls but the kernel.

    Args:
        driver: the GPU.
        binary: the kernel, compiled for `architecture`.
    """

    name = "cuda"
    device = "cuda"

    def __init__(self, driver: Driver, binary: bytes, architecture: str) -> None:
        self._driver = driver
        driver.use()
        self._kernel = driver.load(binary, KERNEL)
        self.best_batch = NETWORKS_A_MULTIPROCESSOR * driver.multiprocessors
        self.detail = f"cells-{VERSION}-{architecture}"

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
        self._driver.use()
        with contextlib.ExitStack() as stack:
            images = self._put(stack, batch.images)
            adam = self._put(stack, adam_steps(protocol))
            at_once = self._networks_at_once(batch.images.shape[1], protocol.steps)
            for begin in range(0, len(batch), at_once):
                part = slice(begin, begin + at_once)
                into = None if weights is None else weights[part]
                self._train(batch.part(part), protocol, stop, images, adam, curves[part], into)
        return curves

    def _train(
        self,
        batch: TrainingBatch,
        protocol: TrainingProtocol,
        stop: threading.Event | None,
        images: int,
        adam: int,
        curves: NDArray[np.float32],
        weights: NDArray[np.float32] | None,
    ) -> None:
        """Train as many networks as fit at once. `images` and `adam` are on the GPU already."""
        count, n = batch.labels.shape
        with contextlib.ExitStack() as stack:
            work = Work(
                images=images,
                image_set=self._put(stack, batch.image_set.astype(np.int32)),
                labels=self._put(stack, batch.labels),
                train=self._put(stack, batch.train_mask),
                seeds=None if batch.seeds is None else self._put(stack, batch.seeds),
                adam=adam,
                weights=stack.enter_context(self._driver.memory(4 * count * N_PARAMETERS)),
                scratch=stack.enter_context(self._driver.memory(4 * count * scratch_floats(n))),
                curves=stack.enter_context(self._driver.memory(curves.nbytes)),
                n=n,
                steps=protocol.steps,
                frozen=batch.frozen,
            )
            if batch.weights is not None:
                self._driver.upload(work.weights, np.ascontiguousarray(batch.weights))
            self._launch_steps(work, count, stop)
            self._driver.download(work.curves, curves)
            if weights is not None:
                self._driver.download(work.weights, weights)

    def _launch_steps(self, work: Work, count: int, stop: threading.Event | None) -> None:
        """All steps, in launches that each take about LAUNCH_SECONDS. How they are divided changes no bit."""
        steps_at_once = 1
        while work.end < work.steps:
            check_stop(stop)
            work.begin, work.end = work.end, min(work.steps, work.end + steps_at_once)
            start = time.perf_counter()
            self._driver.launch(self._kernel, count, THREADS, work)
            seconds_a_step = (time.perf_counter() - start) / (work.end - work.begin)
            steps_at_once = max(1, min(4 * steps_at_once, int(LAUNCH_SECONDS / max(seconds_a_step, 1e-9))))

    def _put(self, stack: contextlib.ExitStack, array: NDArray[Any]) -> int:
        """The address of a copy of the array on the GPU, which is there until the stack ends."""
        array = np.ascontiguousarray(array)
        address = stack.enter_context(self._driver.memory(array.nbytes))
        self._driver.upload(address, array)
        return address

    def _networks_at_once(self, n: int, steps: int) -> int:
        per_network = 4 * (N_PARAMETERS + scratch_floats(n) + steps) + 2 * n + 16
        fitting = int(MEMORY_SHARE * self._driver.free_memory()) // per_network
        if fitting == 0:
            raise MemoryError(f"a network of {n} images needs {per_network / 1e6:.1f} MB on the GPU")
        return min(self.best_batch, fitting)


class Work(ctypes.Structure):
    """`struct Work` of cells.cu."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("images", "image_set", "labels", "train", "seeds", "adam", "weights", "scratch", "curves")
        ),
        *((name, ctypes.c_int) for name in ("n", "steps", "begin", "end", "frozen")),
    )


def scratch_floats(n: int) -> int:
    """float32 numbers that a network of n images needs beside its weights: `Memory::lay_out` of cells.cu."""
    moments, convolutions = (N_PARAMETERS, N_PARAMETERS), (7 * 456, 3 * 2416)
    activations_and_gradients = [n * width for width in (1176, 400, 120, 84, 2)] * 2
    losses, order, largest_of_windows = (n,), (n, n), (n * 1176 // 4, n * 400 // 4)
    sizes = (*moments, *activations_and_gradients, *losses, *convolutions, *order, *largest_of_windows)
    return sum(-(-size // 4) * 4 for size in sizes)


def adam_steps(protocol: TrainingProtocol) -> NDArray[np.float32]:
    """(steps, 2): what Adam's bias corrections make of the learning rate and of the root of the second moment."""
    steps = np.arange(1, protocol.steps + 1)
    columns = (protocol.lr / (1 - BETA1**steps), 1 / np.sqrt(1 - BETA2**steps))
    return np.stack(columns, axis=1).astype(np.float32)


def check(engine: CudaEngine) -> None:
    """Compare three short trainings with `reference`.

    Raises:
        CudaError: they differ by more than rounding.
    """
    from tdbench.engine.reference import ReferenceEngine

    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 11, 3, 32, 32)).astype(np.float32)
    labels = rng.integers(0, 2, (3, 11), dtype=np.uint8)
    train = np.arange(11) % np.array([[2], [3], [5]]) != 0
    batch = TrainingBatch.checked(images, labels, train, np.arange(3, dtype=np.uint64), np.array([0, 1, 0]))
    protocol = TrainingProtocol(steps=CHECK_STEPS)
    difference = np.abs(engine.curves(batch, protocol) - ReferenceEngine(threads=1).curves(batch, protocol)).max()
    if not difference <= CHECK_TOLERANCE:  # NaN too
        raise CudaError(
            f"the kernel's curves differ from reference by {difference:.2g} nats ({CHECK_TOLERANCE:g} is allowed)"
        )


def make(driver: Callable[[], Driver], compiler: Callable[[], Compiler]) -> CudaEngine:
    """The engine on that GPU: compiled, loaded and checked.

    Raises:
        UserError: one of these failed.
    """
    gpu, nvrtc = driver(), compiler()
    architecture = nvrtc.architecture(gpu.capability)
    binary = cached_binary(nvrtc, SOURCE.read_text(encoding="utf-8"), architecture)
    engine = CudaEngine(gpu, binary, architecture)
    check(engine)
    return engine


def the_engine() -> CudaEngine:
    """The engine of this process, on the device that torch uses.

    Raises:
        UserError: it cannot be used here.
    """
    made = _made()
    if isinstance(made, str):
        raise UserError(f"engine cuda cannot be used here: {made}")
    return made


def unavailable() -> str | None:
    """Why the engine cannot be used here, in one line; None if it can be used. The first call takes seconds."""
    made = _made()
    return made if isinstance(made, str) else None


@functools.cache
def _made() -> CudaEngine | str:
    try:
        return make(_torchs_driver, load_compiler)
    except (UserError, MemoryError) as error:
        return str(error)


def _torchs_driver() -> Driver:
    import torch

    return load_driver(torch.cuda.current_device())
