"""Weights into an engine and out of it, the networks they make, and how a call is ended early."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tdbench.engine import Stopped, TrainingBatch, make_engine, native
from tdbench.engine.networks import LOGITS_CHUNK, NETWORK, initial_weights, logits
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import Network, network_of

FEW = TrainingProtocol(steps=5)
ENDLESS = TrainingProtocol(steps=100_000)
NATIVE = pytest.param("native", marks=pytest.mark.skipif(native.unavailable() is not None, reason="it is not built"))
every_engine = pytest.mark.parametrize("name", ["reference", "batched", NATIVE])


def make_batch(n, size, seed=0, sets=1):
    """Random trainings; one in three has no validation side."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((sets, n, 3, 32, 32)).astype(np.float32)
    train = (rng.random((size, n)) < 0.8) | (rng.random((size, 1)) < 0.3)
    train[:, 0] = True
    labels = (rng.random((size, n)) < 0.3).astype(np.uint8)
    seeds = rng.integers(0, 2**64, size, dtype=np.uint64)
    return TrainingBatch.checked(images, labels, train, seeds, rng.integers(0, sets, size))


def starting_from(batch, weights):
    arrays = (batch.images, batch.labels, batch.train_mask, None, batch.image_set)
    return TrainingBatch.checked(*arrays, weights=weights, frozen=batch.frozen)


def check_promises(engine, batch):
    """Curves with and without weights, weights given or drawn, alone or among others: all the same bits."""
    trained = engine.train(batch, FEW)
    np.testing.assert_array_equal(trained.curves, engine.curves(batch, FEW))
    given = engine.train(starting_from(batch, initial_weights(batch.seeds)), FEW)
    np.testing.assert_array_equal(given.curves, trained.curves)
    np.testing.assert_array_equal(given.weights, trained.weights)
    last = engine.train(batch.part(slice(len(batch) - 1, None)), FEW)
    np.testing.assert_array_equal(last.curves[0], trained.curves[-1])
    np.testing.assert_array_equal(last.weights[0], trained.weights[-1])


@every_engine
@settings(max_examples=5, deadline=None)
@given(n=st.integers(1, 30), size=st.integers(1, 4), seed=st.integers(0, 2**32), sets=st.integers(1, 2))
def test_curves_and_weights_have_the_same_bits_however_asked_for(name, n, size, seed, sets):
    check_promises(make_engine(name, "cpu", 1), make_batch(n, size, seed, sets))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("isa", native.available_isas())
def test_native_keeps_these_promises_where_networks_share_a_thread_or_a_thread_team(isa, threads):
    check_promises(native.NativeEngine(threads, isa), make_batch(n=100, size=4, sets=2))


@every_engine
def test_training_on_from_weights_begins_where_they_were_after_that_many_steps(name):
    engine, batch = make_engine(name, "cpu", 1), make_batch(n=12, size=3)
    after = engine.train(batch, TrainingProtocol(steps=7)).weights
    whole = engine.curves(batch, TrainingProtocol(steps=8))
    np.testing.assert_array_equal(engine.curves(starting_from(batch, after), FEW)[:, 0], whole[:, 7])


@every_engine
def test_training_on_is_adam_from_those_weights(name):
    batch = make_batch(n=10, size=2)
    start = make_engine("batched", "cpu", 1).train(batch, FEW).weights
    trained = make_engine(name, "cpu", 1).train(starting_from(batch, start), TrainingProtocol(steps=6, lr=0.002))
    x = torch.tensor(batch.images[0])
    for b in range(len(batch)):
        net, y, train = network_of(start[b]), torch.tensor(batch.labels[b]).long(), torch.tensor(batch.train_mask[b])
        optimizer = torch.optim.Adam(net.parameters(), lr=0.002)
        for _ in range(6):
            optimizer.zero_grad()
            F.cross_entropy(net(x[train]), y[train]).backward()
            optimizer.step()
        expected = torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()
        off = np.abs(trained.weights[b] - expected)  # Adam doubles what rounds to the other side of a gradient of 0
        assert np.mean(off < 1e-4) > 0.99
        assert np.mean(np.abs(start[b] - expected) > 1e-3) > 0.25  # and they did move


@every_engine
def test_without_a_validation_side_the_curve_is_nan_and_the_training_as_good(name):
    engine, batch = make_engine(name, "cpu", 1), make_batch(n=8, size=2)
    images = np.concatenate([batch.images, np.zeros_like(batch.images[:, :1])], axis=1)  # one more, for validation
    labels = np.pad(batch.labels, [(0, 0), (0, 1)])
    everything = np.ones((2, 8), dtype=bool)
    alone = engine.train(TrainingBatch.checked(batch.images, batch.labels, everything, batch.seeds), FEW)
    beside = engine.train(TrainingBatch.checked(images, labels, np.pad(everything, [(0, 0), (0, 1)]), batch.seeds), FEW)
    assert np.isnan(alone.curves).all()
    assert np.isfinite(beside.curves).all()
    np.testing.assert_allclose(alone.weights, beside.weights, rtol=0, atol=2e-3)
    assert np.mean(np.abs(alone.weights - beside.weights) < 1e-5) > 0.99


