"""The evaluation log: what is committed is there, whole, and in the order it came."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tdbench import TaskSpace
from tdbench.base.errors import UserError
from tdbench.settings import RunSettings
from tdbench.space.sources import Source
from tdbench.store.log import FILE_NAME, VERSION, Asked, Store, digest, pack_labels, unpack_labels

ENGINE = ("reference", "cpu", "")


@pytest.fixture(scope="module")
def space():
    return TaskSpace(n=10, ratio=1, steps=5)


@pytest.fixture
def store(tmp_path, space):
    with Store(tmp_path) as opened:
        opened.add_space(space)
        yield opened


def begin(store, space, key="k", attempt=1):
    settings = RunSettings(searcher="random", n=10, ratio=1, steps=5, batch=3, budget=30)
    return store.begin(key, attempt, space.identity, settings, "1.0", ENGINE)


def ask(first, n=3, seed=0):
    rng = np.random.default_rng(seed + first)
    labels = np.array([rng.permutation([1] * 5 + [0] * 5) for _ in range(n)], dtype=np.uint8)
    return Asked(first, digest(rng.random((n, 10))), labels, rng.normal(size=n))


def assert_same(asked, expected):
    assert [(a.first, a.digest) for a in asked] == [(e.first, e.digest) for e in expected]
    for a, e in zip(asked, expected, strict=True):
        np.testing.assert_array_equal(a.labels, e.labels)
        np.testing.assert_array_equal(a.taskness, e.taskness)


@given(st.integers(1, 70), st.integers(0, 5), st.data())
def test_labels_of_any_length_come_back_from_their_bits(n, count, data):
    labels = data.draw(arrays(np.uint8, (count, n), elements=st.integers(0, 1)))
    blobs = pack_labels(labels)
    assert [len(blob) for blob in blobs] == [-(-n // 8)] * count
    np.testing.assert_array_equal(unpack_labels(blobs, n), labels)


@given(arrays(np.float64, (2, 5), elements=st.floats(0, 1)), st.integers(0, 9))
def test_a_digest_changes_with_any_bit(scores, where):
    other = scores.copy()
    other.flat[where] = np.nextafter(other.flat[where], 2)
    assert digest(scores) == digest(scores.copy(order="F"))
    assert digest(scores) != digest(other)


def test_what_was_appended_is_there_after_opening_anew(tmp_path, store, space):
    run = begin(store, space)
    expected = [ask(0), ask(3, n=2), ask(5, n=1)]
    for one in expected:
        store.append([(run.id, one)], {run.id: 1.5 + one.first})
    with Store(tmp_path) as again:
        assert_same(again.asked(run), expected)
        assert again.evaluated(run.id) == 6
        assert again.latest("k").seconds == 6.5
        labels, told = again.evaluations(run)
    np.testing.assert_array_equal(labels, np.concatenate([e.labels for e in expected]))
    np.testing.assert_array_equal(told, np.concatenate([e.taskness for e in expected]))


def test_asks_come_back_by_number_not_by_text(store, space):
    run = begin(store, space)
    for first in (0, 3, 6, 9, 12):
        store.append([(run.id, ask(first))], {})
    assert [a.first for a in store.asked(run)] == [0, 3, 6, 9, 12]


def test_a_run_without_evaluations_has_none(store, space):
    run = begin(store, space)
    assert store.asked(run) == []
    assert store.evaluated(run.id) == 0
    labels, told = store.evaluations(run)
    assert (labels.shape, told.shape) == ((0, 10), (0,))


@pytest.mark.parametrize("taskness", [np.array([0.1, np.nan, 0.2]), np.array([0.1, 0.2])])
def test_a_batch_with_one_bad_run_leaves_nothing(store, space, taskness):
    good, bad = begin(store, space, "good"), begin(store, space, "bad")
    wrong = ask(0)
    with pytest.raises((UserError, ValueError)):
        store.append([(good.id, ask(0)), (bad.id, Asked(0, wrong.digest, wrong.labels, taskness))], {good.id: 9.0})
    assert store.evaluated(good.id) == store.evaluated(bad.id) == 0
    assert store.asked(good) == []
    assert store.latest("good").seconds == 0


def test_an_evaluation_cannot_be_recorded_twice(store, space):
    run = begin(store, space)
    store.append([(run.id, ask(0))], {})
    with pytest.raises(UserError):
        store.append([(run.id, ask(0, seed=7))], {})
    assert_same(store.asked(run), [ask(0)])


def test_a_run_is_found_by_its_latest_attempt(store, space):
    for attempt in (1, 2, 10):
        begin(store, space, "k", attempt)
    begin(store, space, "other")
    assert store.latest("k").attempt == 10
    assert store.latest("nobody") is None
    assert [r.id for r in store.runs()] == ["k-1", "k-2", "k-10", "other-1"]


def test_a_begun_run_keeps_its_settings(store, space):
    record = begin(store, space)
    assert record.settings == RunSettings(searcher="random", n=10, ratio=1, steps=5, batch=3, budget=30)
    assert (record.engine, record.device, record.engine_detail) == ENGINE
    assert (record.status, record.ended, record.row) == ("running", False, None)


def test_a_finished_run_keeps_its_row_and_recommendations(store, space):
    run = begin(store, space)
    labels = ask(0).labels
    store.finish(run.id, "ok", "", 3.0, {"told": 0.5, "error": 'a "b"'}, {0.1: labels[0], 1.0: labels[1]})
    ended = store.latest("k")
    assert (ended.status, ended.ended, ended.seconds, ended.row) == ("ok", True, 3.0, {"told": 0.5, "error": 'a "b"'})
    recommended = store.recommended(run)
    assert list(recommended) == [0.1, 1.0]
    np.testing.assert_array_equal(recommended[1.0], labels[1])


def test_a_failed_run_keeps_its_error(store, space):
    run = begin(store, space)
    store.finish(run.id, "crash", "it broke", 1.0, {})
    assert (store.latest("k").status, store.latest("k").error) == ("crash", "it broke")
    assert store.recommended(run) == {}


def test_confirmations_are_kept_by_space_engine_labels_and_replicates(store, space):
    labels, values = ask(0).labels, np.random.default_rng(0).normal(size=(3, 4))
    store.add_confirmations(space.identity, "native", labels, values)
    for y, v in zip(labels, values, strict=True):
        np.testing.assert_array_equal(store.confirmed(space.identity, "native", y, 4), v)
    assert store.confirmed(space.identity, "batched", labels[0], 4) is None
    assert store.confirmed(space.identity, "native", labels[0], 5) is None
    assert store.confirmed(space.identity, "native", 1 - labels[0], 4) is None
    assert store.confirmed("another", "native", labels[0], 4) is None


def test_a_confirmation_may_be_added_again(store, space):
    labels = ask(0).labels
    for value in (0.1, 0.2):
        store.add_confirmations(space.identity, "native", labels, np.full((3, 4), value))
    np.testing.assert_array_equal(store.confirmed(space.identity, "native", labels[0], 4), [0.2] * 4)


def test_a_space_comes_back_with_its_pixels_and_classes(store, space):
    store.add_space(space)  # once more is no error
    np.testing.assert_array_equal(store.pixels(space.identity), space.pixels)
    classes, class_of = store.classes(space.identity)
    assert classes == space.classes
    np.testing.assert_array_equal(class_of, space.class_of)


def test_a_space_of_more_than_256_classes_comes_back(store):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 32, 32, 3), dtype=np.uint8)
    source = Source("many", pixels, np.arange(600) // 2, tuple(str(i) for i in range(300)))
    many = TaskSpace(source, n=600, ratio=299)
    store.add_space(many)
    np.testing.assert_array_equal(store.classes(many.identity)[1], many.class_of)


def test_opening_a_log_that_must_exist_makes_none(tmp_path):
    with pytest.raises(UserError, match=r"there is no log\.sqlite"):
        Store(tmp_path / "new", read_only=True)
    assert not (tmp_path / "new").exists()


def test_reading_writes_nothing(tmp_path, space):
    with Store(tmp_path) as store:
        store.add_space(space)
        begin(store, space)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with Store(tmp_path, read_only=True) as store:
        assert len(store.runs()) == 1
        with pytest.raises(UserError, match="readonly"):
            store.add_space(TaskSpace(n=10, seed=1))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_log_in_a_folder_that_cannot_be_written_is_read(tmp_path, space):
    with Store(tmp_path) as store:
        store.add_space(space)
        begin(store, space)
    tmp_path.chmod(0o555)
    try:
        with Store(tmp_path, read_only=True) as store:
            assert len(store.runs()) == 1
    finally:
        tmp_path.chmod(0o755)


def test_a_log_of_another_version_is_a_clear_error_and_is_left_alone(tmp_path):
    Store(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("UPDATE meta SET version = ?", (VERSION + 1,))
    database.commit()
    database.close()
    with pytest.raises(UserError, match=f"log version {VERSION + 1}, this one reads {VERSION}") as error:
        Store(tmp_path)
    assert "\n" not in str(error.value)


def test_a_database_of_something_else_is_a_clear_error(tmp_path):
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.executescript("CREATE TABLE meta (version INTEGER)")
    database.close()
    with pytest.raises(UserError, match="another version"):
        Store(tmp_path)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_no_log_is_a_clear_error_and_is_left_alone(tmp_path, read_only):
    content = b"this is no database" * 100
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(UserError, match=r"log\.sqlite cannot be used"):
        Store(tmp_path, read_only=read_only)
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_log_damaged_inside_is_a_clear_error_when_it_is_read(tmp_path, space):
    with Store(tmp_path) as store:
        store.add_space(space)
        run = begin(store, space)
        for first in range(0, 600, 3):
            store.append([(run.id, ask(first))], {})
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)

    def read():
        with Store(tmp_path) as damaged:
            damaged.runs()
            damaged.asked(run)
            damaged.pixels(space.identity)

    with pytest.raises(UserError, match="cannot be used") as error:
        read()
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be"):
        Store(tmp_path / "file" / "out")


def _write(folder, key, count):
    space = TaskSpace(n=10, ratio=1, steps=5)
    with Store(folder) as store:
        store.add_space(space)
        run = begin(store, space, key)
        for i in range(count):
            store.append([(run.id, ask(3 * i))], {run.id: float(i)})


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(tmp_path / "new", key, 40)) for key in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    with Store(tmp_path / "new") as store:
        for key in ("a", "b"):
            assert_same(store.asked(store.record(f"{key}-1")), [ask(3 * i) for i in range(40)])


def _write_for_ever(folder):
    _write(folder, "k", 10**6)


def test_a_killed_writer_leaves_whole_batches_and_an_open_log(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    seen = 0
    while seen < 30 and time.monotonic() < deadline:
        time.sleep(0.05)
        if (tmp_path / FILE_NAME).is_file():
            with Store(tmp_path) as store:
                seen = store.evaluated("k-1")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with Store(tmp_path) as store:
        asked = store.asked(store.record("k-1"))
        assert len(asked) * 3 == store.evaluated("k-1") >= seen >= 30
        assert_same(asked, [ask(3 * i) for i in range(len(asked))])
        store.append([("k-1", ask(3 * len(asked)))], {})
