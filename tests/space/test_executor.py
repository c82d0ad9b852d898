"""The seam between who needs curves and the engines: futures by position, and an end when it is asked for."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest
from helpers import evaluate
from numpy.typing import NDArray

from tdbench import TaskSpace
from tdbench.engine import TrainingBatch, make_engine
from tdbench.engine.engine import Stopped
from tdbench.engine.networks import initial_weights
from tdbench.engine.protocol import TrainingProtocol
from tdbench.space.evaluate import Evaluator
from tdbench.space.executor import LocalExecutor, Request, results, train, train_weights

ENGINE = make_engine("batched", "cpu")


class Counted:
    """An engine that keeps how many trainings each call had."""

    name, device, best_batch, detail = ENGINE.name, ENGINE.device, ENGINE.best_batch, ENGINE.detail

    def __init__(self) -> None:
        self.calls: list[int] = []

    def curves(
        self, batch: TrainingBatch, protocol: TrainingProtocol, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        self.calls.append(len(batch))
        return ENGINE.curves(batch, protocol, stop)

    train = ENGINE.train


def request(n: int = 10, labelings: int = 2, replicates: int = 2, seed: int = 0, **settings: object) -> Request:
    space = TaskSpace("digits", n=n, seed=seed, steps=6, **settings)
    return Request(space, space.random_labelings(labelings), space.confirm_seeds(labelings, replicates))


def test_each_request_gets_its_own_curves_whatever_its_size_and_space() -> None:
    requests = [request(labelings=3), request(20), request(labelings=0), request(seed=1, replicates=1)]
    futures = LocalExecutor(ENGINE).submit(requests)
    for future, one in zip(futures, requests, strict=True):
        assert future.result().shape == (*one.seeds.shape, 6)
        np.testing.assert_array_equal(future.result(), train([one], ENGINE)[0])


def test_requests_with_weights_and_frozen_ones_train_beside_others_as_they_do_alone() -> None:
    one = request()
    weights = initial_weights(np.arange(4, dtype=np.uint64))
    requests = [one, replace(one, weights=weights), replace(one, frozen=True), replace(one, weights=weights[::-1])]
    engine = Counted()
    drawn, given, frozen, turned = train(requests, engine)
    assert engine.calls == [4, 8, 4]
    for curves, alone in zip((drawn, given, frozen, turned), requests, strict=True):
        np.testing.assert_array_equal(curves, train([alone], ENGINE)[0])
    assert not (drawn == given).any()
    np.testing.assert_array_equal(frozen[:, :, 0], drawn[:, :, 0])
    assert not np.array_equal(frozen, drawn)


def test_the_weights_that_seeds_draw_give_the_curves_of_these_seeds() -> None:
    one = request()
    given = replace(one, weights=initial_weights(one.seeds.ravel()))
    np.testing.assert_array_equal(train([given], ENGINE)[0], train([one], ENGINE)[0])


def test_all_images_may_train_and_their_weights_begin_the_next_training() -> None:
    one = request()
    everything = replace(one, fixed_mask=np.ones((4, 10), dtype=np.bool_))
    first = train_weights(everything, ENGINE)
    assert np.isnan(first.curves).all()
    second = train_weights(replace(one, weights=first.weights, frozen=True), ENGINE)
    assert np.isfinite(second.curves).all()
    np.testing.assert_array_equal(second.weights[:, :2872], first.weights[:, :2872])
    assert not (second.weights[:, 2872:] == first.weights[:, 2872:]).all()


def test_an_error_of_the_engine_reaches_every_future_of_its_batch() -> None:
    bad = request()
    bad = Request(bad.image_set, bad.labels, bad.seeds, np.zeros((4, 10), dtype=np.bool_))
    futures = LocalExecutor(ENGINE).submit([request(), bad])
    for future in futures:
        with pytest.raises(ValueError, match="train"):
            future.result()


def test_cancelling_ends_what_trains_and_what_waits_and_the_executor_goes_on() -> None:
    executor = LocalExecutor(make_engine("reference", "cpu"))
    long = TaskSpace("digits", n=50, steps=100_000)
    endless = Request(long, long.random_labelings(1), long.confirm_seeds(1, 1))
    (training,) = executor.submit([endless])
    (waiting,) = executor.submit([endless])
    time.sleep(0.2)
    executor.cancel()
    with pytest.raises(Stopped):
        training.result(timeout=10)
    with pytest.raises(CancelledError):
        waiting.result(timeout=10)
    (again,) = executor.submit([request()])
    assert np.isfinite(again.result(timeout=60)).all()


def test_a_baseline_is_trained_once_and_with_the_requests_that_need_it() -> None:
    engine = Counted()
    evaluator = Evaluator(LocalExecutor(engine))
    one = request()
    first = evaluator.evaluate([one])
    second = evaluator.evaluate([one])
    assert engine.calls == [4 + 8, 4]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(evaluator.score([one], train([one], ENGINE)), first)
    assert engine.calls == [12, 4]


def test_splits_with_other_numbers_of_positives_have_baselines_of_their_own() -> None:
    one = request(20, labelings=8, split="random")
    assert len(np.unique(one.validation_positives)) > 1
    alone = [
        evaluate([Request(one.image_set, y[None], s[None])], ENGINE)[0][0]
        for y, s in zip(one.labels, one.seeds, strict=True)
    ]
    np.testing.assert_array_equal(evaluate([one], ENGINE)[0], alone)


def test_results_come_in_the_order_of_their_futures() -> None:
    executor = LocalExecutor(ENGINE)
    requests = [request(seed=seed, labelings=1) for seed in range(3)]
    futures = [executor.submit([one])[0] for one in requests]
    for curves, one in zip(results(executor, futures[::-1]), requests[::-1], strict=True):
        np.testing.assert_array_equal(curves, train([one], ENGINE)[0])
