"""From requests to taskness: an executor trains them, and `score` has the formulas. Each blind baseline trains once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdbench.base.rng import Stream, replicate_seeds
from tdbench.engine.networks import IMAGE_SHAPE
from tdbench.engine.protocol import TrainingProtocol, validation_size
from tdbench.space.executor import Curves, Executor, Request, done, results
from tdbench.space.image_set import ImageSet
from tdbench.space.score import BLIND_SEEDS, baseline, generalization_level, informed_baseline, taskness


class BlindCase(NamedTuple):
    """Everything besides the engine that a blind baseline depends on.

    Blank images are identical, so a split matters only through its numbers of positives and negatives.
    """

    n: int
    n_positives: int
    validation_positives: int
    steps: int
    lr: float

    def request(self) -> Request:
        """Training on blank images with 8 fixed seeds (definitions, section 4, Baseline)."""
        labels = (np.arange(self.n) < self.n_positives).astype(np.uint8)
        mask = np.ones(self.n, dtype=np.bool_)
        mask[: self.validation_positives] = False
        mask[self.n_positives : self.n_positives + validation_size(self.n) - self.validation_positives] = False
        blank = np.zeros((self.n, *IMAGE_SHAPE), dtype=np.float32)
        return Request(
            ImageSet(blank, self.n_positives, TrainingProtocol(self.steps, self.lr)),
            labels[None],
            replicate_seeds(Stream.BLIND, 0, 0, [0], BLIND_SEEDS),
            np.tile(mask, (BLIND_SEEDS, 1)),
        )


@dataclass(frozen=True)
class Evaluation:
    """Requests in training: the futures of their curves, and of the curves of the baselines that they need."""

    requests: tuple[Request, ...]
    curves: tuple[Future[Curves], ...]
    blind: dict[BlindCase, Future[Curves]]

    @property
    def futures(self) -> tuple[Future[Curves], ...]:
        return (*self.curves, *self.blind.values())

    @property
    def done(self) -> bool:
        return all(future.done() for future in self.futures)

    def taskness(self) -> list[NDArray[np.float64]]:
        """(n, k) taskness for each request, after all trainings. Raises the error of a training that failed."""
        blind = {case: _mean_level(future.result()) for case, future in self.blind.items()}
        return [_scored(r, curves.result(), blind) for r, curves in zip(self.requests, self.curves, strict=True)]


class Evaluator:
    """Gives the taskness of label vectors, which an executor trains.

    A blind baseline is a request like any other. It is trained with the first requests that need it, and remembered.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._blind: dict[BlindCase, Future[Curves]] = {}

    def submit(self, requests: Sequence[Request]) -> Evaluation:
        """Train requests, and in the same batch the baselines that they need and that are not known yet."""
        return self._submit(requests, requests)

    def evaluate(self, requests: Sequence[Request]) -> list[NDArray[np.float64]]:
        """(n, k) taskness for each request. Ctrl-C ends the trainings."""
        return self._wait(self.submit(requests))

    def score(self, requests: Sequence[Request], curves: Sequence[Curves]) -> list[NDArray[np.float64]]:
        """(n, k) taskness for each request whose (n, k, steps) curves are known already."""
        baselines = self._submit(requests, ()).blind
        return self._wait(Evaluation(tuple(requests), tuple(map(done, curves)), baselines))

    def curves(self, requests: Sequence[Request]) -> list[Curves]:
        """(n, k, steps) curves for each request. Ctrl-C ends the trainings."""
        return results(self.executor, self.executor.submit(requests))

    def blind_baseline(self, image_set: ImageSet, validation_positives: int) -> float:
        """The blind baseline, in nats, of splits of that set with this number of positives in validation."""
        case = _case(image_set, validation_positives)
        self._train([case], ())
        self._wait(Evaluation((), (), {case: self._blind[case]}))
        return _mean_level(self._blind[case].result())

    def baselines(self, request: Request) -> NDArray[np.float64]:
        """(n k,) baselines b, in nats, one for each training (definitions, section 4, Baseline)."""
        evaluation = self._submit([request], ())
        self._wait(evaluation)
        return _baselines(request, {case: _mean_level(f.result()) for case, f in evaluation.blind.items()})

    def _submit(self, requests: Sequence[Request], to_train: Sequence[Request]) -> Evaluation:
        cases = list(dict.fromkeys(case for request in requests for case in _cases(request)))
        curves = self._train(cases, to_train)
        return Evaluation(tuple(to_train), tuple(curves), {case: self._blind[case] for case in cases})

    def _train(self, cases: Sequence[BlindCase], requests: Sequence[Request]) -> list[Future[Curves]]:
        """Futures of the requests' curves; baselines that are not known are trained in the same batch."""
        new = [case for case in cases if case not in self._blind or _failed(self._blind[case])]
        futures = self.executor.submit([*(case.request() for case in new), *requests])
        self._blind.update(zip(new, futures, strict=False))
        return futures[len(new) :]

    def _wait(self, evaluation: Evaluation) -> list[NDArray[np.float64]]:
        results(self.executor, evaluation.futures)
        return evaluation.taskness()


def _case(image_set: ImageSet, validation_positives: int) -> BlindCase:
    protocol = image_set.protocol
    return BlindCase(image_set.n, image_set.n_positives, validation_positives, protocol.steps, protocol.lr)


def _cases(request: Request) -> list[BlindCase]:
    return [_case(request.image_set, count) for count in np.unique(request.validation_positives).tolist()]


def _baselines(request: Request, blind: dict[BlindCase, float]) -> NDArray[np.float64]:
    n, n_positives = request.image_set.n, request.image_set.n_positives
    counts, count_of = np.unique(request.validation_positives, return_inverse=True)
    of_counts = [
        baseline(
            informed_baseline(n, n_positives, validation_size(n), count),
            blind[_case(request.image_set, count)],
        )
        for count in counts.tolist()
    ]
    return np.array(of_counts)[count_of]


def _scored(request: Request, curves: Curves, blind: dict[BlindCase, float]) -> NDArray[np.float64]:
    if not request.trainings:
        return np.empty(request.seeds.shape)
    level = generalization_level(curves.reshape(request.trainings, -1))
    return taskness(level, _baselines(request, blind)).reshape(request.seeds.shape)


def _mean_level(curves: Curves) -> float:
    """The mean generalization level of (1, seeds, steps) curves."""
    return float(generalization_level(curves[0]).mean())


def _failed(future: Future[Curves]) -> bool:
    return future.cancelled() or (future.done() and future.exception() is not None)
