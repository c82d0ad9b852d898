"""One network trained on K labelings of the same images at once, with a last layer for each, in plain PyTorch.

It is the network of `networks` up to its 84 units, so that an engine can train on from its weights. Unlike an engine it
has no faster form: the further last layers cost little beside the convolutions.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from tdbench.base.errors import wrong_shape
from tdbench.base.rng import Stream, split_key, words
from tdbench.engine.batch import TrainingBatch
from tdbench.engine.engine import Engine, check_stop
from tdbench.engine.networks import IMAGE_SHAPE, INIT_BOUNDS, LAST_LAYER_SIZE, N_PARAMETERS, initial_weights
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import Network, network_of, training_torch

UNITS = 84  # of fc2, the inputs of each last layer


@dataclass(frozen=True, eq=False)
class TrainedMany:
    """B networks that were each trained on K labelings.

    Attributes:
        curves: (B, K, steps) float32 validation losses of each labeling before each update, in nats; NaN without a
            validation side.
        weights: (B, 61326) float32 weights after the last update, in the flat layout of `networks.LAYERS`, with zeros
            for the last layer: whoever trains on draws one, for instance by `networks.with_new_last_layer`.
        heads: (B, K, 170) float32 last layers after the last update: for each labeling 2 x 84 weights, then 2 biases.
    """

    curves: NDArray[np.float32]
    weights: NDArray[np.float32]
    heads: NDArray[np.float32]


def train_many(
    images: NDArray[np.float32],
    labels: NDArray[np.uint8],
    train_mask: NDArray[np.bool_],
    seeds: NDArray[np.uint64],
    protocol: TrainingProtocol,
    engine: Engine,
    stop: threading.Event | None = None,
) -> TrainedMany:
    """Train B networks, one after another, each on all K labelings.

    The loss is the mean over the labelings of the mean cross-entropy of the training side. With K = 1 this is an
    ordinary training, up to rounding. What a network becomes does not depend on the others.

    Args:
        images: (N, 3, 32, 32) standardized images.
        labels: (K, N) classes 0 or 1, K at least 1.
        train_mask: (B, N) True on the training side, which all labelings share.
        seeds: (B,) seeds of the initial weights, as `initial_heads` and `networks.initial_weights` draw them.
        protocol: steps and learning rate.
        engine: where torch trains: on its device and, if it has a number of CPU threads, on as many.
        stop: another thread may set it to end the call after the current step.

    Raises:
        ValueError: shapes do not fit, a label is not 0 or 1, or a training side is empty.
        Stopped: `stop` was set.
        MemoryError: a network does not fit. It needs about as much as one of the engine `batched`: 0.1 MB an image.
    """
    labels = _checked_labels(images, labels)
    batch = TrainingBatch.checked(images, np.zeros((len(seeds), labels.shape[1]), dtype=np.uint8), train_mask, seeds)
    trained = TrainedMany(
        np.empty((len(batch), len(labels), protocol.steps), dtype=np.float32),
        np.zeros((len(batch), N_PARAMETERS), dtype=np.float32),
        initial_heads(seeds, len(labels)),
    )
    with training_torch(getattr(engine, "threads", None)):
        x = torch.tensor(batch.images[0], device=engine.device)
        y = torch.from_numpy(labels.T.astype(np.int64)).to(engine.device)
        for b, heads in enumerate(trained.heads):
            train = torch.tensor(batch.train_mask[b], device=engine.device)
            net = _network(batch.initial_weights(slice(b, b + 1))[0], heads, engine.device)
            trained.curves[b] = _train(net, x, y, train, protocol, stop)
            with torch.no_grad():
                heads[:, : 2 * UNITS] = net.fc3.weight.reshape(len(heads), -1).cpu().numpy()
                heads[:, 2 * UNITS :] = net.fc3.bias.reshape(len(heads), -1).cpu().numpy()
                shared = [p for layer in (net.conv1, net.conv2, net.fc1, net.fc2) for p in layer.parameters()]
                trained.weights[b, :-LAST_LAYER_SIZE] = parameters_to_vector(shared).cpu().numpy()
    return trained


def initial_heads(seeds: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """(B, count, 170) initial last layers for (B,) seeds, each 2 x 84 weights, then 2 biases.

    The first is that of `networks.initial_weights`. The others are drawn like it, from lanes of their own.
    """
    seeds = np.asarray(seeds, dtype=np.uint64)
    heads = np.empty((len(seeds), count, LAST_LAYER_SIZE), dtype=np.float32)
    heads[:, 0] = initial_weights(seeds)[:, -LAST_LAYER_SIZE:]
    for k in range(1, count):
        integers = words(LAST_LAYER_SIZE, Stream.WEIGHTS, split_key(seeds), lane=k) >> 8
        unit = integers.astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
        heads[:, k] = unit * INIT_BOUNDS[-LAST_LAYER_SIZE:]
    return heads


def _checked_labels(images: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4:
        raise ValueError(wrong_shape("images", ("N", *IMAGE_SHAPE), images.shape))
    if labels.ndim != 2 or labels.shape[1] != len(images):
        raise ValueError(wrong_shape("labels", ("K", len(images)), labels.shape))
    if len(labels) == 0:
        raise ValueError("expected at least one labeling, got none")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    return labels.astype(np.uint8, copy=False)


def _network(weights: NDArray[np.float32], heads: NDArray[np.float32], device: str) -> Network:
    """The network with these weights up to the 84 units, then outputs 2k and 2k + 1 for the k-th of the last layers."""
    net = network_of(weights, device)
    net.fc3 = nn.Linear(UNITS, 2 * len(heads), device="meta").to(torch.float32).to_empty(device=device)
    with torch.no_grad():
        net.fc3.weight.copy_(torch.tensor(heads[:, : 2 * UNITS]).reshape(-1, UNITS))
        net.fc3.bias.copy_(torch.tensor(heads[:, 2 * UNITS :]).flatten())
    return net


def _train(
    net: Network,
    x: torch.Tensor,
    y: torch.Tensor,
    train: torch.Tensor,
    protocol: TrainingProtocol,
    stop: threading.Event | None,
) -> NDArray[np.float32]:
    """(K, steps) curves for (N, K) labels."""
    optimizer = torch.optim.Adam(net.parameters(), lr=protocol.lr)
    curves = []
    for _ in range(protocol.steps):
        check_stop(stop)
        losses = F.cross_entropy(net(x).reshape(-1, 2), y.flatten(), reduction="none").reshape(y.shape)
        curves.append(losses[~train].mean(dim=0).detach())  # NaN without a validation side
        optimizer.zero_grad()
        losses[train].mean().backward()
        optimizer.step()
    result: NDArray[np.float32] = torch.stack(curves, dim=1).cpu().numpy()
    return result
