"""What the engines are compared with: the reference loop on every core, and ensembling with torch.func.

Both compute the same curves as `reference`, up to rounding. Only `tdbench perf` uses them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from tdbench.base.environment import available_cores
from tdbench.base.errors import UserError
from tdbench.engine import TrainingBatch
from tdbench.engine.precision import exact_float32
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import Network, ReferenceEngine, network_of, torch_threads

START_TIMEOUT = 120  # seconds in which processes must have imported torch and trained once


class TorchFunc:
    """PyTorch's own way of training an ensemble: `stack_module_state`, `functional_call`, `vmap` and `grad`.

    Adam works element by element, so `torch.optim.Adam` on the stacked parameters is Adam on each network. The fused
    version is the fastest that torch has.

    Args:
        chunk: networks in one vmap. On a CPU, more than 8 were not faster per network (measured on a busy machine).
        threads: CPU threads; by default those that torch is set to.
    """

    name = "torch-func"

    def __init__(self, device: str = "cpu", chunk: int | None = None, threads: int | None = None) -> None:
        self.device, self.threads = device, threads
        self.chunk = chunk or (8 if device == "cpu" else 256)

    def curves(self, batch: TrainingBatch, protocol: TrainingProtocol) -> NDArray[np.float32]:
        """Like `tdbench.engine.Engine.curves`, but for one image set only."""
        x = torch.tensor(batch.images[0], device=self.device)
        chunks = [np.arange(len(batch))[i : i + self.chunk] for i in range(0, len(batch), self.chunk)]
        with torch_threads(self.threads), exact_float32():
            return np.concatenate([self._train(x, batch, part, protocol) for part in chunks])

    def _train(
        self, x: torch.Tensor, batch: TrainingBatch, part: NDArray[np.intp], protocol: TrainingProtocol
    ) -> NDArray[np.float32]:
        networks = [network_of(weights, self.device) for weights in batch.initial_weights(part)]
        params = {name: p.detach() for name, p in stack_module_state(networks)[0].items()}
        y = torch.from_numpy(batch.labels[part].astype(np.int64)).to(self.device)
        train = torch.from_numpy(batch.train_mask[part]).to(self.device)
        with torch.device("meta"):
            skeleton = Network()

        def losses(
            params: Mapping[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, train: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            each = F.cross_entropy(functional_call(skeleton, dict(params), (x,)), y, reduction="none")
            zero = each.new_zeros(())
            training = torch.where(train, each, zero).sum() / train.sum()
            validation = torch.where(train, zero, each).sum() / (~train).sum()
            return training, validation

        gradients_and_validation = vmap(grad(losses, has_aux=True), in_dims=(0, None, 0, 0))
        optimizer = torch.optim.Adam(params.values(), lr=protocol.lr, fused=True)
        curve = []
        for _ in range(protocol.steps):
            gradients, validation = gradients_and_validation(params, x, y, train)
            curve.append(validation)
            for name, p in params.items():
                p.grad = gradients[name]
            optimizer.step()
        result: NDArray[np.float32] = torch.stack(curve, dim=1).cpu().numpy()
        return result


class ReferenceProcesses:
    """The reference loop in one process per core, one thread each, like a shell loop over the cores.

    Making the object starts the processes and lets each train once. Use it in a `with` block, which ends them.

    Raises:
        UserError: the processes do not start.
    """

    name = "reference-multiprocess"
    device = "cpu"

    def __init__(self, processes: int | None = None) -> None:
        self.processes = processes or available_cores()
        context = multiprocessing.get_context("spawn")
        ready = context.Barrier(self.processes + 1)
        self._pool = context.Pool(self.processes, _begin, (ready,))
        try:
            ready.wait(START_TIMEOUT)
        except threading.BrokenBarrierError:
            self._pool.terminate()
            raise UserError(
                f"{self.processes} processes did not start within {START_TIMEOUT} s for {self.name}"
            ) from None

    def curves(self, batch: TrainingBatch, protocol: TrainingProtocol) -> NDArray[np.float32]:
        """As `tdbench.engine.Engine.curves`; each process gets an equal share."""
        shares = [part for part in np.array_split(np.arange(len(batch)), self.processes) if len(part)]
        jobs = [(batch.part(part), protocol) for part in shares]
        return np.concatenate(self._pool.starmap(_curves, jobs, chunksize=1))

    def __enter__(self) -> ReferenceProcesses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.terminate()
        self._pool.join()


def _begin(ready: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and ends its processes
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    mask = np.array([[True, True, True, False]])
    labels = np.array([[0, 1, 0, 1]], dtype=np.uint8)
    images = np.ones((4, 3, 32, 32), dtype=np.float32)
    _curves(TrainingBatch.checked(images, labels, mask, np.zeros(1, dtype=np.uint64)), TrainingProtocol(steps=5))
    ready.wait(START_TIMEOUT)


def _curves(batch: TrainingBatch, protocol: TrainingProtocol) -> NDArray[np.float32]:
    return ReferenceEngine("cpu", threads=1).curves(batch, protocol)
