"""`tdbench doctor` and `perf`: what this machine has, and how fast it trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tdbench.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdbench.perf.engines import Benchmark
    from tdbench.perf.searchers import Cost


@click.command()
@click.option("--data-dir", type=click.Path(), help="Folder of the CIFAR sets.")
def doctor(data_dir: str | None) -> None:
    """Versions, devices, engines and sources of this installation."""
    from tdbench.base import environment
    from tdbench.engine import cuda_available, make_engine, native
    from tdbench.space.sources import cached_sources

    for pair in environment.versions().split():
        name, _, value = pair.partition("=")
        click.echo(f"{name:<14}{value}")
    click.echo(f"{'processor':<14}{environment.hardware('cpu')}")
    click.echo(f"{'cuda':<14}{environment.hardware('cuda') if cuda_available() else 'none that torch can see'}")
    reason = native.unavailable()
    for name, state in (
        ("native", f"not available: {reason}" if reason else f"available ({make_engine('native').detail})"),
        ("batched", "available"),
        ("reference", "available"),
    ):
        click.echo(f"engine {name:<10}{state}")
    click.echo(f"engine auto      is {make_engine().name} on {make_engine().device}")
    for name, state in cached_sources(data_dir):
        click.echo(f"data {name:<12}{state}")


@click.command()
@click.option("--full", is_flag=True, help="All sizes: N of 50, 200 and 500, B of 1 to 2048. Takes most of an hour.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write it for machines.")
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw trainings/s over B."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--markdown", is_flag=True, help="Print the table as docs/performance.md has it.")
@click.option("--searchers", is_flag=True, help="Measure ask and tell of the searchers instead of the engines.")
@click.option("--budget", type=int, help="Largest budget of --searchers.  [default: 4000]")
def perf(
    full: bool,
    json_file: Path | None,
    plot_file: Path | None,
    device: str,
    markdown: bool,
    searchers: bool,
    budget: int | None,
) -> None:
    """Trainings per second of every engine and of two outside yardsticks, as shares of the machine's peak.

    Meant for about five minutes on two idle cores; do nothing else on the machine meanwhile.
    """
    from rich.console import Console

    if searchers and (full or plot_file or device != "auto"):
        raise UserError("--searchers takes --budget, --json and --markdown; --full, --plot and --device are of engines")
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
        else:
            from tdbench.perf.engines import default_plan, measure, resolve_device

            benchmark = measure(default_plan(resolve_device(device), full), device, tell)
    if searchers:
        _print_costs(costs, json_file, markdown)
    else:
        _print_benchmark(benchmark, json_file, plot_file, markdown)


def _print_benchmark(benchmark: Benchmark, json_file: Path | None, plot_file: Path | None, markdown: bool) -> None:
    from tdbench.perf import tables as perf_tables
    from tdbench.report.pictures import figure_png, write_bytes

    if json_file is not None:
        write_bytes(json_file, benchmark.to_json().encode())
    if plot_file is not None:
        write_bytes(plot_file, figure_png(perf_tables.plot(benchmark)))
    cells, lines = perf_tables.benchmark_cells(benchmark), perf_tables.benchmark_lines(benchmark)
    _print_table(perf_tables.BENCHMARK_COLUMNS, cells, lines, markdown)


def _print_costs(costs: Sequence[Cost], json_file: Path | None, markdown: bool) -> None:
    from tdbench.base import environment
    from tdbench.perf import tables as perf_tables
    from tdbench.perf.searchers import to_json
    from tdbench.report.pictures import write_bytes

    if json_file is not None:
        write_bytes(json_file, to_json(costs).encode())
    lines = [environment.hardware("cpu"), environment.versions(), perf_tables.COST_NOTE]
    _print_table(perf_tables.COST_COLUMNS, perf_tables.cost_cells(costs), lines, markdown)


def _print_table(columns: Sequence[str], cells: Sequence[Sequence[str]], lines: Sequence[str], markdown: bool) -> None:
    from rich.console import Console

    from tdbench.perf import tables as perf_tables

    if markdown:
        click.echo(perf_tables.markdown_table(columns, cells) + "\n\n" + "\n".join(f"- {line}" for line in lines))
        return
    Console().print(perf_tables.rich_table(columns, cells))
    for line in lines:
        click.echo(line)


def _check_writable(path: Path) -> None:
    """Before minutes of measuring: can a file be written there? Leaves nothing behind but folders."""
    import tempfile

    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
