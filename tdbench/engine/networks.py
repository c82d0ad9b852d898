"""The network (definitions, section 3) in one place: its layers, its name, its initial weights and its outputs.

conv 5x5 (6) - ReLU - max-pool 2 - conv 5x5 (16) - ReLU - max-pool 2 - 120 - ReLU - 84 - ReLU - 2.
The weights of a network are one flat row of 61,326 float32 (245 KB): the layers of `LAYERS` in their order, each in
PyTorch's own shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import wrong_shape
from tdbench.base.rng import Stream, philox, split_key


class Layer(NamedTuple):
    """A parameter tensor of one network, in PyTorch's own shape.

    `uses` is how often each of its values is multiplied for one image: once at each position of a convolution's
    output, once in a dense layer; the values of a bias are not multiplied.
    """

    name: str
    shape: tuple[int, ...]
    fan_in: int
    uses: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, forward."""
        return self.size * self.uses


@dataclass(frozen=True)
class Architecture:
    """A network: the name it has in identities, the shape of its images, and its parameters in flat order."""

    name: str
    image_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]

    @property
    def n_parameters(self) -> int:
        return sum(layer.size for layer in self.layers)

    @property
    def forward_macs(self) -> int:
        """Multiply-adds of the forward pass for one image."""
        return sum(layer.macs for layer in self.layers)


NETWORK = Architecture(
    "conv6-conv16-120-84-2",
    image_shape=(3, 32, 32),
    layers=(
        Layer("conv1.weight", (6, 3, 5, 5), 75, uses=28 * 28),
        Layer("conv1.bias", (6,), 75, uses=0),
        Layer("conv2.weight", (16, 6, 5, 5), 150, uses=10 * 10),
        Layer("conv2.bias", (16,), 150, uses=0),
        Layer("fc1.weight", (120, 400), 400, uses=1),
        Layer("fc1.bias", (120,), 400, uses=0),
        Layer("fc2.weight", (84, 120), 120, uses=1),
        Layer("fc2.bias", (84,), 120, uses=0),
        Layer("fc3.weight", (2, 84), 84, uses=1),
        Layer("fc3.bias", (2,), 84, uses=0),
    ),
)
IMAGE_SHAPE = NETWORK.image_shape
LAYERS = NETWORK.layers
N_PARAMETERS = NETWORK.n_parameters  # 61,326
LAST_LAYER_SIZE = sum(layer.size for layer in LAYERS[-2:])  # 170, the end of the flat weights

# PyTorch's default for convolutions and linear layers: uniform within +-1/sqrt(fan_in), biases too.
INIT_BOUNDS = np.concatenate([np.full(layer.size, 1 / math.sqrt(layer.fan_in), dtype=np.float32) for layer in LAYERS])

LOGITS_CHUNK = 256  # images: below 50 MB with their activations (29 MB measured, on a CPU)


def initial_weights(seeds: NDArray[np.uint64]) -> NDArray[np.float32]:
    """(B, 61326) initial weights for (B,) seeds, layers in the order of `LAYERS`, each in PyTorch's layout.

    Weight i is word i % 4 of Philox block i // 4 of the stream WEIGHTS, its upper 24 bits mapped to [-1, 1)
    (exact in float32) and multiplied by the layer's bound.
    """
    k0, k1 = (k[:, None] for k in split_key(seeds))
    blocks = np.arange(-(-N_PARAMETERS // 4), dtype=np.int64)[None, :]
    zero = np.zeros((1, 1), dtype=np.int64)
    parts = philox(blocks, zero, zero + int(Stream.WEIGHTS), zero, k0, k1)
    integers = np.stack(parts, axis=-1).reshape(len(k0), 4 * blocks.size)[:, :N_PARAMETERS] >> 8
    unit = integers.astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    weights: NDArray[np.float32] = unit * INIT_BOUNDS
    return weights


def with_new_last_layer(weights: NDArray[np.float32], seeds: NDArray[np.uint64]) -> NDArray[np.float32]:
    """(B, 61326) copies of (B, 61326) weights whose last layer, fc3, is drawn anew.

    The last layer of row i, weights and bias, is that of `initial_weights` for seed i of (B,) seeds. All else is kept.

    Raises:
        ValueError: shapes do not fit.
    """
    weights = _checked(weights)
    seeds = np.asarray(seeds, dtype=np.uint64)
    if seeds.shape != weights.shape[:1]:
        raise ValueError(wrong_shape("seeds", (len(weights),), seeds.shape))
    result = initial_weights(seeds)
    result[:, :-LAST_LAYER_SIZE] = weights[:, :-LAST_LAYER_SIZE]
    return result


def scaled_like(weights: NDArray[np.float32], like: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, 61326) copies of (B, 61326) weights, each tensor scaled to the Euclidean norm that it has in `like`.

    That is done for weights and biases of all layers but the last, fc3, which is kept. A tensor of zeros stays zero.

    Args:
        weights: weights that were drawn, for instance by `initial_weights`.
        like: (B, 61326) weights whose norms are taken, row by row.

    Raises:
        ValueError: shapes do not fit.
    """
    weights, like = _checked(weights), _checked(like, "like")
    if like.shape != weights.shape:
        raise ValueError(wrong_shape("like", weights.shape, like.shape))
    result = weights.copy()
    begin = 0
    for layer in LAYERS[:-2]:
        part = slice(begin, begin + layer.size)
        own, target = (np.linalg.norm(w[:, part].astype(np.float64), axis=1, keepdims=True) for w in (weights, like))
        result[:, part] *= np.divide(target, own, out=np.zeros_like(own), where=own != 0).astype(np.float32)
        begin += layer.size
    return result


def logits(weights: NDArray[np.float32], images: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, M, 2) logits of B networks for each of M images; a network predicts the class of the larger one.

    It takes one network and 256 images at a time, so that memory beside the result stays below 50 MB for any B and M.

    Args:
        weights: (B, 61326) weights in the flat layout of `LAYERS`, as `Engine.train` gives them.
        images: (M, 3, 32, 32) images, standardized like those that the networks were trained on.

    Raises:
        ValueError: shapes do not fit.
    """
    import torch  # a searcher's process imports this module and must start without torch

    from tdbench.engine.reference import network_of

    weights, images = _checked(weights), np.asarray(images, dtype=np.float32)
    if images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE:
        raise ValueError(wrong_shape("images", ("M", *IMAGE_SHAPE), images.shape))
    result = np.empty((len(weights), len(images), 2), dtype=np.float32)
    with torch.no_grad():
        for row, out in zip(weights, result, strict=True):
            network = network_of(row)
            for i in range(0, len(images), LOGITS_CHUNK):
                part = slice(i, i + LOGITS_CHUNK)
                out[part] = network(torch.tensor(images[part])).numpy()
    return result


def _checked(weights: NDArray[np.float32], name: str = "weights") -> NDArray[np.float32]:
    weights = np.asarray(weights, dtype=np.float32)
    if weights.ndim != 2 or weights.shape[1] != N_PARAMETERS:
        raise ValueError(wrong_shape(name, ("B", N_PARAMETERS), weights.shape))
    return weights
