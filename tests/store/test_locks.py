"""Locks of runs: one process at a run, any number of runs, and none held by the dead."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tdbench.base.errors import UserError
from tdbench.store.locks import held, hold


def _hold_for_ever(folder: Path, keys: list[str], ready: Connection) -> None:
    with hold(folder, keys):
        ready.send(True)
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """A process that holds runs a and b."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_hold_for_ever, args=(tmp_path, ["a", "b"], theirs))
    process.start()
    assert ours.poll(60)
    yield process
    process.kill()
    process.join()


def test_a_run_is_held_by_one_process_until_it_dies(tmp_path, holder):
    assert held(tmp_path) == {"a", "b"}
    with pytest.raises(UserError, match="another tdbench process"), hold(tmp_path, ["c", "b"]):
        pass
    with hold(tmp_path, ["c"]):
        assert held(tmp_path) == {"a", "b", "c"}
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert held(tmp_path) == set()
    with hold(tmp_path, ["a"]):
        assert held(tmp_path) == {"a"}
    assert [path.name for path in tmp_path.iterdir()] == ["guard"]


def test_two_calls_of_one_process_do_not_share_a_run(tmp_path):
    with hold(tmp_path, ["a"]):
        with pytest.raises(UserError, match="another tdbench process"), hold(tmp_path, ["a"]):
            pass
        assert held(tmp_path) == {"a"}
    assert held(tmp_path) == set()


def test_ten_thousand_runs_need_few_open_files(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    keys = [f"{i:012x}" for i in range(10_000)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[0]), limits[1]))
    try:
        with hold(tmp_path, keys):
            assert held(tmp_path) == set(keys)
            assert len(list(tmp_path.iterdir())) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_is_left_of_a_process_that_died_while_it_locked_goes(tmp_path):
    (tmp_path / "12-ab.new").write_text("a")
    (tmp_path / "12-cd.holder").write_text("a")
    assert held(tmp_path) == set()
    with hold(tmp_path, ["a"]):
        assert len(list(tmp_path.iterdir())) == 2
