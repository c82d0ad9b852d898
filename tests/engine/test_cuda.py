"""The engine `cuda` without a GPU: its kernel on a CPU against `reference`, and what drives it, on a fake driver."""

from __future__ import annotations

import ctypes
import math
import threading

import numpy as np
import pytest
from fake_cuda import FakeCuda, FakeNvrtc, compile_kernel
from test_engines import Batch, losses_by_definition
from test_train import check_promises, check_stops, make_batch, starting_from

from tdbench.base.errors import UserError
from tdbench.cli.doctor import installation
from tdbench.engine import Stopped, cuda, make_engine
from tdbench.engine import engine as engines
from tdbench.engine.cuda import CudaEngine, scratch_floats
from tdbench.engine.cuda_driver import CudaError, Driver
from tdbench.engine.networks import initial_weights
from tdbench.engine.nvrtc import Compiler
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import ReferenceEngine
from tdbench.space.score import generalization_level

FEW = TrainingProtocol(steps=5)
TWELVE = TrainingProtocol(steps=12)
REFERENCE = ReferenceEngine(threads=1)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return compile_kernel(tmp_path_factory.mktemp("cells"))


@pytest.fixture
def gpu(kernel):
    """A GPU, all of whose memory is free again after the test."""
    gpu = FakeCuda(kernel)
    yield gpu
    assert not gpu.allocated


@pytest.fixture
def engine(gpu):
    return CudaEngine(Driver(gpu), b"binary", "sm_90")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tdbench" / "kernels"


# the kernel


@pytest.mark.parametrize(("n", "size"), [(10, 3), (37, 1), (50, 1)])
def test_curves_and_weights_agree_with_reference(engine, n, size):
    batch = Batch(n=n, size=size, sets=min(size, 2)).checked()
    computed, expected = engine.train(batch, TWELVE), REFERENCE.train(batch, TWELVE)
    np.testing.assert_allclose(computed.curves, expected.curves, rtol=0, atol=3e-5)
    assert np.mean(np.abs(computed.weights - expected.weights) < 1e-5) > 0.99


def test_first_entry_is_the_validation_loss_of_the_untrained_network(engine):
    batch = Batch(n=12, size=2)
    for row, y, train, seed in zip(batch.curves(engine, FEW), batch.labels, batch.train, batch.seeds, strict=True):
        expected = losses_by_definition(batch.images[0], y, seed)[~train].mean()
        assert row[0] == pytest.approx(expected, abs=2e-6)


def test_taskness_of_whole_trainings_agrees_with_reference(engine):
    batch, whole = Batch(n=10, size=3, seed=3), TrainingProtocol()
    difference = generalization_level(batch.curves(engine, whole)) - generalization_level(
        batch.curves(REFERENCE, whole)
    )
    assert np.abs(difference).max() / math.log(2) < 0.002


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_any_number_of_images_and_any_mask(engine, n):
    batch = make_batch(n, size=2, seed=n)
    expected = REFERENCE.curves(batch, FEW)
    np.testing.assert_allclose(engine.curves(batch, FEW), expected, rtol=0, atol=3e-5, equal_nan=True)
    check_promises(engine, make_batch(n, size=3, sets=2))


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_of_a_block_change_no_bit(engine, gpu, threads):
    batch = make_batch(n=7, size=2)
    expected = engine.train(batch, FEW)
    gpu.threads = threads
    computed = engine.train(batch, FEW)
    np.testing.assert_array_equal(computed.curves, expected.curves)
    np.testing.assert_array_equal(computed.weights, expected.weights)


def test_order_in_the_batch_changes_no_bit(engine):
    batch, order = Batch(n=9, size=4, sets=2), np.array([3, 0, 2, 1])
    np.testing.assert_array_equal(batch.curves(engine, FEW, order), batch.curves(engine, FEW)[order])


def test_weights_are_drawn_as_they_are_defined(engine):
    batch = make_batch(n=2, size=3)
    drawn, given = engine.train(batch, FEW), engine.train(starting_from(batch, initial_weights(batch.seeds)), FEW)
    np.testing.assert_array_equal(drawn.weights, given.weights)


