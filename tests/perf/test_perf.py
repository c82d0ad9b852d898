"""`tdbench perf`: the yardsticks train what the engines train, and what is written is what was measured.

Nothing here depends on how long anything takes.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tdbench import UserError
from tdbench.cli import tdbench
from tdbench.engine import TrainingBatch, make_engine, native
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import torch_threads
from tdbench.perf import bookkeeping
from tdbench.perf import engines as perf
from tdbench.perf import searchers as searcher_costs
from tdbench.perf import tables as perf_tables
from tdbench.perf.yardsticks import ReferenceProcesses, TorchFunc
from tdbench.report.pictures import figure_png

ENGINES = {"reference", "reference-multiprocess", "torch-func", "batched"}
TINY = perf.Plan(((10, 1), (10, 3)), rounds=2, seconds=60, steps=5)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Torch's threads wait for each other where several tests share the cores."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def processes() -> Iterator[ReferenceProcesses]:
    with ReferenceProcesses(2) as started:
        yield started


@pytest.fixture(scope="module")
def measure(processes: ReferenceProcesses) -> Iterator[Callable[..., perf.Benchmark]]:
    """`perf.measure` with processes that are already there, since starting them takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perf, "ReferenceProcesses", lambda _: contextlib.nullcontext(processes))
        patch.setattr(perf, "PEAK_SECONDS", 0.02)
        yield perf.measure


@pytest.fixture(scope="module")
def measured(measure: Callable[..., perf.Benchmark]) -> perf.Benchmark:
    return measure(TINY, "cpu")


