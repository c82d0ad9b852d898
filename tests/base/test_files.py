"""Files that appear whole or not at all, and leave nothing beside them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tdbench.base.errors import UserError
from tdbench.base.files import check_name, whole_file, write_bytes


def _write_and_wait(path: Path, half_way: Connection) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(b"half")
        half_way.send(True)
        signal.pause()


def test_what_a_killed_write_left_is_gone_after_the_next_one(tmp_path):
    path = tmp_path / "picture.png"
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_write_and_wait, args=(path, theirs))
    process.start()
    assert ours.poll(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [entry.name for entry in tmp_path.iterdir()] == [".picture.png.partial"]
    write_bytes(path, b"whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]
    assert path.read_bytes() == b"whole"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), whole_file(path) as partial:
        partial.write_bytes(b"half")
        raise RuntimeError
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_bytes() == b"old"


def test_writers_of_one_file_take_turns(tmp_path):
    path, contents = tmp_path / "file", [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_bytes, args=(path, content)) for content in contents for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_longest_name_that_is_accepted_can_be_written(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len("..partial")
    for name in ("x" * longest, "é" * (longest // 2)):
        check_name(tmp_path / "new" / name, "it")
        write_bytes(tmp_path / "new" / name, b"")
    with pytest.raises(UserError, match=f"the file name of it has {longest + 1} bytes.* at most {longest}"):
        check_name(tmp_path / "new" / ("x" * (longest + 1)), "it")
