"""Trainings per second of every engine and of two outside yardsticks, as shares of the machine's peak: `tdbench perf`.

Everything is measured in one process, in rounds. A round times each case once, one after another, so that a slow
minute of the machine affects all of them. A training is the same as in a run: real images, its own stratified split
and initial weights, all steps, from labels to curves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from tdbench.base.environment import available_cores
from tdbench.base.errors import UserError
from tdbench.engine import TrainingBatch, cuda, cuda_available, make_engine, native
from tdbench.engine.networks import NETWORK
from tdbench.engine.precision import exact_float32
from tdbench.engine.protocol import TrainingProtocol, train_masks
from tdbench.engine.reference import torch_threads
from tdbench.perf.yardsticks import ReferenceProcesses, TorchFunc
from tdbench.space.task_space import TaskSpace

GIGA = 1e9
WARM_UP_STEPS = 5
WARM_UPS = 3  # of an engine that works in a loop; the fastest says whether one thread or all are better
PEAK_SECONDS = 0.3
DEVICES = ("auto", "cpu", "cuda")


def training_flop(n_images: int, steps: int = 100) -> float:
    """Nominal floating-point operations of one training: 16.0e9 for 50 images and 100 steps.

    Each step takes all images forward and backward. It counts the forward pass, as much again for the gradients of the
    weights, and as much again, without the first convolution, for the gradients of the activations. A multiply-add is
    two operations. Biases, pooling, losses and Adam are not counted. An engine that needs fewer operations is credited
    with the nominal work all the same.
    """
    forward, first = NETWORK.forward_macs, NETWORK.layers[0].macs
    return 2.0 * (3 * forward - first) * n_images * steps


def computed_flop(engine: str, n_images: int, n_train: int, steps: int = 100) -> float:
    """Floating-point operations that an engine really does for one training, at most, counted as `training_flop` does.

    The kernels `native` and `cuda` do less than the nominal work: 6.85e9 and 9.11e9 for 50 images, 40 of them training.

    - The backward pass takes the `n_train` training images only.
    - Of a 2x2 pooling window only the maximum passes a gradient on: both convolutions need a quarter of the dense work.
    - `native` computes the first convolution by Winograd's F(2x2, 5x5): 36 products for each channel of a window in
      place of 4 x 25. The transforms, additions for the most part, are not counted.

    Windows whose maximum ReLU sets to zero are counted, though `native` skips their gradients: how many they are
    depends on the training. The engines in torch do the nominal work.
    """
    if engine not in ("native", "cuda"):
        return training_flop(n_images, steps)
    conv1, conv2, *dense = (layer.macs for layer in NETWORK.layers if layer.uses)
    first = conv1 * 36 / 100 if engine == "native" else conv1
    forward = first + conv2 + sum(dense)
    backward = conv1 / 4 + 2 * conv2 / 4 + 2 * sum(dense)
    return 2.0 * (forward * n_images + backward * n_train) * steps


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        sizes: pairs (N, B) of images and trainings in a call.
        rounds: how often each case is timed.
        seconds: after the first round, no timing starts that would end later than this. If the first round alone takes
            longer than twice this time (a slow or busy machine), its remaining cases have no row.
        steps: of a training; fewer only in tests.
    """

    sizes: tuple[tuple[int, int], ...]
    rounds: int
    seconds: float
    steps: int = 100


CPU_PLAN = Plan(((50, 1), (50, 16), (50, 64), (50, 256), (200, 64)), rounds=5, seconds=240)
CUDA_PLAN = Plan(((50, 1), (50, 32), (50, 256), (50, 2048), (200, 256)), rounds=5, seconds=240)
FULL_PLAN = Plan(
    (
        *((50, batch) for batch in (1, 4, 16, 64, 256, 1024, 2048)),
        *((200, batch) for batch in (1, 4, 16, 64, 256, 1024)),
        *((500, batch) for batch in (1, 4, 16, 64, 256, 1024)),
    ),
    rounds=5,
    seconds=2700,
)


def default_plan(device: str, full: bool) -> Plan:
    """The plan of `tdbench perf` on that device, or of `tdbench perf --full`."""
    return FULL_PLAN if full else CUDA_PLAN if device == "cuda" else CPU_PLAN