@pytest.mark.parametrize("lr", [1.0, 1e30])
def test_dead_and_diverged_networks_have_finite_entries_where_reference_has_them(engine, lr):
    batch = make_batch(n=8, size=2)
    batch.images[...] = -np.abs(batch.images) * 20
    protocol = TrainingProtocol(steps=7, lr=lr)
    expected, computed = REFERENCE.curves(batch, protocol), engine.curves(batch, protocol)
    np.testing.assert_array_equal(np.isfinite(computed), np.isfinite(expected))
    np.testing.assert_allclose(computed[:, :2], expected[:, :2], rtol=1e-4)


@pytest.mark.parametrize("scale", [1e20, np.inf])
def test_a_diverged_training_harms_no_neighbour(engine, scale):
    batch = Batch(n=6, size=2, sets=2)
    healthy = batch.curves(engine, FEW)
    batch.images[1] *= scale
    curves = batch.curves(engine, FEW)
    np.testing.assert_array_equal(curves[0], healthy[0])
    assert not (curves[1] < 1e3).all()


# what drives it


def test_memory_for_the_kernel_is_what_it_lays_out(kernel):
    for n in (1, 2, 7, 50, 333):
        assert scratch_floats(n) == kernel.cells_scratch_floats(n)


def test_blocks_are_networks_and_steps_are_divided_without_changing_a_bit(engine, gpu, monkeypatch):
    batch = make_batch(n=5, size=3)
    monkeypatch.setattr(cuda, "LAUNCH_SECONDS", 1000)
    expected = engine.curves(batch, TWELVE)
    assert gpu.launches == [(3, 256)] * 3  # 1, 4 and 7 steps
    gpu.launches.clear()
    monkeypatch.setattr(cuda, "LAUNCH_SECONDS", 0)
    np.testing.assert_array_equal(engine.curves(batch, TWELVE), expected)
    assert gpu.launches == [(3, 256)] * 12


def test_where_memory_is_short_fewer_networks_are_trained_at_once_with_the_same_bits(engine, gpu):
    batch = make_batch(n=5, size=5)
    expected = engine.train(batch, FEW)
    gpu.launches.clear()
    gpu.free = 3_200_000
    computed = engine.train(batch, FEW)
    assert {blocks for blocks, _ in gpu.launches} == {2, 1}
    np.testing.assert_array_equal(computed.curves, expected.curves)
    np.testing.assert_array_equal(computed.weights, expected.weights)


@pytest.mark.parametrize("free", [1_000, 500_000])
def test_too_little_memory_for_one_network_is_a_memory_error(engine, gpu, free):
    gpu.free = free
    with pytest.raises(MemoryError, match="GPU"):
        engine.curves(make_batch(n=5, size=2), FEW)


def test_an_error_of_the_driver_is_told_by_name_and_its_memory_is_freed(engine, gpu):
    gpu.errors["cuCtxSynchronize"] = 700
    with pytest.raises(CudaError, match=r"CUDA_ERROR_ILLEGAL_ADDRESS \(700\) in cuCtxSynchronize"):
        engine.curves(make_batch(n=4, size=1), FEW)


@pytest.mark.parametrize("method", ["curves", "train"])
def test_stop_ends_a_call(engine, method):
    check_stops(lambda stop: getattr(engine, method)(make_batch(n=4, size=2), TrainingProtocol(100_000), stop))


def test_no_trainings_need_no_gpu(engine, gpu):
    trained = engine.train(make_batch(n=4, size=1).part(slice(0, 0)), FEW)
    assert (trained.curves.shape, trained.weights.shape, gpu.launches) == ((0, 5), (0, 61_326), [])


# the binary


def made(gpu, nvrtc):
    return cuda.make(lambda: Driver(gpu), lambda: Compiler(nvrtc))


def test_the_kernel_is_compiled_once_for_an_architecture_and_a_version_of_nvrtc(gpu, cache):
    nvrtc = FakeNvrtc()
    assert made(gpu, nvrtc).detail == "cells-1-sm_90"
    made(gpu, nvrtc)
    assert nvrtc.compiled == [["--gpu-architecture=sm_90", "--std=c++17", "-fmad=false"]]
    assert b"train_cells" in nvrtc.source
    assert gpu.binaries == [b"binary of --gpu-architecture=sm_90"] * 2
    gpu.attributes[75], gpu.attributes[76] = 8, 9
    assert made(gpu, nvrtc).detail == "cells-1-sm_86"
    other = FakeNvrtc(version=(13, 0))
    made(gpu, other)
    assert (len(nvrtc.compiled), len(other.compiled)) == (2, 1)
    assert len(list(cache.glob("*.cubin"))) == 3