def batch(n: int, size: int) -> TrainingBatch:
    rng = np.random.default_rng(1)
    images = rng.standard_normal((n, 3, 32, 32)).astype(np.float32)
    labels = (rng.random((size, n)) < 0.3).astype(np.uint8)
    mask = np.ones((size, n), dtype=bool)
    for row in mask:
        row[rng.choice(n, 1 + n // 5, replace=False)] = False
    return TrainingBatch.checked(images, labels, mask, rng.integers(2**63, size=size, dtype=np.uint64))


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_torch_func_computes_the_curves_of_the_reference(chunk: int) -> None:
    work, protocol = batch(n=11, size=5), TrainingProtocol(steps=12)
    expected = make_engine("reference", "cpu").curves(work, protocol)
    np.testing.assert_allclose(TorchFunc("cpu", chunk).curves(work, protocol), expected, atol=2e-4)


@pytest.mark.parametrize("size", [1, 5])
def test_processes_compute_the_curves_of_the_reference(processes: ReferenceProcesses, size: int) -> None:
    work, protocol = batch(n=11, size=size), TrainingProtocol(steps=8)
    expected = make_engine("reference", "cpu").curves(work, protocol)
    np.testing.assert_allclose(processes.curves(work, protocol), expected, atol=2e-4)


def test_one_training_is_16_gflop() -> None:
    assert perf.training_flop(50, 100) == pytest.approx(16.0e9, rel=0.001)
    assert perf.training_flop(100, 50) == perf.training_flop(50, 100)


def test_work_of_the_kernels_is_counted_by_hand() -> None:
    dense = 400 * 120 + 120 * 84 + 84 * 2
    conv2 = 10 * 10 * 16 * 150
    windows1, windows2 = 14 * 14 * 6, 5 * 5 * 16  # pooling windows of all output channels
    winograd, direct = windows1 * 36 * 3, windows1 * 4 * 75
    for engine, conv1 in (("native", winograd), ("cuda", direct)):
        forward = conv1 + conv2 + dense
        assert perf.computed_flop(engine, n_images=1, n_train=0, steps=1) == 2 * forward
        backward = windows1 * 75 + 2 * windows2 * 150 + 2 * dense
        assert perf.computed_flop(engine, 10, 8, steps=3) == 2 * (10 * forward + 8 * backward) * 3
    assert perf.computed_flop("native", 50, 40) == pytest.approx(6.85e9, rel=0.001)
    assert perf.computed_flop("reference", 50, 40) == perf.training_flop(50)


def test_share_of_computed_work_is_that_of_nominal_work_for_engines_in_torch(measured: perf.Benchmark) -> None:
    for m in measured.measurements:
        share = perf.computed_flop(m.engine, m.n, 8, TINY.steps) / perf.training_flop(m.n, TINY.steps)
        assert m.computed_share == pytest.approx(m.share_of_peak * share)
        assert (m.engine == "native") == (share < 1)


def test_threads_limit_every_engine_and_the_peak(
    measure: Callable[..., perf.Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = []
    monkeypatch.setattr(native, "peak_gflops", lambda threads, _: peaks.append(threads) or 100.0)
    monkeypatch.setattr(perf, "available_cores", lambda: 4)
    benchmark = measure(perf.Plan(((10, 1), (10, 3)), rounds=1, seconds=60, steps=5), "cpu", threads=3)
    threads = {(m.engine, m.batch): m.threads for m in benchmark.measurements}
    assert {threads[engine, 3] for engine in ("reference", "torch-func", "batched")} <= {1, 3}
    assert threads["reference-multiprocess", 1] == 1  # one training keeps one process busy
    assert threads["reference-multiprocess", 3] == 2  # the fixture's two processes
    if native.unavailable() is None:
        assert threads["native", 1] == threads["native", 3] == 3
        assert peaks == [3]


def test_the_faster_of_one_thread_and_all_threads_counts(
    measure: Callable[..., perf.Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perf, "available_cores", lambda: 4)
    monkeypatch.setattr(perf._Case, "seconds", lambda case, *_: 1.0 if case.threads == 1 else 2.0)
    benchmark = measure(perf.Plan(((10, 3),), rounds=2, seconds=60, steps=5), "cpu", threads=4)
    for engine in ("reference", "torch-func", "batched"):
        (m,) = (m for m in benchmark.measurements if m.engine == engine)
        assert (m.threads, m.timings, m.trainings_per_s) == (1, 2, m.timed_batch)


@pytest.mark.parametrize("threads", [0, 10**6])
def test_threads_that_are_not_there_are_a_clear_error(threads: int) -> None:
    with pytest.raises(UserError, match="threads must be 1 to"):
        perf.measure(TINY, "cpu", threads=threads)


@pytest.mark.skipif(native.unavailable() is not None, reason="the native kernel is not built here")
def test_auto_is_the_native_kernel_where_it_is_built() -> None:
    assert make_engine("auto", "cpu").name == "native"


def test_json_is_what_machines_are_promised(measured: perf.Benchmark) -> None:
    document = json.loads(measured.to_json())
    assert set(document) == {"peak_gflops", "threads", "rows"}
    assert document["peak_gflops"] > 0
    for row in document["rows"]:
        assert {"engine", "device", "n", "batch", "trainings_per_s", "share_of_peak", "computed_share"} <= set(row)
        assert row["threads"] >= 1
        assert row["device"] == "cpu"
        work = row["trainings_per_s"] * perf.training_flop(row["n"], TINY.steps) / 1e9
        assert row["share_of_peak"] == pytest.approx(work / document["peak_gflops"])
        assert 0 < row["slowest"] <= row["trainings_per_s"] <= row["fastest"]


def test_every_engine_has_a_row_at_every_size(measured: perf.Benchmark) -> None:
    engines = ENGINES | ({"native"} if native.unavailable() is None else set())
    expected = {(engine, n, batch) for engine in engines for n, batch in TINY.sizes}
    assert {(m.engine, m.n, m.batch) for m in measured.measurements} == expected


def test_linear_engines_are_timed_on_few_trainings_and_say_so(measured: perf.Benchmark) -> None:
    one, three = measured.find("reference", 10, 1), measured.find("reference", 10, 3)
    assert (three.timed_batch, three.timings) == (1, 2)
    assert three.trainings_per_s == one.trainings_per_s


def test_a_slow_machine_gets_one_round_and_a_very_slow_one_no_rows(
    measure: Callable[..., perf.Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perf._Case, "seconds", lambda *_: 1000.0)  # each timing seems to take so long
    benchmark = measure(perf.Plan(((10, 1),), rounds=3, seconds=900, steps=5), "cpu")
    assert {m.timings for m in benchmark.measurements} == {1}
    assert len(benchmark.left_out) == len(benchmark.measurements)
    assert not measure(perf.Plan(((10, 1),), rounds=3, seconds=100, steps=5), "cpu").measurements


def measurement(engine: str, rate: float) -> perf.Measurement:
    return perf.Measurement(engine, "cpu", 50, 64, rate, rate / 30, rate, rate, 3, 1, 480.0, rate / 70, 2)


def test_summary_compares_with_the_reference_and_with_the_best_other() -> None:
    rates = {"reference": 2, "reference-multiprocess": 3, "torch-func": 1, "native": 24}
    measured = [measurement(engine, rate) for engine, rate in rates.items()]
    (line,) = perf.summary(perf.Benchmark("cpu", measured, {"cpu": perf.Peak(480, 400)}, 1.0))
    assert "12.0x reference" in line
    assert "8.0x the best other (reference-multiprocess)" in line


def test_plot_is_a_png_of_every_engine(measured: perf.Benchmark, tmp_path: Path) -> None:
    figure = perf_tables.plot(measured)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {f"{engine} (cpu)" for engine in ENGINES} < labels
    (tmp_path / "plot.png").write_bytes(figure_png(figure))
    with Image.open(tmp_path / "plot.png") as picture:
        assert min(picture.size) > 400


def test_searchers_cost_something_at_each_budget() -> None:
    costs = searcher_costs.measure_searchers(budget=48)
    assert {cost.searcher for cost in costs} > {"random", "twopointsde", "cmaes", "tpe", "clustered-random", "hunch"}
    assert {cost.budget for cost in costs} == {3, 12, 48}
    assert all(cost.evaluations == cost.budget and cost.ask_tell > 0 for cost in costs)
    assert {cost.searcher for cost in costs if cost.adapter is not None} == set(searcher_costs.LIBRARIES)


def test_a_searcher_that_is_out_of_time_says_how_far_it_came() -> None:
    costs = searcher_costs.measure_searchers(budget=200, seconds=0.01)
    cost = next(cost for cost in costs if (cost.searcher, cost.budget) == ("tpe", 200))
    assert 0 < cost.evaluations < cost.budget
    (cells,) = perf_tables.cost_cells([cost])
    assert f"({cost.evaluations})" in cells[3]


def perf_command(*args: object) -> Result:
    return CliRunner().invoke(tdbench, ["perf", *map(str, args)])


def test_command_writes_json_and_plot(
    measured: perf.Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perf, "measure", lambda *_: measured)
    result = perf_command("--json", tmp_path / "new" / "perf.json", "--plot", tmp_path / "perf.png", "--markdown")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "new" / "perf.json").read_text()) == json.loads(measured.to_json())
    assert (tmp_path / "perf.png").read_bytes().startswith(b"\x89PNG")
    assert "| N | B | engine |" in result.output
    assert "register-only FMA loop" in result.output or native.unavailable()


def test_command_prints_each_measurement_as_an_object(
    measured: perf.Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perf, "measure", lambda *_: measured)
    records = json.loads(perf_command("--format", "json").stdout)
    assert [(r["engine"], r["batch"]) for r in records] == [(m.engine, m.batch) for m in measured.measurements]
    markdown, same = perf_command("--markdown").output, perf_command("--format", "md").output
    assert markdown == same


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (("--json", "/proc/nothing/perf.json"), "cannot be written"),
        (("--json", "."), "is a folder"),
        (("--plot", "perf.svg"), "writes a PNG"),
        (("--device", "tpu"), "device must be one of"),
        (("--budget", 10), "budget goes with searchers"),
        (("--searchers", "--budget", 0), "budget must be at least 1"),
        (("--searchers", "--full"), "searchers takes"),
        (("--searchers", "--threads", 1), "searchers takes"),
    ],
)
def test_a_bad_value_is_one_clear_error_before_anything_is_measured(args: tuple[object, ...], what: str) -> None:
    result = perf_command(*args)
    assert isinstance(result.exception, UserError)
    assert what in str(result.exception)


def test_no_cuda_device_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf, "cuda_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        perf.measure(TINY, "cuda")


def test_peak_is_a_number_of_this_machine() -> None:
    peak = perf.measure_peak("cpu", seconds=0.01)
    assert math.isfinite(peak.gflops) and peak.matmul > 0


def test_bookkeeping_is_measured_at_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookkeeping.measure_bookkeeping, "__defaults__", ((3, 5), (40, 70), lambda _: None))
    path = tmp_path / "costs.json"
    result = perf_command("--bookkeeping", "--format", "json", "--json", path)
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)
    assert records == json.loads(path.read_text())["bookkeeping"]
    sizes = {name: [r["runs"] for r in records if r["operation"] == name] for name in {r["operation"] for r in records}}
    assert sizes["append a row"] == sizes["status"] == sizes["lock the runs"] == [3, 5]
    asks = [r["evaluations"] for r in records if r["operation"] == "read the asks of a resumed run"]
    assert asks == [40, 70]
    assert all(r["ms"] > 0 and r["peak_mib"] > 1 for r in records)
    assert all(r["items"] == r["runs"] for r in records if r["operation"] == "status")
    markdown = perf_command("--bookkeeping", "--markdown").output
    assert "| operation | runs | evaluations |" in markdown and "peak MiB is the most memory" in markdown


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (("--bookkeeping", "--searchers"), "take one at a time"),
        (("--bookkeeping", "--full"), "bookkeeping takes json"),
        (("--bookkeeping", "--budget", 5), "budget goes with searchers"),
    ],
)
def test_bookkeeping_takes_no_option_of_the_others(args: tuple[object, ...], what: str) -> None:
    result = perf_command(*args)
    assert isinstance(result.exception, UserError)
    assert what in str(result.exception)
