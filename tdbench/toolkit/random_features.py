"""Features of randomly initialized residual networks for CIFAR: 3 channels that stand in for an image's pixels."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch.nn import functional as F

from tdbench.base.rng import Stream, words
from tdbench.engine.networks import IMAGE_SHAPE
from tdbench.engine.reference import torch_threads

FILTERS = (16, 32, 64)  # of the three stages, whose maps are 32x32, 16x16 and 8x8
CHANNELS, SIDE = 3, 8  # of the features


def features(images: NDArray[np.float32], depth: int, seed: int, network: int) -> NDArray[np.float64]:
    """(N, 3, 8, 8) features of (N, 3, 32, 32) images by one random network of 6n + 2 layers, n = `depth`.

    The network is that of He et al. 2016, "Deep residual learning for image recognition", section 4.2: a 3x3
    convolution to 16 filters, then three stages of n blocks with 16, 32 and 64 filters, the second and third of which
    begin with stride 2; shortcuts are identities, padded with zero channels (option A). Batch normalization is in
    training mode, over all N images. Weights are He et al.'s (2015, equation 10): normal with variance 2 / fan-in.
    In place of the pooling and the classes, a random 1x1 convolution takes the last stage's 64 channels to 3, so that
    no filter is preferred to another.

    Args:
        seed, network: which network.

    Computed on one torch thread, so that the user's number of threads does not change the last bits.
    """
    weights = _Weights(seed, network)
    with torch_threads(1), torch.inference_mode():
        x = torch.tensor(images)
        x = F.relu(_normalized(weights.convolve(x, FILTERS[0])))
        for stage, filters in enumerate(FILTERS):
            for block in range(depth):
                x = _block(weights, x, filters, stride=2 if stage and not block else 1)
        return weights.convolve(x, CHANNELS, size=1).double().numpy()


def resized(maps: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """(N, 3, 32, 32) images, bilinear, of (N, 3, 8, 8) features averaged to `side` x `side`.

    Averages and the 1x1 convolution that made the features commute: these are the features of a network whose last
    map was averaged.
    """
    with torch_threads(1), torch.inference_mode():
        x = F.avg_pool2d(torch.tensor(maps), SIDE // side)
        return F.interpolate(x, size=IMAGE_SHAPE[1:], mode="bilinear", align_corners=False).numpy()


class _Weights:
    """The convolutions of one network, each drawn when it is used."""

    def __init__(self, seed: int, network: int) -> None:
        self._key, self._lane = (np.int64(seed), np.int64(network)), 0

    def convolve(self, x: torch.Tensor, filters: int, size: int = 3, stride: int = 1) -> torch.Tensor:
        fan_in = x.shape[1] * size * size
        uniform = (words(filters * fan_in, Stream.FEATURES, self._key, self._lane) + 0.5) / 2**32
        self._lane += 1
        normal = (ndtri(uniform) * math.sqrt(2 / fan_in)).reshape(filters, x.shape[1], size, size)
        return F.conv2d(x, torch.tensor(normal, dtype=x.dtype), stride=stride, padding=size // 2)


def _block(weights: _Weights, x: torch.Tensor, filters: int, stride: int) -> torch.Tensor:
    y = F.relu(_normalized(weights.convolve(x, filters, stride=stride)))
    y = _normalized(weights.convolve(y, filters))
    shortcut = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, filters - x.shape[1]))
    return F.relu(y + shortcut)


def _normalized(x: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(x, None, None, training=True)