@every_engine
def test_no_trainings_give_no_weights(name):
    trained = make_engine(name, "cpu", 1).train(make_batch(n=4, size=1).part(slice(0, 0)), FEW)
    assert (trained.curves.shape, trained.weights.shape) == ((0, 5), (0, 61_326))


@every_engine
def test_weights_that_are_given_are_left_alone(name):
    batch = make_batch(n=5, size=2)
    weights = initial_weights(batch.seeds)
    weights.flags.writeable = False
    trained = make_engine(name, "cpu", 1).train(starting_from(batch, weights), FEW)
    np.testing.assert_array_equal(weights, initial_weights(batch.seeds))
    assert trained.weights.dtype == trained.curves.dtype == np.float32


# stop


def check_stops(call):
    """`call(stop)` ends soon after stop is set."""
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    start = time.monotonic()
    with pytest.raises(Stopped):
        call(stop)
    assert 0.2 < time.monotonic() - start < 10
    timer.join()


@every_engine
@pytest.mark.parametrize("method", ["curves", "train"])
def test_stop_ends_a_call(name, method):
    engine, batch = make_engine(name, "cpu", 1), make_batch(n=10, size=4)
    check_stops(lambda stop: getattr(engine, method)(batch, ENDLESS, stop))


@every_engine
def test_stop_ends_a_call_from_another_thread(name):
    engine, batch = make_engine(name, "cpu", 1), make_batch(n=10, size=4)
    with ThreadPoolExecutor(1) as pool:
        check_stops(lambda stop: pool.submit(engine.curves, batch, ENDLESS, stop).result())


@every_engine
def test_an_engine_that_was_stopped_trains_again(name):
    engine, batch, stop = make_engine(name, "cpu", 1), make_batch(n=6, size=2), threading.Event()
    expected = engine.curves(batch, FEW, stop)
    stop.set()
    with pytest.raises(Stopped):
        engine.curves(batch, ENDLESS, stop)
    np.testing.assert_array_equal(engine.curves(batch, FEW), expected)


# networks


def test_logits_are_what_the_reference_network_computes():
    weights = initial_weights(np.arange(3, dtype=np.uint64))
    images = np.random.default_rng(0).standard_normal((LOGITS_CHUNK + 5, 3, 32, 32)).astype(np.float32)
    computed = logits(weights, images)
    assert (computed.shape, computed.dtype) == ((3, len(images), 2), np.float32)
    for row, own in zip(weights, computed, strict=True):
        with torch.no_grad():
            np.testing.assert_allclose(own, network_of(row)(torch.tensor(images)).numpy(), rtol=0, atol=1e-5)


def test_logits_of_a_network_do_not_depend_on_the_others():
    weights = initial_weights(np.arange(4, dtype=np.uint64))
    images = np.random.default_rng(0).standard_normal((9, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(logits(weights[2:3], images)[0], logits(weights, images)[2])
    assert logits(weights[:0], images).shape == (0, 9, 2)
    assert logits(weights, images[:0]).shape == (4, 0, 2)


@every_engine
def test_logits_of_trained_networks_give_the_next_validation_loss(name):
    engine, batch = make_engine(name, "cpu", 1), make_batch(n=12, size=3, seed=1)
    trained = engine.train(batch, FEW)
    following = engine.curves(batch, TrainingProtocol(steps=6))[:, 5]
    losses = -F.log_softmax(torch.tensor(logits(trained.weights, batch.images[0])), dim=2).numpy()
    own = np.take_along_axis(losses, batch.labels[:, :, None].astype(int), axis=2)[:, :, 0]
    expected = [
        loss[~train].mean() if not train.all() else np.nan for loss, train in zip(own, batch.train_mask, strict=True)
    ]
    np.testing.assert_allclose(following, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("weights", "images", "message"),
    [
        (np.zeros(61_326), np.zeros((2, 3, 32, 32)), "expected weights with shape"),
        (np.zeros((1, 61_325)), np.zeros((2, 3, 32, 32)), "expected weights with shape"),
        (np.zeros((1, 61_326)), np.zeros((3, 32, 32)), "expected images with shape"),
        (np.zeros((1, 61_326)), np.zeros((2, 3, 28, 28)), "expected images with shape"),
    ],
)
def test_logits_of_wrong_shapes_are_errors_that_say_what_was_expected(weights, images, message):
    with pytest.raises(ValueError, match=message):
        logits(weights, images)


def test_the_description_of_the_network_is_the_network_that_is_trained():
    """Multiply-adds counted in a real forward pass: output places times the weights that meet at each."""
    net, macs = Network(), []
    for module in net.children():
        module.register_forward_hook(lambda m, _, out: macs.append(m.weight.numel() * out.numel() // len(m.weight)))
    net(torch.zeros(1, *NETWORK.image_shape))
    assert [layer.macs for layer in NETWORK.layers if layer.uses] == macs
    assert NETWORK.forward_macs == 651_048
    widths = [(module._get_name()[:4].lower(), len(module.weight)) for module in net.children()]
    assert NETWORK.name == "-".join(f"conv{width}" if kind == "conv" else str(width) for kind, width in widths)
