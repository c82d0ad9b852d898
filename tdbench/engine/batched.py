"""All B networks as one set of tensors, in plain PyTorch: the engine that runs wherever torch does.

On a CPU the forward pass takes one network after another. On CUDA all networks go through it together: the first
convolution is one ordinary convolution with 6 B filters, because all networks see the same images; the second is a
grouped convolution; the dense layers are batched products. Nothing is read back before the last step.
"""

from __future__ import annotations

import os
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tdbench.base.errors import UserError
from tdbench.base.rng import Stream, philox, split_key
from tdbench.engine.batch import TrainingBatch
from tdbench.engine.engine import TrainsOnce, check_stop
from tdbench.engine.networks import INIT_BOUNDS, LAYERS, N_PARAMETERS
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import training_torch

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # torch.optim.Adam's defaults

N_CONVOLUTIONS = 4  # the first layers of LAYERS: weights and biases of both convolutions

CPU_CHUNK = 16  # more networks at once only push activations out of the caches
CPU_BYTES = 2**31  # for a chunk; fewer networks at once change no bit on a CPU
CUDA_CHUNK = 128
CHUNK_VARIABLE = "TDBENCH_BATCHED_CHUNK"  # networks in a chunk on CUDA, where 128 do not fit into memory

# Floats in memory per network and image at the peak of a step: activations of both convolutions before pooling, their
# gradients, the pooled activations and buffers of the libraries; rounded up from the layer sizes.
FLOATS_PER_IMAGE = 24_000