@dataclass(frozen=True)
class Peak:
    """What a device can do, in GFLOP/s of float32: a register-only FMA loop (or None) and a matrix product."""

    fma: float | None
    matmul: float

    @property
    def gflops(self) -> float:
        """The number that shares refer to: the FMA loop on a CPU, else the matrix product."""
        return self.matmul if self.fma is None else self.fma


@dataclass(frozen=True)
class Measurement:
    """One engine at one size. Rates are trainings per second.

    Attributes:
        trainings_per_s, slowest, fastest: median and range over the timings.
        timings: number of timings.
        timed_batch: trainings in a timed call; less than `batch` for engines whose time is linear in the batch.
        share_of_peak: nominal work per second over the peak of the device, `peak_gflops`.
        computed_share: the same of the work that the engine really computes, at most (`computed_flop`).
        threads: CPU threads or processes that computed; None on CUDA. Peaks are those of all threads.
    """

    engine: str
    device: str
    n: int
    batch: int
    trainings_per_s: float
    share_of_peak: float
    slowest: float
    fastest: float
    timings: int
    timed_batch: int
    peak_gflops: float
    computed_share: float
    threads: int | None


@dataclass
class Benchmark:
    """What was measured: engines at sizes, the peak of each device, and the cases that the time did not suffice for."""

    device: str
    measurements: list[Measurement]
    peaks: dict[str, Peak]
    seconds: float
    threads: int = 1
    left_out: list[str] = field(default_factory=list)

    @property
    def peak_gflops(self) -> float:
        return self.peaks[self.device].gflops

    def find(self, engine: str, n: int, batch: int) -> Measurement | None:
        return next((m for m in self.measurements if (m.engine, m.n, m.batch) == (engine, n, batch)), None)

    def to_json(self) -> str:
        """``{"peak_gflops": ..., "threads": ..., "rows": [{"engine", "device", "n", "batch", ...}, ...]}``."""
        rows = [dataclasses.asdict(measurement) for measurement in self.measurements]
        return json.dumps({"peak_gflops": self.peak_gflops, "threads": self.threads, "rows": rows}, indent=1) + "\n"


def summary(benchmark: Benchmark, batch: int = 64) -> list[str]:
    """Lines that sum up: the best engine of the device against the reference, and against the best of the others."""
    measured = {m.engine for m in benchmark.measurements if m.device == benchmark.device}
    main = next((name for name in ("native", "cuda") if name in measured), "batched")
    others = [name for name in ("reference", "reference-multiprocess", "torch-func", "batched") if name != main]
    lines = []
    for m in benchmark.measurements:
        if m.engine != main or m.device != benchmark.device or m.batch < batch:
            continue
        rates = {name: other.trainings_per_s for name in others if (other := benchmark.find(name, m.n, m.batch))}
        if not rates:
            continue
        text = f"N = {m.n}, B = {m.batch}: {main} {m.trainings_per_s:.4g} trainings/s"
        if "reference" in rates:
            text += f", {m.trainings_per_s / rates['reference']:.1f}x reference"
        best = max(rates, key=lambda name: rates[name])
        text += f", {m.trainings_per_s / rates[best]:.1f}x the best other ({best}); "
        text += f"{m.share_of_peak:.0%} of peak in nominal work, {m.computed_share:.0%} in work really computed"
        lines.append(text)
    return lines


def resolve_device(device: str) -> str:
    """``cpu`` or ``cuda`` for auto, cpu or cuda. Raises UserError if there is no such device."""
    if device not in DEVICES:
        raise UserError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cuda" and not cuda_available():
        raise UserError("device cuda was asked for, but torch sees no CUDA device here; use --device cpu")
    return "cuda" if device != "cpu" and cuda_available() else "cpu"


