"""The network (definitions, section 3) as every engine sees it: layer shapes, flat layout, initial weights.

conv 5x5 (6) - ReLU - max-pool 2 - conv 5x5 (16) - ReLU - max-pool 2 - 120 - ReLU - 84 - ReLU - 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdbench.base.rng import Stream, philox, split_key

IMAGE_SHAPE = (3, 32, 32)


class Layer(NamedTuple):
    """A parameter tensor of one network, in PyTorch's own shape."""

    name: str
    shape: tuple[int, ...]
    fan_in: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


LAYERS = (
    Layer("conv1.weight", (6, 3, 5, 5), 75),
    Layer("conv1.bias", (6,), 75),
    Layer("conv2.weight", (16, 6, 5, 5), 150),
    Layer("conv2.bias", (16,), 150),
    Layer("fc1.weight", (120, 400), 400),
    Layer("fc1.bias", (120,), 400),
    Layer("fc2.weight", (84, 120), 120),
    Layer("fc2.bias", (84,), 120),
    Layer("fc3.weight", (2, 84), 84),
    Layer("fc3.bias", (2,), 84),
)
N_PARAMETERS = sum(layer.size for layer in LAYERS)  # 61,326

# PyTorch's default for convolutions and linear layers: uniform within +-1/sqrt(fan_in), biases too.
INIT_BOUNDS = np.concatenate([np.full(layer.size, 1 / math.sqrt(layer.fan_in), dtype=np.float32) for layer in LAYERS])


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
