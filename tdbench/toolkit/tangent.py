"""The tangent kernel of the network on an image set: which images the untrained network treats alike.

Searchers and reductions that look at the images start from it. It needs no label vector and no training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from tdbench.base.errors import UserError, wrong_shape
from tdbench.base.rng import MAX_SEED, Stream, replicate_seeds
from tdbench.engine.networks import IMAGE_SHAPE
from tdbench.engine.reference import Network, network, torch_threads

CHUNK = 50  # images at a time: 24 MB of patches at most


def tangent_kernel(
    images: NDArray[np.floating], initializations: int = 8, seed: int = 0, threads: int | None = None
) -> NDArray[np.float64]:
    """(N, N) empirical neural tangent kernel of one logit difference, on (N, 3, 32, 32) standardized images.

    Entry (i, j) is the dot product of the gradients of logit 1 - logit 0 at images i and j with respect to all 61,326
    parameters at initialization (Jacot, Gabriel & Hongler, *Neural tangent kernel*, NeurIPS 2018, section 4), the mean
    over `initializations` networks of definitions, section 3. Symmetric, positive semi-definite up to rounding, and
    scaled to a mean diagonal of 1. Computed in float64, layer by layer, without ever holding the N x 61,326 Jacobian:
    N = 500 with 8 initializations took 6 s and 0.6 GB with one thread of a busy machine.

    Args:
        seed: which initializations; those of one seed are the first of the same sequence, whatever their number.
        threads: torch threads for the time of the call; the user's setting by default. On one machine the result is
            the same to the bit for the same number of threads.

    Raises:
        UserError: fewer than one initialization, or a seed that is no 32-bit number.
        ValueError: the images have another shape.
    """
    return _mean_kernel(_layer_kernels, images, initializations, seed, threads)


def adam_kernel(
    images: NDArray[np.floating], initializations: int = 8, seed: int = 0, threads: int | None = None
) -> NDArray[np.float64]:
    """(N, N) tangent kernel as Adam sees it: each parameter's share divided by the root mean square of its gradients.

    Adam divides each parameter's step by the root of its mean squared gradient. At initialization, with residuals of
    the images that are independent and equally large, that is in proportion to the root of the mean over the images of
    the squared gradient of the logit difference. Otherwise as `tangent_kernel`, with the same initializations.

    N = 50 with 8 initializations took 1 s with one thread. Each layer's gradients are held at once, in float64: 0.2 GB
    at N = 500.

    Raises:
        UserError, ValueError: as `tangent_kernel`.
    """
    return _mean_kernel(_adam_layer_kernels, images, initializations, seed, threads)


def _mean_kernel(
    layer_kernels: Callable[[Network, torch.Tensor], Iterator[torch.Tensor]],
    images: NDArray[np.floating],
    initializations: int,
    seed: int,
    threads: int | None,
) -> NDArray[np.float64]:
    if initializations < 1:
        raise UserError(f"initializations must be at least 1, got {initializations}")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed must be from 0 to {MAX_SEED}, got {seed}")
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE or not len(images):
        raise ValueError(wrong_shape("an array of images", ("N", *IMAGE_SHAPE), images.shape))
    with torch_threads(threads), torch.inference_mode(False), torch.enable_grad():
        x = torch.tensor(images, dtype=torch.float64)
        kernel = torch.zeros((len(x), len(x)), dtype=torch.float64)
        for network_seed in replicate_seeds(Stream.TANGENT, seed, 0, [0], initializations)[0]:
            for layer_kernel in layer_kernels(network(int(network_seed)).double(), x):
                kernel += layer_kernel
    result: NDArray[np.float64] = ((kernel + kernel.T) / 2).numpy()
    scaled: NDArray[np.float64] = result / result.diagonal().mean()
    return scaled


def _layer_kernels(net: Network, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """The (N, N) kernel of each layer's weights and biases; their sum is the network's."""
    for inputs, signals, biases in _layer_gradients(net, x):
        yield (inputs @ inputs.T) * (signals @ signals.T) + biases @ biases.T


def _adam_layer_kernels(net: Network, x: torch.Tensor) -> Iterator[torch.Tensor]:
    for inputs, signals, biases in _layer_gradients(net, x):
        weights = (inputs[:, :, None] * signals[:, None, :]).flatten(1)
        for gradients in (weights, biases):  # (N, parameters)
            size = (gradients**2).mean(dim=0).sqrt()
            yield (gradients / torch.where(size > 0, size, 1)) @ gradients.T


def _layer_gradients(net: Network, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For each layer the parts of `_gradient_parts`, of all images."""
    parts = [_gradient_parts(net, chunk) for chunk in x.split(CHUNK)]
    for layer_parts in zip(*parts, strict=True):
        inputs, signals, biases = (torch.cat(columns) for columns in zip(*layer_parts, strict=True))
        yield inputs, signals, biases


def _gradient_parts(net: Network, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For each layer (a, b, c), the rows of which make an image's gradient: weights a x b (outer product), biases c."""
    seen: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer, inputs[0].detach(), output)))
        for layer in net.children()
    ]
    logits = net(x)
    for hook in hooks:
        hook.remove()
    # The network treats each image alone, so the gradient of the sum holds each image's own signal.
    signals = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), [output for _, _, output in seen])
    return [_parts(layer, inputs, signal) for (layer, inputs, _), signal in zip(seen, signals, strict=True)]


def _parts(
    layer: nn.Module, inputs: torch.Tensor, signal: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if not isinstance(layer, nn.Conv2d):
        return inputs, signal, signal
    size = layer.weight.shape[-2:]
    patches = F.unfold(inputs, (int(size[0]), int(size[1])))  # (n, weights of a filter, places)
    signal = signal.flatten(2)  # (n, filters, places)
    weights = (signal @ patches.transpose(1, 2)).flatten(1)  # a filter's gradient sums over places
    return weights, torch.ones((len(weights), 1), dtype=weights.dtype), signal.sum(dim=2)
