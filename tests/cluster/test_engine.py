"""An engine on workers: the same bits as an engine here, whatever its workers do."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from processes import engine, has_joined, scheduler, wait_until, worker

from tdbench.base.errors import UserError
from tdbench.engine import TrainingBatch, make_engine
from tdbench.engine.engine import Stopped
from tdbench.engine.protocol import TrainingProtocol, train_masks

HERE = make_engine(threads=1)
PROTOCOL = TrainingProtocol(steps=8)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    with scheduler(tmp_path_factory.mktemp("scheduler")) as (address, _):
        yield address


def make_batch(size: int = 24, n: int = 10, sets: int = 3, seed: int = 0) -> TrainingBatch:
    rng = np.random.default_rng(seed)
    labels = np.array([rng.permutation(np.arange(n) < n // 5) for _ in range(size)], dtype=np.uint8)
    seeds = rng.integers(0, 2**63, size, dtype=np.uint64)
    images = rng.normal(size=(sets, n, 3, 32, 32)).astype(np.float32)
    mask = train_masks(labels, seeds, "stratified")
    return TrainingBatch.checked(images, labels, mask, seeds, rng.integers(0, sets, size))


BATCH = make_batch()
CURVES = HERE.curves(BATCH, PROTOCOL)


def test_curves_and_weights_are_those_of_an_engine_here_to_the_bit(address: str) -> None:
    with worker(address, "a"), worker(address, "b"), engine(address, workers=2) as cluster:
        assert (cluster.name, cluster.device, cluster.detail) == (HERE.name, HERE.device, HERE.detail)
        np.testing.assert_array_equal(cluster.curves(BATCH, PROTOCOL), CURVES)
        trained, expected = cluster.train(BATCH, PROTOCOL), HERE.train(BATCH, PROTOCOL)
        np.testing.assert_array_equal(trained.curves, expected.curves)
        np.testing.assert_array_equal(trained.weights, expected.weights)
        again = TrainingBatch.checked(
            BATCH.images, BATCH.labels, BATCH.train_mask, image_set=BATCH.image_set, weights=expected.weights
        )
        np.testing.assert_array_equal(cluster.curves(again, PROTOCOL), HERE.curves(again, PROTOCOL))
        work = {done.worker: done for done in cluster.take_work()}
        assert sum(done.trainings for done in work.values()) == 3 * len(BATCH)
        assert set(work) == {"a", "b"}
        assert "2 workers waited" in cluster.summary()
        assert cluster.curves(BATCH.part(slice(0, 0)), PROTOCOL).shape == (0, PROTOCOL.steps)


def test_a_training_without_a_validation_side_is_no_nonsense(address: str) -> None:
    mask = BATCH.train_mask.copy()
    mask[::2] = True
    batch = TrainingBatch.checked(BATCH.images, BATCH.labels, mask, BATCH.seeds, BATCH.image_set)
    with worker(address, "a"), engine(address) as cluster:
        np.testing.assert_array_equal(cluster.curves(batch, PROTOCOL), HERE.curves(batch, PROTOCOL))


def test_calls_of_several_threads_get_their_own_results(address: str) -> None:
    batches = [make_batch(12, seed=seed, n=n) for seed, n in enumerate((10, 15, 20))]
    found: dict[int, np.ndarray] = {}
    with worker(address, "a"), engine(address) as cluster:
        threads = [
            threading.Thread(target=lambda i=i: found.update({i: cluster.curves(batches[i], PROTOCOL)}))
            for i in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, batch in enumerate(batches):
        np.testing.assert_array_equal(found[i], HERE.curves(batch, PROTOCOL))


def test_a_call_can_be_stopped_and_the_next_one_goes_on(address: str) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with worker(address, "a"), engine(address) as cluster:
        with pytest.raises(Stopped):
            cluster.curves(make_batch(2000), TrainingProtocol(steps=200), stop)
        np.testing.assert_array_equal(cluster.curves(BATCH, PROTOCOL), CURVES)


def test_an_engine_that_was_closed_connects_anew(address: str) -> None:
    with worker(address, "a"), engine(address) as cluster:
        cluster.curves(BATCH, PROTOCOL)
        cluster.close()
        np.testing.assert_array_equal(cluster.curves(BATCH, PROTOCOL), CURVES)


def test_a_worker_killed_in_mid_piece_costs_that_piece_only(address: str) -> None:
    batch = make_batch(100)
    with worker(address, "a"), worker(address, "b") as victim, engine(address, workers=2) as cluster:
        threading.Timer(0.2, victim.send_signal, [signal.SIGKILL]).start()
        curves = cluster.curves(batch, TrainingProtocol(steps=30))
        lost = {done.worker: done.lost for done in cluster.take_work()}
    np.testing.assert_array_equal(curves, HERE.curves(batch, TrainingProtocol(steps=30)))
    assert lost == {"a": 0, "b": 1}


def test_a_worker_that_hangs_is_given_up_after_the_limit(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    with worker(address, "a") as well, worker(address, "stopped") as hangs:
        wait_until(lambda: has_joined(well, address) and has_joined(hangs, address))
        with engine(address, timeout=6, workers=2) as cluster:
            hangs.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            np.testing.assert_array_equal(cluster.curves(BATCH, PROTOCOL), CURVES)
            assert 6 <= time.monotonic() - begun < 40
            assert "worker stopped on" in (said := capfd.readouterr().err)
            assert "is refused: it did not answer for 6 seconds" in said


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return replace(true(piece), curves=true(piece).curves[:, 1:])", "expected float32 curves of shape"),
        pytest.param(
            "return replace(true(piece), curves=true(piece).curves.astype(np.float64))",
            "got float64",
            marks=pytest.mark.long,
        ),
        ("return replace(true(piece), curves=np.full_like(true(piece).curves, np.nan))", "is not a number"),
        pytest.param("return replace(true(piece), curves=None)", "got NoneType", marks=pytest.mark.long),
    ],
    ids=["shape", "dtype", "nan", "nothing"],
)
def test_a_worker_that_returns_nonsense_is_refused_by_name(
    address: str, body: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with worker(address, "good"), worker(address, "bad", body=body), engine(address, workers=2) as cluster:
        np.testing.assert_array_equal(cluster.curves(BATCH, PROTOCOL), CURVES)
        said = capfd.readouterr().err
        assert "worker bad on" in said
        assert "is refused: it returned nonsense: " in said
        assert reason in said
        cluster.take_work()
        cluster.curves(BATCH, PROTOCOL)
        assert [done.worker for done in cluster.take_work()] == ["good"]


def test_a_piece_that_is_lost_again_and_again_ends_the_call_in_one_line_with_host_and_cause(address: str) -> None:
    body = "raise MemoryError('no room for it')"
    with (
        worker(address, "a", body=body),
        worker(address, "b", body=body),
        engine(address, workers=2) as cluster,
        pytest.raises(UserError, match=r"lost 4 times, the last time on worker [ab] on \S+: MemoryError: no room"),
    ):
        cluster.curves(BATCH.part(slice(0, 1)), PROTOCOL)


def test_a_worker_of_another_kind_is_refused_by_name_with_the_remedy(
    address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        worker(address, "a"),
        worker(address, "b"),
        engine(address, workers=2) as cluster,
        worker(address, "other", TDBENCH_NATIVE_ISA="base"),
    ):
        wait_until(lambda: sum(member.description is not None for member in cluster._pool.members.values()) == 3)
        np.testing.assert_array_equal(cluster.curves(BATCH, PROTOCOL), CURVES)
        assert {done.worker for done in cluster.take_work()} <= {"a", "b"}
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("worker other on ")
        assert f"its detail is lanes-base, expected {HERE.detail}" in line
        assert "TDBENCH_NATIVE_ISA=avx2" in line


def test_no_worker_has_the_engine_that_was_asked_for(address: str) -> None:
    asked = "engine reference device auto was asked for"
    with worker(address, "a"), pytest.raises(UserError, match=asked), engine(address, name="reference"):
        pass


def test_the_scheduler_lost_is_one_line(tmp_path: Path) -> None:
    with scheduler(tmp_path) as (address, process), worker(address, "a"), engine(address) as cluster:
        threading.Timer(0.5, process.send_signal, [signal.SIGKILL]).start()
        with pytest.raises(UserError, match=f"the scheduler at {address} is lost; everything evaluated is kept"):
            cluster.curves(make_batch(4000), TrainingProtocol(steps=200))


def test_no_scheduler_is_one_line() -> None:
    with pytest.raises(UserError, match="no Dask scheduler answers at tcp:"), engine("tcp://127.0.0.1:9"):
        pass


def test_a_cluster_without_workers_is_given_up_after_the_limit(
    tmp_path: Path,
) -> None:
    with (
        scheduler(tmp_path) as (address, _),
        pytest.raises(UserError, match="no worker that can be used for 1 seconds; start one with `tdbench worker tcp"),
        engine(address, timeout=1),
    ):
        pass
