"""`tdbench bench`: lockstep, isolation, and a campaign that is killed again and again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import CHEAP, MISBEHAVING, as_options, command, environment, table, tdbench

import tdbench as package
from tdbench import UserError
from tdbench.arena.campaign import Result
from tdbench.store.rows import row_to_json

FAILING = {
    "raises-at-start": "crash",
    "raises-in-ask": "crash",
    "raises-in-tell": "crash",
    "bad-recommend": "crash",
    "exits": "crash",
    "segfaults": "crash",
    "leaks": "crash",
    "hangs-in-ask": "timeout",
    "nan": "invalid",
    "wrong-shape": "invalid",
    "wrong-type": "invalid",
    "out-of-range": "invalid",
}
HARMLESS = ("same-vector", "slow", "prints", "<script>alert(1)</script>", "=cmd()")


def bench(out: Path, searchers: tuple[str, ...], **settings: object) -> list[Result]:
    return package.bench(searchers, **{"seeds": 1, "out": out, **CHEAP, **settings})


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """A benchmark of every misbehaving searcher beside decent ones."""
    return bench(
        tmp_path_factory.mktemp("mixed"),
        (*FAILING, *HARMLESS, "random", "twopointsde"),
        plugins=(MISBEHAVING,),
        ask_timeout=15,
        memory_limit=900,
    )


@pytest.mark.parametrize(("searcher", "status"), FAILING.items())
def test_a_failing_searcher_becomes_a_row_with_status_and_error(
    mixed: list[Result], searcher: str, status: str
) -> None:
    (row,) = [result.row for result in mixed if result.row.searcher == searcher]
    assert row.status == status
    assert row.error


@pytest.mark.parametrize("searcher", [*HARMLESS, "random", "twopointsde"])
def test_a_decent_searcher_ends_well_beside_failing_ones(mixed: list[Result], searcher: str) -> None:
    (row,) = [result.row for result in mixed if result.row.searcher == searcher]
    assert (row.status, row.error) == ("ok", "")


def test_a_result_does_not_depend_on_who_else_is_there(mixed: list[Result], tmp_path: Path) -> None:
    (together,) = [result for result in mixed if result.row.searcher == "twopointsde"]
    alone = package.run("twopointsde", out=tmp_path, **CHEAP)
    assert np.array_equal(alone.told, together.told)
    clocks = ("seconds", "timestamp")
    left, right = ({k: v for k, v in row_to_json(r.row).items() if k not in clocks} for r in (alone, together))
    assert left == right


def test_a_leak_is_named_as_one(mixed: list[Result]) -> None:
    (row,) = [result.row for result in mixed if result.row.searcher == "leaks"]
    assert "memory limit of 900 MiB" in row.error


def test_bench_exits_0_where_a_run_failed_and_says_so(tmp_path: Path) -> None:
    done = tdbench(*bench_options(tmp_path, "random,raises-in-ask", "--plugin", MISBEHAVING))
    assert done.returncode == 0, done.stderr
    assert "failed: raises-in-ask, seed 0: crash: RuntimeError" in done.stdout


def test_bench_exits_1_where_every_run_failed(tmp_path: Path) -> None:
    done = tdbench(*bench_options(tmp_path, "raises-in-ask", "--plugin", MISBEHAVING))
    assert done.returncode == 1


def test_spaces_and_seeds_are_all_combined(tmp_path: Path) -> None:
    results = bench(tmp_path, ("random",), seeds=(3, 5), space_seeds=(0, 1), ratio=(1, 4))
    cases = {(r.row.ratio, r.row.space_seed, r.row.seed) for r in results}
    assert cases == {(ratio, space, seed) for ratio in (1, 4) for space in (0, 1) for seed in (3, 5)}
    assert len(list((tmp_path / "leaderboards").glob("*.csv"))) == 4


def test_a_failed_run_counts_in_what_bench_prints_as_in_the_leaderboard(tmp_path: Path) -> None:
    done = tdbench(*bench_options(tmp_path, "random,raises-in-ask", "--plugin", MISBEHAVING))
    board = json.loads(tdbench("leaderboard", "--out", tmp_path, "--format", "json").stdout)
    for standing in board["tables"][0]["standings"]:
        (line,) = [line for line in done.stdout.splitlines() if f" {standing['searcher']} " in line]
        assert f" {standing['confirmed']['value']:.3f} " in line


def test_a_number_of_seeds_may_be_numpys(tmp_path: Path) -> None:
    assert [r.row.seed for r in bench(tmp_path, ("random",), seeds=np.int64(2))] == [0, 1]


def test_finished_runs_are_kept_when_seeds_are_added(tmp_path: Path) -> None:
    first = bench(tmp_path, ("random",), seeds=1)
    second = bench(tmp_path, ("random",), seeds=2)
    assert second[0].row == first[0].row
    assert len(table(tmp_path)) == 2


def test_config_file_says_the_same_as_options(tmp_path: Path) -> None:
    config = tmp_path / "bench.toml"
    config.write_text(
        'searchers = ["random", "cmaes"]\nseeds = 2\nn = 10\nsteps = 6\nconfirm = 4\nbatch = 10\nbudget = 60\n'
        "space-seeds = [0]\n"
    )
    assert tdbench("bench", config, "--out", tmp_path / "file").returncode == 0
    assert tdbench(*bench_options(tmp_path / "options", "random,cmaes", "--seeds", "2")).returncode == 0
    assert table(tmp_path / "file") == table(tmp_path / "options")


def test_options_override_the_config_file(tmp_path: Path) -> None:
    config = tmp_path / "bench.toml"
    config.write_text('searchers = ["random"]\nseeds = 2\nn = 10\nsteps = 6\nconfirm = 4\nbatch = 10\nbudget = 60\n')
    assert tdbench("bench", config, "--budget", "20", "--out", tmp_path / "out").returncode == 0
    assert {row["budget"] for row in table(tmp_path / "out")} == {"20"}


def test_unknown_setting_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"budgets.*'budget'"):
        package.bench(["random"], budgets=20)


def test_interrupted_bench_needs_resume(tmp_path: Path) -> None:
    options = bench_options(tmp_path, "random", "--budget", "100000")
    process = begin(options)
    wait_for_evaluations(tmp_path, 30)
    kill_tree(process)
    done = tdbench(*options)
    assert done.returncode == 2
    assert "--resume" in done.stderr


def test_status_tells_done_and_left(tmp_path: Path) -> None:
    process = begin(bench_options(tmp_path, "random", "--budget", "100000"))
    wait_for_evaluations(tmp_path, 30)
    running = tdbench("status", "--out", tmp_path).stdout
    kill_tree(process)
    assert "running" in running
    stopped = tdbench("status", "--out", tmp_path).stdout
    assert "interrupted" in stopped
    assert "0 of 1 runs ended" in stopped


@pytest.mark.parametrize("times", [5, pytest.param(30, marks=pytest.mark.long)])
def test_killed_many_times_equals_uninterrupted_to_the_bit(tmp_path: Path, times: int) -> None:
    searchers, extra = "random,twopointsde,cmaes", ("--seeds", "2", "--budget", str(100 + 20 * times), "--steps", "40")
    whole = tdbench(*bench_options(tmp_path / "whole", searchers, *extra))
    assert whole.returncode == 0, whole.stderr
    options = bench_options(tmp_path / "killed", searchers, *extra, "--resume")
    delays, kills, committed = random.Random(0), 0, 0
    while kills < times:
        process = begin(options)
        # Somewhere in its life: while it starts, while workers start, in the first batches, or later on.
        if delays.random() < 0.6 and wait_for_evaluations(tmp_path / "killed", committed + 1, process):
            time.sleep(delays.expovariate(20))
        else:
            time.sleep(delays.uniform(0.0, 2.0))
        if process.poll() is not None:
            break
        kill_tree(process)
        kills += 1
        now = log(tmp_path / "killed")
        assert len(now["evaluation"]) >= committed, "an evaluation that was committed is gone"
        committed = len(now["evaluation"])
    assert kills == times, f"the campaign ended after {kills} kills; make it longer"
    done = tdbench(*options)
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    assert log(tmp_path / "killed") == log(tmp_path / "whole")


def bench_options(out: Path, searchers: str, *extra: str) -> list[str]:
    return ["bench", "--searchers", searchers, "--seeds", "1", *as_options({**CHEAP, "out": out}), *extra]


def begin(options: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(*options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the command and to every worker it has."""
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.kill()
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    process.wait()


def wait_for_evaluations(out: Path, count: int, process: subprocess.Popen[bytes] | None = None) -> bool:
    deadline = time.monotonic() + 90
    while len(log(out)["evaluation"]) < count:
        if process is not None and process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "the benchmark does not get on"
        time.sleep(0.01)
    return True


def log(out: Path) -> dict[str, list[tuple[object, ...]]]:
    """What the log has of evaluations, asks, recommendations and confirmations, in a fixed order."""
    tables: dict[str, list[tuple[object, ...]]] = {name: [] for name in ("evaluation", "ask", "recommendation")}
    path = out / "log.sqlite"
    if not path.is_file():
        return tables
    db = sqlite3.connect(path, timeout=30)
    try:
        return {name: db.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in tables}
    except sqlite3.OperationalError:  # its tables are not there yet
        return tables
    finally:
        db.close()
