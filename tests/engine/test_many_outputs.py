"""One network for many labelings at once: what a plain loop makes of it; for one labeling, an ordinary training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_engines import Batch
from test_train import check_stops
from torch import nn
from torch.nn import functional as F

from tdbench.engine import make_engine
from tdbench.engine.many_outputs import initial_heads, train_many
from tdbench.engine.networks import initial_weights, with_new_last_layer
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import ReferenceEngine, network

ENGINE = make_engine("batched", "cpu", 1)
TWELVE = TrainingProtocol(steps=12)


class Many:
    """B networks for K labelings of N digits."""

    def __init__(self, k, n=15, size=2):
        batch = Batch(n=n, size=max(k, size))
        self.images, self.labels = batch.images[0], batch.labels[:k]
        self.train, self.seeds = batch.train[:size], batch.seeds[:size]

    def trained(self, protocol=TWELVE, members=slice(None), engine=ENGINE, stop=None):
        return train_many(self.images, self.labels, self.train[members], self.seeds[members], protocol, engine, stop)


def plain_loop(images, labels, train, seed, protocol):
    """(K, steps) curves and the shared layers; each labeling has a linear layer of its own."""
    net, x, train = network(int(seed)), torch.tensor(images), torch.tensor(train)
    net.fc3 = nn.Identity()
    heads = []
    for head in torch.tensor(initial_heads(np.array([seed]), len(labels))[0]):
        heads.append(nn.Linear(84, 2))
        heads[-1].load_state_dict({"weight": head[:168].reshape(2, 84), "bias": head[168:]})
    optimizer = torch.optim.Adam([p for module in (net, *heads) for p in module.parameters()], lr=protocol.lr)
    curves = []
    for _ in range(protocol.steps):
        units = net(x)
        losses = [
            F.cross_entropy(head(units), torch.tensor(y).long(), reduction="none")
            for head, y in zip(heads, labels, strict=True)
        ]
        curves.append([float(loss[~train].detach().mean()) for loss in losses])
        optimizer.zero_grad()
        (sum(loss[train].mean() for loss in losses) / len(labels)).backward()
        optimizer.step()
    flat = torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()
    return np.array(curves).T, flat, [torch.cat([h.weight.flatten(), h.bias]).detach().numpy() for h in heads]


@pytest.mark.parametrize("k", [2, 3])
def test_it_is_a_plain_loop_with_pytorchs_adam(k):
    many = Many(k)
    trained = many.trained()
    for b, seed in enumerate(many.seeds):
        curves, weights, heads = plain_loop(many.images, many.labels, many.train[b], seed, TWELVE)
        np.testing.assert_allclose(trained.curves[b], curves, rtol=0, atol=2e-5)
        assert np.mean(np.abs(trained.weights[b, :-170] - weights) < 1e-5) > 0.99
        assert np.mean(np.abs(trained.heads[b] - heads) < 1e-5) > 0.99


@pytest.mark.parametrize("name", ["reference", "native"])
def test_one_labeling_is_an_ordinary_training(name):
    batch = Batch(n=15, size=3).checked()
    expected = ReferenceEngine(threads=1).train(batch, TWELVE)
    for b in range(3):
        one = slice(b, b + 1)
        engine = make_engine(name, "cpu", 1)
        trained = train_many(
            batch.images[0], batch.labels[one], batch.train_mask[one], batch.seeds[one], TWELVE, engine
        )
        np.testing.assert_allclose(trained.curves[0, 0], expected.curves[b], rtol=0, atol=2e-5)
        assert np.mean(np.abs(trained.weights[0, :-170] - expected.weights[b, :-170]) < 1e-5) > 0.99
        assert np.mean(np.abs(trained.heads[0, 0] - expected.weights[b, -170:]) < 1e-5) > 0.99


def test_among_others_or_alone_a_network_has_the_same_bits():
    many = Many(k=3, size=3)
    together, alone = many.trained(), many.trained(members=slice(2, 3))
    for a, b in ((together.curves, alone.curves), (together.weights, alone.weights), (together.heads, alone.heads)):
        np.testing.assert_array_equal(a[2], b[0])


def test_its_weights_begin_an_ordinary_training_with_a_new_last_layer():
    many = Many(k=4)
    weights = many.trained().weights
    assert (weights.shape, weights.dtype) == ((2, 61_326), np.float32)
    assert not weights[:, -170:].any()
    start = with_new_last_layer(weights, many.seeds)
    np.testing.assert_array_equal(start[:, -170:], initial_weights(many.seeds)[:, -170:])


def test_last_layers_are_drawn_apart_and_the_first_is_that_of_ordinary_networks():
    seeds = np.arange(3, dtype=np.uint64)
    heads = initial_heads(seeds, 5)
    np.testing.assert_array_equal(heads[:, 0], initial_weights(seeds)[:, -170:])
    np.testing.assert_array_equal(initial_heads(seeds[1:], 2), heads[1:, :2])
    assert len(np.unique(heads)) > 0.99 * heads.size
    assert 0.1 < np.abs(heads).max() <= 84**-0.5


def test_without_a_validation_side_curves_are_nan_and_networks_train():
    many = Many(k=2)
    many.train[:] = True
    trained = many.trained()
    assert np.isnan(trained.curves).all()
    assert np.isfinite(trained.weights).all()


def test_stop_ends_a_call():
    check_stops(lambda stop: Many(k=2).trained(TrainingProtocol(steps=100_000), stop=stop))


def test_no_networks_give_no_weights():
    trained = Many(k=2).trained(members=slice(0, 0))
    assert (trained.curves.shape, trained.weights.shape, trained.heads.shape) == ((0, 2, 12), (0, 61_326), (0, 2, 170))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"images": m.images[None]}, "expected images with shape"),
        (lambda m: {"labels": m.labels[:, 1:]}, "expected labels with shape"),
        (lambda m: {"labels": m.labels[0]}, "expected labels with shape"),
        (lambda m: {"labels": m.labels[:0]}, "at least one labeling"),
        (lambda m: {"labels": m.labels + 1}, "labels must be 0 or 1"),
        (lambda m: {"train_mask": m.train[:, 1:]}, "expected train_mask with shape"),
        (lambda m: {"train_mask": m.train & False}, "training side"),
    ],
)
def test_bad_arguments_are_errors_that_say_what_was_expected(change, message):
    many = Many(k=2)
    arguments = {"images": many.images, "labels": many.labels, "train_mask": many.train, "seeds": many.seeds}
    with pytest.raises(ValueError, match=message):
        train_many(**(arguments | change(many)), protocol=TWELVE, engine=ENGINE)
