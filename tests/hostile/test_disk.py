"""A full disk, a read-only folder, changed data: one clear line, nothing half-written, and the run goes on later."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rude
from helpers import wait_for_evaluations
from rude import CHEAPEST, OUT, TIMES, Done

SEARCHERS = ("random", "umda")
BLOCK = 4096  # bytes that a small file system gives to a file at a time
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); from tdbench.cli import main; main()"
Mount = Callable[..., None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """``mount(folder, options)``: a file system in memory there; it is gone after the test."""
    mounted: list[Path] = []

    def mount_there(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(call, capture_output=True, check=False).returncode:
            pytest.skip("needs to mount a file system, which only root may, and not everywhere")
        mounted.append(folder)

    yield mount_there
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fill(folder: Path, keep: int = 0) -> Path:
    """A file that takes all space of that file system but `keep` bytes."""
    path = folder / "filler"
    space = os.statvfs(folder)
    with path.open("wb") as file:
        file.write(b"\0" * (space.f_bavail * space.f_bsize - keep))
    return path


def arguments(**settings: object) -> list[str]:
    options = {**CHEAPEST, "seeds": 1, "out": OUT, "searchers": ",".join(SEARCHERS), **settings}
    return ["bench", *rude.as_options(options), *TIMES]


def limited(folder: Path, size: int, *options: str) -> Done:
    """The command where no file may grow beyond `size` bytes."""
    command = [sys.executable, "-c", LIMITED.format(size), *options]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        environment = {**rude.environment(), "TMPDIR": str(folder / "tmp")}
        done = subprocess.run(
            command, cwd=folder / "work", stdout=out, stderr=err, env=environment, timeout=60, check=False
        )
    return Done(folder, done.returncode, ())


def check_refused(done: Done, *words: str) -> None:
    """One line of error, which says what and why."""
    assert done.code == 2, done.err[-1000:]
    errors = [line for line in done.err.split("\n") if line.startswith("error: ")]
    assert len(errors) == 1, done.err[-1000:]
    assert any(word in errors[0] for word in words), errors
    rude.check_printed(done)
    assert done.left == ()


def begun(folder: Path) -> Path:
    """A bench of one searcher that has ended; the path of its leaderboard."""
    done = rude.tdbench(folder, *arguments(searchers="random"))
    assert done.code == 0, done.err
    (path,) = (done.results / "leaderboards").glob("*.csv")
    return path


def grow(path: Path, size: int) -> None:
    """Add rows of other runs, until the file has exactly `size` bytes."""
    with path.open(newline="") as file:
        header, row = csv.reader(file)
    at = {name: header.index(name) for name in ("run", "searcher", "seed", "error")}
    row[at["searcher"]] = "another"
    number, length = 0, path.stat().st_size // 2
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        while (missing := size - file.tell()) > 0:
            row[at["run"]], row[at["seed"]] = f"a{number:011x}-1", str(100_000 + number)
            row[at["error"]] = ""
            line = len(",".join(row)) + 1
            assert missing >= line
            row[at["error"]] = "x" * (missing - line if missing < 3 * length else 0)
            writer.writerow(row)
            number += 1
    assert path.stat().st_size == size


def check_goes_on(folder: Path, decent: dict[str, dict[str, str]]) -> Done:
    done = rude.tdbench(folder, *arguments(), "--resume")
    assert done.code == 0, done.err
    assert {name: done.rows[name] for name in SEARCHERS} == {name: decent[name] for name in SEARCHERS}
    return done


def files(folder: Path) -> set[str]:
    """The names of all files there but locks."""
    return {path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")}


@pytest.mark.long
def test_a_disk_that_is_full_when_a_row_is_written(
    tmp_path: Path, mount: Mount, decent: dict[str, dict[str, str]]
) -> None:
    path = begun(tmp_path)
    grow(path, 5 * BLOCK - 10)  # the next row needs a block more
    before = path.read_bytes()
    mount(path.parent, f"size={64 * BLOCK}")
    path.write_bytes(before)
    filler = fill(path.parent)
    done = rude.tdbench(tmp_path, *arguments(), "--resume")
    check_refused(done, "No space left")
    assert path.read_bytes() == before
    assert files(path.parent) == {path.name, "filler"}
    filler.unlink()
    check_goes_on(tmp_path, decent)
    assert path.read_bytes().startswith(before)


def test_a_file_that_may_not_grow_when_a_row_is_written(tmp_path: Path, decent: dict[str, dict[str, str]]) -> None:
    path = begun(tmp_path)
    grow(path, 1_000_000)  # much more than the log has
    before = path.read_bytes()
    done = limited(tmp_path, 1_000_010, *arguments(), "--resume")
    check_refused(done, "File too large")
    assert path.read_bytes() == before
    assert files(path.parent) == {path.name}
    check_goes_on(tmp_path, decent)
    assert path.read_bytes().startswith(before)


@pytest.mark.long
@pytest.mark.parametrize("keep", [8 * BLOCK, 30 * BLOCK, 100 * BLOCK])
def test_a_disk_that_is_full_when_the_log_is_written(tmp_path: Path, mount: Mount, keep: int) -> None:
    results = tmp_path / "work" / OUT
    mount(results, f"size={16_384 * BLOCK}")
    filler = fill(results, keep)
    done = rude.tdbench(tmp_path, *arguments(budget=1000))
    check_refused(done, "full", "No space left", "disk I/O error")
    filler.unlink()
    whole = rude.tdbench(tmp_path / "whole", *arguments(budget=1000))
    done = rude.tdbench(tmp_path, *arguments(budget=1000), "--resume")
    assert done.code == 0, done.err
    assert done.rows == whole.rows


@pytest.mark.long
def test_a_log_that_may_not_grow(tmp_path: Path, decent: dict[str, dict[str, str]]) -> None:
    begun(tmp_path)
    size = (tmp_path / "work" / OUT / "log.sqlite").stat().st_size
    check_refused(limited(tmp_path, size, *arguments(budget=4000, searchers="random")), "full", "large", "disk I/O")
    check_goes_on(tmp_path, decent)


@pytest.mark.long
@pytest.mark.parametrize("inside", [".", "leaderboards"])
def test_a_folder_that_is_read_only(
    tmp_path: Path, mount: Mount, decent: dict[str, dict[str, str]], inside: str
) -> None:
    folder = tmp_path / "work" / OUT / inside
    if os.geteuid():
        folder.mkdir(parents=True)
        folder.chmod(0o555)
    else:
        mount(folder, "size=8m")
        remount(folder, "ro")
    done = rude.tdbench(tmp_path, *arguments())
    check_refused(done, "Read-only", "read-only", "Permission denied", "readonly")
    assert files(folder) == set()
    if os.geteuid():
        folder.chmod(0o755)
    else:
        remount(folder, "rw")
    check_goes_on(tmp_path, decent)


def test_data_that_changed_before_a_run_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(60) % 5)
    command = arguments(data=path, budget=600, searchers="random")
    whole = rude.tdbench(tmp_path / "whole", *command)
    assert whole.code == 0, whole.err
    running = rude.Running(tmp_path, *command)
    rows = tmp_path / "work" / OUT / "leaderboards"
    wait_for_evaluations(tmp_path / "work" / OUT, 30)
    running.kill()
    assert not rows.exists(), "it was not killed in time"
    right = path.read_bytes()
    np.savez(path, images=255 - images, labels=np.arange(60) % 5)
    check_refused(rude.tdbench(tmp_path, *command, "--resume"), "have changed")
    path.write_bytes(b"no archive")
    check_refused(rude.tdbench(tmp_path, *command, "--resume"), str(path))
    assert not rows.exists()
    path.write_bytes(right)
    done = rude.tdbench(tmp_path, *command, "--resume")
    assert done.code == 0, done.err
    assert done.rows == whole.rows
