"""The tables and the plot of `tdbench perf`."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from tdbench.base import environment
from tdbench.engine.networks import NETWORK
from tdbench.perf.bookkeeping import REPEATS
from tdbench.perf.bookkeeping import Cost as Bookkeeping
from tdbench.perf.engines import GIGA, Benchmark, Measurement, Peak, computed_flop, sizes, summary, training_flop
from tdbench.perf.searchers import BATCH, N_IMAGES, Cost
from tdbench.report.style import INK, ZERO, style_axes

BENCHMARK_COLUMNS = (
    *("N", "B", "engine", "device", "threads", "trainings/s", "range", "x reference"),
    *("of peak, nominal", "of peak, computed", "timed"),
)
COST_COLUMNS = (
    *("searcher", "budget", "start, s", "ask + tell, ms", "last tenth, ms"),
    *("library's own, ms", "adapter adds, ms"),
)
COST_NOTE = (
    f"milliseconds per evaluation, random losses, N = {N_IMAGES}, batch {BATCH}, one thread; 'adapter adds' is the "
    "median over batches of its time minus that of the library's own loop, which ran beside it; "
    "(k): the time was up after k evaluations"
)
BOOKKEEPING_COLUMNS = ("operation", "runs", "evaluations", "ms", "us for each", "peak MiB")
BOOKKEEPING_NOTE = (
    f"made-up runs of one space; 'append a row' and 'commit an ask' are medians of {REPEATS}, the others are done "
    "once, for all that the folder holds; peak MiB is the most memory that the process had taken until then"
)
TIMED_NOTE = (
    "nominal: dense layers on all images; computed: what the engine really computes of it, at most; "
    "range: slowest and fastest timing; timed: timings x trainings in each, which are fewer than B if from there on an "
    "engine's time is linear in B"
)
COLOURS = {
    "native": "#1d4ed8",
    "cuda": "#7c3aed",
    "batched": "#c2410c",
    "torch-func": "#a16207",
    "reference-multiprocess": "#15803d",
    "reference": "#6b7280",
}


def benchmark_cells(benchmark: Benchmark) -> list[list[str]]:
    """A row of text for each measurement, the fastest engine of a size first."""
    cells = []
    for n, batch in sizes(benchmark.measurements):
        group = [m for m in benchmark.measurements if (m.n, m.batch) == (n, batch)]
        reference = benchmark.find("reference", n, batch)
        for m in sorted(group, key=lambda m: -m.trainings_per_s):
            ratio = f"{m.trainings_per_s / reference.trainings_per_s:.1f}" if reference else ""
            cells.append(
                [
                    *(str(n), str(batch), m.engine, m.device, "" if m.threads is None else str(m.threads)),
                    _number(m.trainings_per_s),
                    *(f"{_number(m.slowest)} - {_number(m.fastest)}", ratio),
                    *(f"{m.share_of_peak:.1%}", f"{m.computed_share:.1%}", f"{m.timings} x {m.timed_batch}"),
                ]
            )
    return cells


def cost_cells(costs: Sequence[Cost]) -> list[list[str]]:
    """A row of text for each searcher and budget."""
    return [
        [
            *(cost.searcher, str(cost.budget), f"{cost.start_s:.3f}"),
            f"{cost.ask_tell:.3f}" + _up_to(cost.evaluations, cost.budget),
            f"{cost.last:.3f}",
            "" if cost.library is None else f"{cost.library:.3f}" + _up_to(cost.library_evaluations, cost.budget),
            "" if cost.adapter is None else f"{cost.adapter:+.3f}",
        ]
        for cost in costs
    ]


def bookkeeping_cells(costs: Sequence[Bookkeeping]) -> list[list[str]]:
    """A row of text for each operation and size, all sizes of one operation together."""
    order = {name: i for i, name in enumerate(dict.fromkeys(cost.operation for cost in costs))}
    return [
        [
            *(cost.operation, f"{cost.runs:,}", f"{cost.evaluations:,}"),
            *(f"{cost.ms:,.2f}", f"{cost.each_us:,.1f}", f"{cost.peak_mib:,.0f}"),
        ]
        for cost in sorted(costs, key=lambda cost: order[cost.operation])
    ]


def peak_line(device: str, peak: Peak) -> str:
    """The peak of a device in words."""
    product = f"{peak.matmul:,.0f} GFLOP/s in a large matrix product"
    loop = "" if peak.fma is None else f"{peak.fma:,.0f} GFLOP/s in a register-only FMA loop, "
    return f"peak of {device}, float32, best of all rounds: {loop}{product}; shares are of {peak.gflops:,.0f}"


def benchmark_lines(benchmark: Benchmark) -> list[str]:
    """The lines below the table: hardware, versions, peaks, a summary, and what was timed less often."""
    lines = [f"{environment.hardware(device)}; {peak_line(device, peak)}" for device, peak in benchmark.peaks.items()]
    lines.append(environment.versions())
    fewer = ", or 1 where an engine in torch is faster so" if benchmark.threads > 1 else ""
    lines.append(f"CPU threads: {benchmark.threads}{fewer}; peaks are of all of them")
    work = (
        f"{training_flop(50) / GIGA:.1f} GFLOP nominal, {computed_flop('native', 50, 40) / GIGA:.2f} computed by native"
    )
    lines.append(f"one training at N = 50: {work}; {TIMED_NOTE}")
    lines += summary(benchmark)
    if benchmark.left_out:
        lines.append("timed in fewer rounds, because the time was up: " + "; ".join(benchmark.left_out))
    lines.append(f"took {benchmark.seconds:.0f} s")
    return lines


def plot(benchmark: Benchmark) -> Figure:
    """Trainings per second over B, a panel for each N, both axes logarithmic; bars from slowest to fastest timing.

    The dashed line is the device's peak, divided by the nominal work of a training.
    """
    ns = list(dict.fromkeys(m.n for m in benchmark.measurements))
    figure = Figure(figsize=(1.6 + 3.9 * len(ns), 4.2), dpi=150, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(ns), sharey=True, squeeze=False)[0]
    for axes, n in zip(panels, ns, strict=True):
        _panel(axes, n, [m for m in benchmark.measurements if m.n == n])
    panels[0].set_ylabel("trainings per second", color=INK)
    handles = {label: h for axes in panels for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=9)
    hardware = ", ".join(map(environment.hardware, benchmark.peaks))
    title = f"100 full-batch Adam steps of {NETWORK.n_parameters:,} weights on {hardware}"
    figure.suptitle(title, fontsize=9, color=INK, x=0.01, ha="left", parse_math=False)
    return figure


def _panel(axes: Axes, n: int, measured: list[Measurement]) -> None:
    for engine, device in dict.fromkeys((m.engine, m.device) for m in measured):
        line = sorted((m for m in measured if (m.engine, m.device) == (engine, device)), key=lambda m: m.batch)
        batches, rates = [m.batch for m in line], [m.trainings_per_s for m in line]
        colour = COLOURS.get(engine)
        axes.plot(batches, rates, marker="o", ms=4.5, lw=1.8, color=colour, label=f"{engine} ({device})")
        axes.vlines(batches, [m.slowest for m in line], [m.fastest for m in line], lw=1.2, color=colour)
    for device in dict.fromkeys(m.device for m in measured):
        rate = next(m.trainings_per_s / m.share_of_peak for m in measured if m.device == device)
        axes.axhline(rate, ls="--", lw=1, color=ZERO, label=f"peak ({device})")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({m.batch for m in measured})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    style_axes(axes, grid="y")
    axes.set_title(f"N = {n}", fontsize=10, color=INK)
    axes.set_xlabel("B, trainings in one call", fontsize=9, color=INK)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _up_to(evaluations: int, budget: int) -> str:
    return "" if evaluations == budget else f" ({evaluations})"
