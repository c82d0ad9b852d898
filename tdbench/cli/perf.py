"""`tdbench perf`."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tdbench.base.errors import UserError
from tdbench.base.table import Table
from tdbench.cli.options import PATH
from tdbench.cli.printing import format_option, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdbench.perf.bookkeeping import Cost as BookkeepingCost
    from tdbench.perf.engines import Benchmark
    from tdbench.perf.searchers import Cost


@click.command(short_help="Trainings per second of every engine")
@click.option("--full", is_flag=True, help="All sizes: N of 50, 200 and 500, B of 1 to 2048. Takes most of an hour.")
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Write it for machines.")
@click.option("--plot", "plot_file", type=PATH, metavar="FILE.png", help="Draw trainings/s over B.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=int, help="CPU threads of every engine and of the peak.  [default: one per core]")
@click.option("--markdown", is_flag=True, help="The same as --format md: the table as docs/performance.md has it.")
@click.option("--searchers", is_flag=True, help="Measure ask and tell of the searchers instead of the engines.")
@click.option("--bookkeeping", is_flag=True, help="Measure logs, leaderboards and locks by their size instead.")
@click.option("--budget", type=int, help="Largest budget of --searchers.  [default: 4000]")
@format_option
def perf(
    full: bool,
    json_file: Path | None,
    plot_file: Path | None,
    device: str,
    threads: int | None,
    markdown: bool,
    searchers: bool,
    bookkeeping: bool,
    budget: int | None,
    form: str,
) -> None:
    """Trainings per second of every engine and of two outside yardsticks, as shares of the machine's peak.

    Meant for about five minutes on two idle cores; do nothing else on the machine meanwhile.
    """
    from rich.console import Console

    if searchers and bookkeeping:
        raise UserError("--searchers and --bookkeeping are two measurements; take one at a time")
    if (searchers or bookkeeping) and (full or plot_file or device != "auto" or threads is not None):
        raise UserError(
            f"{'--searchers takes --budget,' if searchers else '--bookkeeping takes'} --json, --format and "
            "--markdown; --full, --plot, --device and --threads are for engines"
        )
    if budget is not None and not searchers:
        raise UserError("--budget goes with --searchers")
    if plot_file is not None and plot_file.suffix.lower() != ".png":
        raise UserError(f"--plot writes a PNG: name it {plot_file.with_suffix('.png')}, not {plot_file}")
    for path in (json_file, plot_file):
        if path is not None:
            _check_writable(path)
    with Console(stderr=True).status("") as status:

        def tell(text: str) -> None:
            status.update(text.replace("[", r"\["))

        if searchers:
            from tdbench.perf import searchers as searcher_costs

            costs = searcher_costs.measure_searchers(searcher_costs.BUDGET if budget is None else budget, tell=tell)
        elif bookkeeping:
            from tdbench.perf.bookkeeping import measure_bookkeeping

            kept = measure_bookkeeping(tell=tell)
        else:
            from tdbench.perf.engines import default_plan, measure, resolve_device

            benchmark = measure(default_plan(resolve_device(device), full), device, tell, threads)
    form = "md" if markdown else form
    if searchers:
        _show_costs(costs, json_file, form)
    elif bookkeeping:
        _show_bookkeeping(kept, json_file, form)
    else:
        _show_benchmark(benchmark, json_file, plot_file, form)


def _show_benchmark(benchmark: Benchmark, json_file: Path | None, plot_file: Path | None, form: str) -> None:
    from tdbench.base.files import write_bytes
    from tdbench.perf import tables as perf_tables
    from tdbench.report.pictures import figure_png

    if json_file is not None:
        write_bytes(json_file, benchmark.to_json().encode())
    if plot_file is not None:
        write_bytes(plot_file, figure_png(perf_tables.plot(benchmark)))
    cells, lines = perf_tables.benchmark_cells(benchmark), perf_tables.benchmark_lines(benchmark)
    table = Table("", perf_tables.BENCHMARK_COLUMNS, tuple(map(tuple, cells)), text=(2, 3))
    show(form, [table], [dataclasses.asdict(m) for m in benchmark.measurements], lines=lines)


def _show_costs(costs: Sequence[Cost], json_file: Path | None, form: str) -> None:
    from tdbench.base import environment
    from tdbench.base.files import write_bytes
    from tdbench.perf import tables as perf_tables
    from tdbench.perf.searchers import to_json

    if json_file is not None:
        write_bytes(json_file, to_json(costs).encode())
    lines = [environment.hardware("cpu"), environment.versions(), perf_tables.COST_NOTE]
    table = Table("", perf_tables.COST_COLUMNS, tuple(map(tuple, perf_tables.cost_cells(costs))))
    show(form, [table], [dataclasses.asdict(cost) for cost in costs], lines=lines)


def _show_bookkeeping(costs: Sequence[BookkeepingCost], json_file: Path | None, form: str) -> None:
    from tdbench.base import environment
    from tdbench.base.files import write_bytes
    from tdbench.perf import tables as perf_tables

    records = [{**dataclasses.asdict(cost), "each_us": cost.each_us} for cost in costs]
    if json_file is not None:
        write_bytes(json_file, (json.dumps({"bookkeeping": records}, indent=1) + "\n").encode())
    lines = [environment.hardware("cpu"), environment.versions(), perf_tables.BOOKKEEPING_NOTE]
    table = Table("", perf_tables.BOOKKEEPING_COLUMNS, tuple(map(tuple, perf_tables.bookkeeping_cells(costs))))
    show(form, [table], records, lines=lines)


def _check_writable(path: Path) -> None:
    """Before minutes of measuring: can a file be written there? Leaves nothing behind but folders."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
