"""Frozen trainings: both convolutions keep their initial weights, and all other layers train as `reference` says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_cuda import FakeCuda, compile_kernel
from test_engines import Batch
from test_train import check_promises, make_batch, starting_from

from tdbench.engine import cuda, make_engine, native
from tdbench.engine.batched import BatchedEngine
from tdbench.engine.cuda import CudaEngine
from tdbench.engine.cuda_driver import Driver
from tdbench.engine.native import NativeEngine
from tdbench.engine.networks import initial_weights
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import ReferenceEngine

TWELVE = TrainingProtocol(steps=12)
CONVOLUTIONS, DENSE = slice(0, 2872), slice(2872, None)
MAKE = {
    "reference": lambda: make_engine("reference", "cpu", 1),
    "batched": lambda: make_engine("batched", "cpu", 1),
    "batched-together": lambda: BatchedEngine("cpu", 1, chunk=4, together=True),
    **{f"native-{isa}": lambda isa=isa: NativeEngine(1, isa) for isa in native.available_isas()},
    "native-team": lambda: NativeEngine(3),
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return compile_kernel(tmp_path_factory.mktemp("cells"))


@pytest.fixture(params=[*MAKE, "cuda"])
def engine(request):
    if request.param == "cuda":
        return CudaEngine(Driver(FakeCuda(request.getfixturevalue("kernel"))), b"binary", "sm_90")
    if request.param.startswith("native") and native.unavailable() is not None:
        pytest.skip(str(native.unavailable()))
    return MAKE[request.param]()


def test_curves_and_weights_agree_with_reference(engine):
    batch = replace(Batch(n=20, size=4, sets=2).checked(), frozen=True)
    computed, expected = engine.train(batch, TWELVE), ReferenceEngine(threads=1).train(batch, TWELVE)
    np.testing.assert_allclose(computed.curves, expected.curves, rtol=0, atol=3e-5)
    assert np.mean(np.abs(computed.weights - expected.weights) < 1e-5) > 0.99


def test_convolutions_stay_as_they_were_and_dense_layers_train(engine):
    batch = make_batch(n=9, size=2)
    start = engine.train(batch, TWELVE).weights
    frozen = engine.train(replace(starting_from(batch, start), frozen=True), TWELVE)
    np.testing.assert_array_equal(frozen.weights[:, CONVOLUTIONS], start[:, CONVOLUTIONS])
    assert np.mean(np.abs(frozen.weights - start)[:, DENSE] > 1e-3) > 0.25


def test_a_frozen_training_begins_like_any_other_and_goes_on_differently(engine):
    batch = Batch(n=9, size=2).checked()
    frozen, full = engine.curves(replace(batch, frozen=True), TWELVE), engine.curves(batch, TWELVE)
    np.testing.assert_array_equal(frozen[:, 0], full[:, 0])
    assert (frozen[:, -1] != full[:, -1]).all()


@pytest.mark.parametrize("n", [7, 100])
def test_a_batch_a_part_of_it_and_weights_given_or_drawn_have_the_same_bits(engine, n):
    batch = replace(make_batch(n, size=3 if engine.name == "cuda" else 5, sets=2), frozen=True)
    check_promises(engine, batch)


def test_threads_that_share_a_training_or_train_four_at_a_time_change_no_bit():
    if native.unavailable() is not None:
        pytest.skip(str(native.unavailable()))
    batch = replace(make_batch(n=110, size=9, sets=2), frozen=True)
    alone = NativeEngine(1).train(batch, TWELVE)
    for threads in (2, 5):
        shared = NativeEngine(threads).train(batch, TWELVE)
        np.testing.assert_array_equal(shared.curves, alone.curves)
        np.testing.assert_array_equal(shared.weights, alone.weights)


def test_how_steps_are_divided_into_launches_changes_no_bit(kernel, monkeypatch):
    gpu = FakeCuda(kernel)
    engine, batch = CudaEngine(Driver(gpu), b"binary", "sm_90"), replace(make_batch(n=5, size=2), frozen=True)
    expected = engine.train(batch, TWELVE)
    monkeypatch.setattr(cuda, "LAUNCH_SECONDS", 0)
    gpu.launches.clear()
    computed = engine.train(batch, TWELVE)
    assert len(gpu.launches) == 12
    np.testing.assert_array_equal(computed.curves, expected.curves)
    np.testing.assert_array_equal(computed.weights, expected.weights)


def test_it_is_the_batch_that_is_frozen_also_in_its_parts():
    batch = replace(make_batch(n=4, size=3), frozen=True)
    assert batch.part(slice(1, 2)).frozen
    weights = initial_weights(batch.seeds)
    trained = make_engine("batched", "cpu", 1).train(batch.part(slice(1, 2)), TWELVE).weights
    np.testing.assert_array_equal(trained[0, CONVOLUTIONS], weights[1, CONVOLUTIONS])