def measure(
    plan: Plan, device: str = "auto", tell: Callable[[str], None] = lambda _: None, threads: int | None = None
) -> Benchmark:
    """Time everything in `plan` on that device; on ``cuda`` the native engine is timed on the CPU beside it.

    Args:
        tell: is called with a line about each step.
        threads: CPU threads of every engine and of the peak, and processes of `reference-multiprocess`; one per
            available core by default.

    Raises:
        UserError: no such device, no such number of threads, or the processes of `reference-multiprocess` do not start.
    """
    device, cores = resolve_device(device), available_cores()
    threads = cores if threads is None else threads
    if not 1 <= threads <= cores:
        raise UserError(f"threads must be 1 to {cores}, the cores that this process may use, got {threads}")
    begun = time.perf_counter()
    with contextlib.ExitStack() as stack:
        tell("starting processes")
        contenders = _contenders(device, threads, stack)
        cases = list(dict.fromkeys(_Case(c, n, c.timed(batch)) for n, batch in plan.sizes for c in contenders))
        works = {n: _work(n, max(case.batch for case in cases if case.n == n)) for n, _ in plan.sizes}
        expected: dict[_Case, float] = {}
        for case in cases:
            tell(f"warming up {case}")
            repeats = WARM_UPS if case.contender.linear_from else 1
            fastest = min(case.seconds(works[case.n], WARM_UP_STEPS) for _ in range(repeats))
            expected[case] = fastest * plan.steps / WARM_UP_STEPS
        devices = sorted({c.device for c in contenders})
        peaks: dict[str, list[Peak]] = {name: [] for name in devices}
        times: dict[_Case, list[float]] = {case: [] for case in _faster_of_two(expected)}
        for i in range(plan.rounds):
            for name in devices:
                peaks[name].append(measure_peak(name, PEAK_SECONDS, threads))
            for case in times:
                deadline = begun + (plan.seconds if i else 2 * plan.seconds)
                if time.perf_counter() + expected[case] > deadline:
                    continue
                tell(f"round {i + 1} of {plan.rounds}: {case}")
                expected[case] = case.seconds(works[case.n], plan.steps)
                times[case].append(expected[case])
    best = {name: _best(values) for name, values in peaks.items()}
    measurements = [
        _measurement(case, batch, seconds, best[case.contender.device].gflops, plan.steps, works[n].train_mask)
        for n, batch in plan.sizes
        for c in contenders
        if (seconds := times.get(case := _Case(c, n, c.timed(batch)), []))
    ]
    left_out = [str(case) for case, seconds in times.items() if len(seconds) < plan.rounds]
    return Benchmark(device, measurements, best, time.perf_counter() - begun, threads, left_out)


def _faster_of_two(seconds: dict[_Case, float]) -> list[_Case]:
    """Without the slower case where an engine can be timed on one thread and on all of them."""
    fastest: dict[tuple[str, int, int], _Case] = {}
    for case in seconds:
        key = (case.contender.name, case.n, case.batch)
        fastest[key] = min(fastest.get(key, case), case, key=lambda c: seconds[c])
    return list(fastest.values())


def measure_peak(device: str, seconds: float, threads: int | None = None) -> Peak:
    """The peak of that device now, on so many CPU threads (one per core); each kind of work runs for `seconds`."""
    if device == "cuda":
        return Peak(None, _matmul_gflops_cuda())
    threads = threads or available_cores()
    fma = native.peak_gflops(threads, seconds) if native.unavailable() is None else None
    with torch_threads(threads):
        return Peak(fma, _matmul_gflops_cpu(seconds))


def _matmul_gflops_cpu(seconds: float, side: int = 2048) -> float:
    a, b, out = torch.rand(side, side), torch.rand(side, side), torch.empty(side, side)
    fastest, begun = np.inf, time.perf_counter()
    while time.perf_counter() - begun < seconds or fastest == np.inf:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        fastest = min(fastest, time.perf_counter() - start)
    return float(2 * side**3 / fastest / GIGA)


def _matmul_gflops_cuda(side: int = 8192, repeats: int = 10) -> float:
    """Timed with device events, in float32 without TF32."""
    with exact_float32():
        a, b = torch.rand(side, side, device="cuda"), torch.rand(side, side, device="cuda")
        out = torch.mm(a, b)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            torch.mm(a, b, out=out)
        end.record()
        end.synchronize()
        milliseconds: float = start.elapsed_time(end)
    return 2 * side**3 * repeats / (milliseconds / 1e3) / GIGA


