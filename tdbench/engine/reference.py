"""The plain PyTorch loop, one network after another. It defines the right result, and speeds are compared with it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from tdbench.engine.batch import TrainingBatch
from tdbench.engine.engine import TrainsOnce, check_stop
from tdbench.engine.networks import LAYERS, initial_weights
from tdbench.engine.precision import exact_float32
from tdbench.engine.protocol import TrainingProtocol


class Network(nn.Module):
    """The network (definitions, section 3), as a researcher would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        out: torch.Tensor = self.fc3(x)
        return out


def network(seed: int, device: str = "cpu") -> Network:
    """The network with the initial weights of that seed."""
    return network_of(initial_weights(np.array([seed], dtype=np.uint64))[0], device)


def network_of(weights: NDArray[np.float32], device: str = "cpu") -> Network:
    """The network with a copy of these (61326,) weights."""
    with torch.device("meta"):  # nothing is drawn from torch's global generator
        net = Network().to(torch.float32)  # also if the user has set another default type
    net = net.to_empty(device=device)
    parameters = dict(net.named_parameters())
    flat = torch.tensor(weights).split([layer.size for layer in LAYERS])
    with torch.no_grad():
        for layer, values in zip(LAYERS, flat, strict=True):
            parameters[layer.name].copy_(values.reshape(layer.shape))
    return net


class ReferenceEngine(TrainsOnce):
    """Trains networks one at a time with `torch.optim.Adam`."""

    name = "reference"
    best_batch = 1

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        self.device = device
        self.threads = threads
        self.detail = ""

    def _run(
        self,
        batch: TrainingBatch,
        protocol: TrainingProtocol,
        stop: threading.Event | None,
        weights: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        curves = np.empty((len(batch), protocol.steps), dtype=np.float32)
        with training_torch(self.threads):
            sets = torch.tensor(batch.images, device=self.device)
            for b in range(len(batch)):
                x = sets[int(batch.image_set[b])]
                y = torch.from_numpy(batch.labels[b].astype(np.int64)).to(self.device)
                train = torch.tensor(batch.train_mask[b], device=self.device)
                net = network_of(batch.initial_weights(slice(b, b + 1))[0], self.device)
                for convolution in (net.conv1, net.conv2):
                    convolution.requires_grad_(not batch.frozen)
                curves[b] = _train(net, x, y, train, protocol, stop)
                if weights is not None:
                    weights[b] = parameters_to_vector(net.parameters()).detach().cpu().numpy()
        return curves


def _train(
    net: Network,
    x: torch.Tensor,
    y: torch.Tensor,
    train: torch.Tensor,
    protocol: TrainingProtocol,
    stop: threading.Event | None,
) -> NDArray[np.float32]:
    optimizer = torch.optim.Adam(net.parameters(), lr=protocol.lr)
    curve = []
    for _ in range(protocol.steps):
        check_stop(stop)
        losses = F.cross_entropy(net(x), y, reduction="none")
        curve.append(losses[~train].mean().detach())  # NaN without a validation side
        optimizer.zero_grad()
        losses[train].mean().backward()
        optimizer.step()
    result: NDArray[np.float32] = torch.stack(curve).cpu().numpy()
    return result


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Within the block, torch's errors for lack of memory become MemoryError."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError, for devices, is a subclass
        first, *_ = str(error).splitlines() or [""]
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in first:
            raise MemoryError(first) from error
        raise


@contextlib.contextmanager
def training_torch(threads: int | None) -> Iterator[None]:
    """Within the block, torch trains exactly, on so many threads, whatever the user has set; that is restored after it.

    Raises:
        MemoryError: there is not enough memory for what the block does.
    """
    with (
        memory_errors(),
        torch_threads(threads),
        exact_float32(),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


class torch_threads:
    """Within the block, torch uses that many threads; the user's setting is restored after it. None changes nothing."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)