class BatchedEngine(TrainsOnce):
    """Trains chunks of networks together.

    Batch-invariance: on the CPU each network has a forward pass of its own, and sums run over the images of one
    network only. On CUDA, where libraries choose kernels by shape, every chunk is padded to the same size. `detail`
    records that size, which never changes by itself.

    Args:
        chunk: networks in a chunk; by default 16 on a CPU, and on CUDA 128 or what the variable TDBENCH_BATCHED_CHUNK
            says.
        together: whether all networks go through a layer together, as on CUDA.
    """

    name = "batched"

    def __init__(
        self,
        device: str = "cpu",
        threads: int | None = None,
        chunk: int | None = None,
        together: bool | None = None,
    ) -> None:
        self.device = device
        self.threads = threads
        self.together = device != "cpu" if together is None else together
        self.chunk = chunk or (_cuda_chunk() if self.together else CPU_CHUNK)
        self.best_batch = 4 * self.chunk if self.together else self.chunk

    @property
    def detail(self) -> str:
        return f"chunk={self.chunk}" if self.together else ""

    def _run(
        self,
        batch: TrainingBatch,
        protocol: TrainingProtocol,
        stop: threading.Event | None,
        weights: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        curves = np.empty((len(batch), protocol.steps), dtype=np.float32)
        with training_torch(self.threads):
            for s in np.unique(batch.image_set):
                x = torch.tensor(batch.images[s], device=self.device)
                members = np.flatnonzero(batch.image_set == s)
                chunk = self._fitting_chunk(len(x))
                for i in range(0, len(members), chunk):
                    part = members[i : i + chunk]
                    curves[part], last = self._chunk(x, batch, part, protocol, stop, weights is not None)
                    if weights is not None:
                        weights[part] = last
        return curves

    def _fitting_chunk(self, n_images: int) -> int:
        """The chunk size. On a CPU it is less where many images would need too much memory, which changes no bit."""
        if self.together:
            return self.chunk
        per_network = 4 * (FLOATS_PER_IMAGE * n_images + 6 * N_PARAMETERS)
        return min(self.chunk, max(1, CPU_BYTES // per_network))

    def _chunk(
        self,
        x: torch.Tensor,
        batch: TrainingBatch,
        part: NDArray[np.intp],
        protocol: TrainingProtocol,
        stop: threading.Event | None,
        keep_weights: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Curves and weights of one chunk, padded with copies of its own networks where they are trained together."""
        padded = np.resize(part, self.chunk) if self.together else part
        try:
            curves, weights = self._train(x, batch.part(padded), protocol, stop, keep_weights)
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"{self.chunk} networks of {len(x)} images do not fit into the GPU's memory; set {CHUNK_VARIABLE} to "
                "fewer. Results with another chunk differ in their last bits, and a run goes on with its own only"
            ) from error
        return curves[: len(part)], None if weights is None else weights[: len(part)]

    def _train(
        self,
        x: torch.Tensor,
        batch: TrainingBatch,
        protocol: TrainingProtocol,
        stop: threading.Event | None,
        keep_weights: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        if self.together and batch.seeds is not None:
            params = _parameters(drawn_weights(batch.seeds, self.device))
        else:
            params = _parameters(torch.from_numpy(batch.initial_weights(slice(None))).to(self.device))
        convolutions, dense = params[:N_CONVOLUTIONS], params[N_CONVOLUTIONS:]
        trained = dense if batch.frozen else params
        convolve, classify = (
            (_convolve_together, _classify_together) if self.together else (_convolve_each, _classify_each)
        )
        with torch.no_grad():
            kept = convolve(x, convolutions) if batch.frozen else None
        y = torch.from_numpy(batch.labels.astype(np.int64)).to(self.device)
        train = torch.from_numpy(batch.train_mask).to(self.device)
        n_train, n_val = train.sum(1), (~train).sum(1)
        first = [torch.zeros_like(p) for p in trained]
        second = [torch.zeros_like(p) for p in trained]
        steps = np.arange(1, protocol.steps + 1)
        step_size = torch.tensor(-protocol.lr / (1 - BETA1**steps), dtype=torch.float32, device=self.device)
        root_correction = torch.tensor(np.sqrt(1 - BETA2**steps), dtype=torch.float32, device=self.device)
        curve = torch.empty(len(batch), protocol.steps, dtype=torch.float32, device=self.device)
        t = torch.zeros(1, dtype=torch.int64, device=self.device)

        def step() -> None:
            logits = classify(convolve(x, convolutions) if kept is None else kept, dense)
            losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").reshape(y.shape)
            zero = losses.new_zeros(())
            with torch.no_grad():
                curve.index_copy_(1, t, (torch.where(train, zero, losses).sum(1) / n_val)[:, None])
            grads = torch.autograd.grad((torch.where(train, losses, zero).sum(1) / n_train).sum(), trained)
            with torch.no_grad():
                torch._foreach_lerp_(first, grads, 1 - BETA1)
                torch._foreach_mul_(second, BETA2)
                torch._foreach_addcmul_(second, grads, grads, 1 - BETA2)
                denominators = torch._foreach_sqrt(second)
                torch._foreach_div_(denominators, root_correction[t].squeeze(0))
                torch._foreach_add_(denominators, EPS)
                torch._foreach_reciprocal_(denominators)
                torch._foreach_mul_(denominators, first)
                torch._foreach_mul_(denominators, step_size[t].squeeze(0))
                torch._foreach_add_(trained, denominators)
                t.add_(1)

        for _ in range(protocol.steps):
            check_stop(stop)
            step()
        flat = torch.cat([p.detach().flatten(1) for p in params], dim=1) if keep_weights else None
        return curve.cpu().numpy(), None if flat is None else flat.cpu().numpy()


def drawn_weights(seeds: NDArray[np.uint64], device: str) -> torch.Tensor:
    """`networks.initial_weights`, computed on the device: the same, bit for bit."""
    k0, k1 = (torch.from_numpy(k)[:, None].to(device) for k in split_key(seeds))
    blocks = torch.arange(-(-N_PARAMETERS // 4), device=device)[None, :]
    zero = torch.zeros_like(blocks)
    words = torch.stack(philox(blocks, zero, zero + int(Stream.WEIGHTS), zero, k0, k1), dim=-1)
    unit = (words.flatten(1)[:, :N_PARAMETERS] >> 8).to(torch.float32) * 2.0**-23 - 1
    return unit * torch.from_numpy(INIT_BOUNDS).to(device)


def _cuda_chunk() -> int:
    given = os.environ.get(CHUNK_VARIABLE)
    if not given:
        return CUDA_CHUNK
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"{CHUNK_VARIABLE} must be a number of networks, at least 1, got {given!r}")
    return int(given)


def _parameters(weights: torch.Tensor) -> list[torch.Tensor]:
    """Flat (B, 61326) weights as one trainable tensor a layer, B networks each."""
    flat = weights.split([layer.size for layer in LAYERS], dim=1)
    return [p.reshape(len(p), *layer.shape).clone().requires_grad_() for p, layer in zip(flat, LAYERS, strict=True)]


def _convolve_each(x: torch.Tensor, params: list[torch.Tensor]) -> torch.Tensor:
    """(B, N, 400) outputs of the convolutions of B networks on (N, 3, 32, 32) images, network by network.

    On a CPU, MKL and oneDNN split sums by the number of networks, so together a network's roundings would depend on it.
    """
    return torch.stack([_convolve_one(x, *weights) for weights in zip(*params, strict=True)])


def _classify_each(features: torch.Tensor, params: list[torch.Tensor]) -> torch.Tensor:
    """(B, N, 2) logits of B networks for (B, N, 400) outputs of their convolutions, network by network."""
    return torch.stack([_classify_one(h, *weights) for h, *weights in zip(features, *params, strict=True)])


def _convolve_one(x: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
    w1, b1, w2, b2 = params
    h = F.relu(F.max_pool2d(F.conv2d(x, w1, b1), 2))
    return F.relu(F.max_pool2d(F.conv2d(h, w2, b2), 2)).flatten(1)


def _classify_one(h: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
    w3, b3, w4, b4, w5, b5 = params
    return F.linear(F.relu(F.linear(F.relu(F.linear(h, w3, b3)), w4, b4)), w5, b5)


def _convolve_together(x: torch.Tensor, params: list[torch.Tensor]) -> torch.Tensor:
    """As `_convolve_each`, all networks in each layer at once."""
    w1, b1, w2, b2 = params
    count, n = len(w1), len(x)
    h = F.relu(F.max_pool2d(F.conv2d(x, w1.flatten(0, 1), b1.flatten()), 2))
    h = F.relu(F.max_pool2d(F.conv2d(h, w2.flatten(0, 1), b2.flatten(), groups=count), 2))
    return h.reshape(n, count, -1).transpose(0, 1)


def _classify_together(h: torch.Tensor, params: list[torch.Tensor]) -> torch.Tensor:
    """As `_classify_each`, all networks in each layer at once."""
    w3, b3, w4, b4, w5, b5 = params
    h = F.relu(torch.baddbmm(b3[:, None], h, w3.transpose(1, 2)))
    h = F.relu(torch.baddbmm(b4[:, None], h, w4.transpose(1, 2)))
    return torch.baddbmm(b5[:, None], h, w5.transpose(1, 2))
