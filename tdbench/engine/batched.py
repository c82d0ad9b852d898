"""All B networks as one set of tensors. CPU and CUDA share one code path; only the forward pass differs.

On a CPU the forward pass takes one network after another. On CUDA all networks go through it together: the first
convolution is one ordinary convolution with 6 B filters, because all networks see the same images; the second is a
grouped convolution; the dense layers are batched products. There a whole step is captured once as a graph and
replayed, and nothing is read back before the last step.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tdbench.engine.batch import TrainingBatch
from tdbench.engine.engine import Trained, check_stop
from tdbench.engine.networks import LAYERS, N_PARAMETERS
from tdbench.engine.precision import exact_float32
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import memory_errors, torch_threads

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # torch.optim.Adam's defaults

# Floats in memory per network and image at the peak of a step: activations of both convolutions before pooling, their
# gradients, the pooled activations and buffers of the libraries; rounded up from the layer sizes.
FLOATS_PER_IMAGE = 24_000
CPU_CHUNK = 16  # more networks at once only push activations out of the caches
CUDA_CHUNK = 128


class BatchedEngine:
    """Trains chunks of networks together.

    Batch-invariance: on the CPU each network has a forward pass of its own, and sums run over the images of one
    network only. On CUDA, where libraries choose kernels by shape, every chunk is padded to the same size. The chunk
    shrinks if memory does not suffice, and `detail` records it.
    """

    name = "batched"

    def __init__(self, device: str = "cpu", threads: int | None = None, chunk: int | None = None) -> None:
        self.device = device
        self.threads = threads
        self.chunk = chunk or (CPU_CHUNK if device == "cpu" else CUDA_CHUNK)
        self.best_batch = self.chunk if device == "cpu" else 4 * self.chunk

    @property
    def detail(self) -> str:
        return "" if self.device == "cpu" else f"chunk={self.chunk}"

    def curves(
        self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        """See `tdbench.engine.Engine.curves`."""
        return self._run(batch, protocol, stop, None)

    def train(self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None = None) -> Trained:
        """See `tdbench.engine.Engine.train`."""
        weights = np.empty((len(batch), N_PARAMETERS), dtype=np.float32)
        return Trained(self._run(batch, protocol, stop, weights), weights)

    def _run(
        self,
        batch: TrainingBatch,
        protocol: TrainingProtocol,
        stop: threading.Event | None,
        weights: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        curves = np.empty((len(batch), protocol.steps), dtype=np.float32)
        with (
            memory_errors(),
            torch_threads(self.threads),
            exact_float32(),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            for s in np.unique(batch.image_set):
                x = torch.tensor(batch.images[s], device=self.device)
                members = np.flatnonzero(batch.image_set == s)
                done = 0
                while done < len(members):
                    part = members[done : done + self._fitting_chunk(len(x))]
                    try:
                        curves[part], last = self._train(x, batch, part, protocol, stop, weights is not None)
                        if weights is not None:
                            weights[part] = last
                    except torch.OutOfMemoryError:
                        if self.chunk == 1:
                            raise
                        self.chunk = math.ceil(self.chunk / 2)
                        torch.cuda.empty_cache()
                        continue
                    done += len(part)
        return curves

    def _fitting_chunk(self, n_images: int) -> int:
        """The chunk size, or less if free memory cannot hold it."""
        per_network = 4 * (FLOATS_PER_IMAGE * n_images + 6 * N_PARAMETERS)
        budget = 2**31 if self.device == "cpu" else int(0.8 * torch.cuda.mem_get_info()[0])
        fits = max(1, budget // per_network)
        if self.device == "cpu":
            return min(self.chunk, fits)
        while self.chunk > fits:  # permanently, so that all later chunks have the same shape
            self.chunk = math.ceil(self.chunk / 2)
        return self.chunk

    def _train(
        self,
        x: torch.Tensor,
        batch: TrainingBatch,
        part: NDArray[np.intp],
        protocol: TrainingProtocol,
        stop: threading.Event | None,
        keep_weights: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        padded = part if self.device == "cpu" else np.resize(part, self.chunk)
        params = _parameters(batch.initial_weights(padded), self.device)
        y = torch.from_numpy(batch.labels[padded].astype(np.int64)).to(self.device)
        train = torch.from_numpy(batch.train_mask[padded]).to(self.device)
        n_train, n_val = train.sum(1), (~train).sum(1)
        first = [torch.zeros_like(p) for p in params]
        second = [torch.zeros_like(p) for p in params]
        steps = np.arange(1, protocol.steps + 1)
        step_size = torch.tensor(-protocol.lr / (1 - BETA1**steps), dtype=torch.float32, device=self.device)
        root_correction = torch.tensor(np.sqrt(1 - BETA2**steps), dtype=torch.float32, device=self.device)
        curve = torch.empty(len(padded), protocol.steps, dtype=torch.float32, device=self.device)
        t = torch.zeros(1, dtype=torch.int64, device=self.device)

        def step() -> None:
            logits = _forward(x, params)
            losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").reshape(y.shape)
            zero = losses.new_zeros(())
            with torch.no_grad():
                curve.index_copy_(1, t, (torch.where(train, zero, losses).sum(1) / n_val)[:, None])
            grads = torch.autograd.grad((torch.where(train, losses, zero).sum(1) / n_train).sum(), params)
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
                torch._foreach_add_(params, denominators)
                t.add_(1)

        run_step = step if self.device == "cpu" else _captured(step, [*params, *first, *second, t])
        for _ in range(protocol.steps):
            check_stop(stop)
            run_step()
        flat = torch.cat([p.detach()[: len(part)].flatten(1) for p in params], dim=1) if keep_weights else None
        return curve[: len(part)].cpu().numpy(), None if flat is None else flat.cpu().numpy()


def _parameters(weights: NDArray[np.float32], device: str) -> list[torch.Tensor]:
    """Flat (B, 61326) weights as one trainable tensor a layer, B networks each."""
    flat = torch.from_numpy(weights).to(device).split([layer.size for layer in LAYERS], dim=1)
    return [p.reshape(len(p), *layer.shape).clone().requires_grad_() for p, layer in zip(flat, LAYERS, strict=True)]


def _forward(x: torch.Tensor, params: list[torch.Tensor]) -> torch.Tensor:
    """(B, N, 2) logits of B networks on (N, 3, 32, 32) images."""
    if (
        not x.is_cuda
    ):  # MKL and oneDNN split sums by the number of networks, so a network's roundings would depend on it
        return torch.stack([_forward_one(x, *weights) for weights in zip(*params, strict=True)])
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = params
    count, n = len(w1), len(x)
    h = F.relu(F.max_pool2d(F.conv2d(x, w1.flatten(0, 1), b1.flatten()), 2))
    h = F.relu(F.max_pool2d(F.conv2d(h, w2.flatten(0, 1), b2.flatten(), groups=count), 2))
    h = h.reshape(n, count, -1).transpose(0, 1)
    h = F.relu(torch.baddbmm(b3[:, None], h, w3.transpose(1, 2)))
    h = F.relu(torch.baddbmm(b4[:, None], h, w4.transpose(1, 2)))
    return torch.baddbmm(b5[:, None], h, w5.transpose(1, 2))


def _forward_one(x: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = params
    h = F.relu(F.max_pool2d(F.conv2d(x, w1, b1), 2))
    h = F.relu(F.max_pool2d(F.conv2d(h, w2, b2), 2)).flatten(1)
    return F.linear(F.relu(F.linear(F.relu(F.linear(h, w3, b3)), w4, b4)), w5, b5)


def _captured(step: Callable[[], None], state: list[torch.Tensor]) -> Callable[[], None]:
    """The step as one CUDA graph. The warm-up changes the state, which is restored before the capture."""
    before = [s.detach().clone() for s in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.no_grad():
        for s, value in zip(state, before, strict=True):
            s.copy_(value)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