def _best(peaks: list[Peak]) -> Peak:
    """The peak of a machine is the best of its measurements."""
    loops = [peak.fma for peak in peaks if peak.fma is not None]
    return Peak(max(loops) if loops else None, max(peak.matmul for peak in peaks))


@dataclass(frozen=True)
class _Contender:
    """An engine on so many threads, of which at most `threads_each` work on one training.

    `linear_from`: from this batch size on, time is linear, as in a loop of such calls; None if it is not linear.
    """

    name: str
    device: str
    curves: Callable[[TrainingBatch, TrainingProtocol], NDArray[np.float32]]
    linear_from: int | None
    threads: int | None = None
    threads_each: int | None = None

    def timed(self, batch: int) -> int:
        return batch if self.linear_from is None else min(batch, self.linear_from)


def _contenders(device: str, threads: int, stack: contextlib.ExitStack) -> list[_Contender]:
    """Engines and yardsticks that run here, the slowest first; those in torch on all threads and on one."""
    found = []
    for t in dict.fromkeys((threads, 1)) if device == "cpu" else [None]:
        reference, func, batched = (
            make_engine("reference", device, t),
            TorchFunc(device, threads=t),
            make_engine("batched", device, t),
        )
        found += [
            _Contender("reference", device, reference.curves, 1, t),
            _Contender("torch-func", device, func.curves, func.chunk, t),
            _Contender("batched", device, batched.curves, batched.best_batch if device == "cpu" else None, t),
        ]
    if device == "cpu":
        processes = stack.enter_context(ReferenceProcesses(threads))
        n = processes.processes
        found.append(_Contender(processes.name, device, processes.curves, n, n, threads_each=1))
    if device == "cuda" and cuda.unavailable() is None:
        found.append(_Contender("cuda", device, make_engine("cuda").curves, None))
    if native.unavailable() is None:
        engine = make_engine("native", "cpu", threads)
        found.append(_Contender("native", "cpu", engine.curves, None, threads, native.TEAM))
    return found


@dataclass(frozen=True)
class _Case:
    contender: _Contender
    n: int
    batch: int

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.threads else ""
        return f"{self.contender.name}, N = {self.n}, B = {self.batch}{threads}"

    @property
    def threads(self) -> int | None:
        """CPU threads that have something to do."""
        all_threads, each = self.contender.threads, self.contender.threads_each
        return min(all_threads, each * self.batch) if all_threads and each else all_threads

    def seconds(self, work: TrainingBatch, steps: int) -> float:
        part = work.part(slice(self.batch))
        if self.contender.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        self.contender.curves(part, TrainingProtocol(steps))  # returns when the curves are in host memory, on CUDA too
        return time.perf_counter() - start


def _work(n: int, batch: int) -> TrainingBatch:
    """Trainings like those of a run: random labelings of a real image set, each with its own split and seed."""
    space = TaskSpace("digits", n=n)
    labels = space.random_labelings(batch)
    seeds = space.told_seeds(np.arange(batch), 1, "fresh", 0)[:, 0]
    return TrainingBatch.checked(space.images, labels, train_masks(labels, seeds, "stratified"), seeds)


def _measurement(
    case: _Case, batch: int, seconds: list[float], peak: float, steps: int, train_mask: NDArray[np.bool_]
) -> Measurement:
    rates = case.batch / np.array(seconds)
    median = float(np.median(rates))
    n_train = round(float(train_mask.sum(axis=1).mean()))
    computed = computed_flop(case.contender.name, case.n, n_train, steps)
    return Measurement(
        engine=case.contender.name,
        device=case.contender.device,
        n=case.n,
        batch=batch,
        trainings_per_s=median,
        share_of_peak=median * training_flop(case.n, steps) / GIGA / peak,
        slowest=float(rates.min()),
        fastest=float(rates.max()),
        timings=len(rates),
        timed_batch=case.batch,
        peak_gflops=peak,
        computed_share=median * computed / GIGA / peak,
        threads=case.threads,
    )


def sizes(measurements: list[Measurement]) -> Iterator[tuple[int, int]]:
    """The (N, B) that were measured, each once, in order."""
    yield from dict.fromkeys((m.n, m.batch) for m in measurements)