def test_a_cache_folder_that_cannot_be_made_is_done_without(gpu, cache):
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    assert made(gpu, FakeNvrtc()).name == "cuda"


def test_a_gpu_that_nvrtc_does_not_know_is_named(gpu):
    gpu.attributes[75] = 7
    with pytest.raises(UserError, match=r"NVRTC 12\.9 cannot compile for compute capability 7\.0"):
        made(gpu, FakeNvrtc())


# the choice


class Wrong:
    """A kernel whose first curve is wrong by 0.001 nats more with each launch."""

    def __init__(self, kernel):
        self.kernel = kernel

    def cells_launch(self, blocks, threads, parameters):
        work = cuda.Work.from_address(parameters[0])
        self.kernel.cells_launch(blocks, threads, parameters)
        np.ctypeslib.as_array((ctypes.c_float * work.steps).from_address(work.curves))[:] += 1e-3


@pytest.fixture
def machine(gpu, monkeypatch):
    """A machine with this GPU and NVRTC, as torch and tdbench see it. Give it other ones to see what happens."""

    def machine(gpu=gpu, nvrtc=None):
        monkeypatch.setattr(engines, "cuda_available", lambda: True)
        monkeypatch.setattr("tdbench.engine.cuda_available", lambda: True)
        monkeypatch.setattr("tdbench.base.environment.hardware", lambda device: f"a fake {device}")
        monkeypatch.setattr(cuda, "_torchs_driver", lambda: Driver(gpu))
        monkeypatch.setattr(cuda, "load_compiler", lambda: Compiler(nvrtc or FakeNvrtc()))
        forget()

    def forget():
        for remembered in (cuda._made, engines._engine, engines._say_once):
            remembered.cache_clear()

    yield machine
    forget()


def states():
    return {record["part"]: record["state"] for record in installation()}


def test_auto_on_a_gpu_is_the_kernel_once_it_agrees_with_reference(machine, capsys):
    machine()
    assert (make_engine().name, make_engine().device) == ("cuda", "cuda")
    assert make_engine("cuda") is make_engine("cuda", "cuda") is make_engine("auto", "cuda")
    assert states()["engine cuda"] == "available (cells-1-sm_90)"
    assert states()["engine auto"] == "is cuda on cuda"
    assert capsys.readouterr().err == ""


def failures(kernel):
    broken = FakeCuda(kernel)
    broken.errors["cuCtxSynchronize"] = 700
    return {
        "it differs from reference": (FakeCuda(Wrong(kernel)), None, "differ from reference by 0.003 nats"),
        "it crashes": (broken, None, "CUDA_ERROR_ILLEGAL_ADDRESS"),
        "it does not compile": (FakeCuda(kernel), FakeNvrtc(error="error: no"), "cannot compile cells.cu: error: no"),
        "the GPU is full": (FakeCuda(kernel, memory=1000), None, "memory does not suffice"),
    }


@pytest.mark.parametrize("why", failures(None))
def test_a_kernel_that_fails_is_replaced_with_one_line_and_an_error_where_it_was_asked_for(
    machine, kernel, capsys, why
):
    gpu, nvrtc, reason = failures(kernel)[why]
    machine(gpu, nvrtc)
    assert (make_engine().name, make_engine("auto", "cuda").device) == ("batched", "cuda")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("engine batched is used on this GPU instead of cuda")
    assert reason in line
    with pytest.raises(UserError, match="engine cuda cannot be used here") as error:
        make_engine("cuda", "cuda")
    assert reason in str(error.value)
    assert reason in states()["engine cuda"]
    assert states()["engine auto"] == "is batched on cuda"


def test_the_kernel_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(engines, "cuda_available", lambda: False)
    with pytest.raises(UserError, match="engine cuda was asked for, but torch sees no CUDA device here"):
        make_engine("cuda")
    with pytest.raises(UserError, match="engine cuda runs on a GPU"):
        make_engine("cuda", "cpu")


def test_an_engine_that_was_stopped_trains_again(engine):
    stop, batch = threading.Event(), make_batch(n=4, size=1)
    expected = engine.curves(batch, FEW, stop)
    stop.set()
    with pytest.raises(Stopped):
        engine.curves(batch, FEW, stop)
    np.testing.assert_array_equal(engine.curves(batch, FEW), expected)
