"""`tdbench merge`: shards that are merged are the campaign, whatever their order; what differs is refused."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    CHEAP,
    ROOT,
    called,
    command,
    environment,
    interrupted,
    one_error,
    start,
    wait_for_evaluations,
)
from helpers import table as rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tdbench
from tdbench import TaskLibrary, UserError, merge
from tdbench.space.seal import write_new_key
from tdbench.store.confirmations import engine_tag, reference_scores, space_references
from tdbench.store.log import Store
from tdbench.store.rows import CLOCKS

SHARDS = 4
CAMPAIGN: dict[str, Any] = {
    **CHEAP,
    "confirm": 20,  # all reference tasks cost less than all runs on a space, and more than those of one shard
    "searchers": ("random", "umda"),
    "seeds": 2,
    "space_seeds": (0, 1),
    "tasks": (0, 3),
    "protocol": "rounds",
    "max_similarity": 0.5,
}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign at once."""
    out = tmp_path_factory.mktemp("campaign") / "once"
    tdbench.bench(**CAMPAIGN, out=out)
    return out


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The campaign in shards."""
    folder = tmp_path_factory.mktemp("shards")
    for i in range(1, SHARDS + 1):
        tdbench.bench(**CAMPAIGN, shard=f"{i}/{SHARDS}", out=folder / f"part-{i}")
    return sorted(folder.glob("part-*"))


@pytest.fixture(scope="module")
def merged(parts: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "all"
    merge(parts, out)
    return out


@pytest.fixture
def part(parts: list[Path], tmp_path: Path) -> Path:
    """A copy of the first shard, to be changed."""
    return Path(shutil.copytree(parts[0], tmp_path / "copy"))


def log(out: Path, *, clocks: bool = False) -> dict[str, list[Any]]:
    """All tables of a log, sorted; without what tells the time unless it is asked for."""
    with contextlib.closing(sqlite3.connect(f"file:{out / 'log.sqlite'}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = {name: [dict(row) for row in db.execute(f"SELECT * FROM {name}")] for name in names}
    for run in tables["run"]:
        row = json.loads(run["row"] or "{}")
        if not clocks:
            run.update(seconds=0, started=0, row={k: v for k, v in row.items() if k not in CLOCKS})
    return {name: sorted(map(repr, rows)) for name, rows in tables.items()}


def libraries(out: Path) -> dict[str, TaskLibrary]:
    return {path.name: TaskLibrary.load(path) for path in (out / "libraries").glob("*.npz")}


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a folder, without locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".lock" not in str(path.relative_to(folder))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def board_files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "leaderboards").glob("*.csv")}


def change(part: Path, statement: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(part / "log.sqlite")) as db, db:
        assert db.execute(statement, values).rowcount > 0


def test_merged_shards_are_the_campaign_at_once(once: Path, merged: Path) -> None:
    assert len(rows_of(once)) == 16
    assert rows_of(merged) == rows_of(once)
    assert log(merged) == log(once)
    assert libraries(merged) == libraries(once)
    assert {path.name for path in merged.glob("*/*.csv")} == {path.name for path in once.glob("*/*.csv")}


def test_the_reference_tasks_of_a_space_are_trained_in_one_shard(parts: list[Path]) -> None:
    complete: list[str] = []
    for part in parts:
        with Store(part, read_only=True) as store:
            for record in {record.space: record for record in store.runs()}.values():
                tag = engine_tag(record.engine, record.device, record.engine_detail)
                scores = reference_scores(store, record.space, tag, record.settings.confirm)
                complete += [record.space] * (len(scores) == len(space_references(store, record.space)))
    assert len(complete) == len(set(complete)) == 2


def test_the_campaign_on_the_merged_folder_trains_nothing_more(merged: Path, once: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(merged, tmp_path / "all"))
    before, boards = log(out, clocks=True), board_files(out)
    results = tdbench.bench(**CAMPAIGN, out=out)
    assert len(results) == 16
    assert log(out, clocks=True) == before
    assert board_files(out) == boards


def test_commands_give_of_the_merged_folder_what_they_give_of_the_campaign(
    merged: Path, once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = [called(capsys, "leaderboard", "--out", out, "--format", "csv") for out in (merged, once)]
    assert tables[0] == tables[1]
    states = [called(capsys, "status", "--out", out, "--format", "csv")[1].splitlines() for out in (merged, once)]
    assert sorted(states[0]) == sorted(states[1])
    assert called(capsys, "compare", merged, once)[0] == 0
    assert called(capsys, "report", "--out", merged, "--to", tmp_path / "report.html")[0] == 0


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(order=st.permutations(range(SHARDS)), again=st.lists(st.integers(0, SHARDS - 1), max_size=3))
def test_neither_the_order_nor_a_second_time_matters(
    order: list[int], again: list[int], parts: list[Path], merged: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("order") / "all"
    chosen = [parts[i] for i in order]
    for folders in (chosen[: 1 + len(again)], chosen, *([parts[i]] for i in again)):
        merge(folders, out)
    assert log(out, clocks=True) == log(merged, clocks=True)
    assert board_files(out) == board_files(merged)
    assert libraries(out) == libraries(merged)


def test_merging_again_writes_no_file_anew(parts: list[Path], merged: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(merged, tmp_path / "all"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.[cn][sp][vz]")}
    assert merge([*parts, out], out).runs == 16
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_copy_that_differs_in_times_and_hosts_is_the_same_run(parts: list[Path], part: Path, tmp_path: Path) -> None:
    host = "json_set(row, '$.hardware', 'another', '$.seconds', 9.0)"
    change(part, f"UPDATE run SET started = started + 9, seconds = 99, row = {host}")
    for path in (part / "leaderboards").glob("*.csv"):
        path.unlink()
    merge([*parts, part], tmp_path / "all")
    merge(parts, tmp_path / "without")
    assert log(tmp_path / "all", clocks=True) == log(tmp_path / "without", clocks=True)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE evaluation SET taskness = taskness + 1e-9", "what the log has of it in table evaluation"),
        ("UPDATE run SET row = json_set(row, '$.confirmed', 0.123)", "0.123"),
        ("UPDATE run SET status = 'crash'", "status crash and ok"),
        ("UPDATE run SET engine_detail = 'elsewhere'", "engine_detail elsewhere"),
        (
            "UPDATE confirmation SET taskness = zeroblob(length(taskness))",
            "the confirmed scores of a labeling",
        ),
    ],
)
def test_a_run_that_differs_is_refused_by_name(
    statement: str, named: str, parts: list[Path], part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(part, statement)
    shutil.rmtree(part / "leaderboards")
    errors = set()
    for folders in ([*parts, part], [part, *parts]):
        error = one_error(*called(capsys, "merge", *folders, "--out", tmp_path / "all")[::2])
        assert named in error
        assert str(part) in error
        assert str(parts[0]) in error
        errors.add(error)
    assert len(errors) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_a_refused_merge_leaves_the_folder_as_it_was(parts: list[Path], part: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    merge(parts[:2], out)
    before = content(out)
    change(part, "UPDATE evaluation SET taskness = taskness + 1e-9")
    with pytest.raises(UserError, match="differs between"):
        merge([part, *parts[2:]], out)
    assert content(out) == before


def test_a_leaderboard_that_was_edited_is_refused(part: Path, tmp_path: Path) -> None:
    board = next((part / "leaderboards").glob("*.csv"))
    board.write_text(board.read_text().replace(",ok,", ",timeout,", 1))
    with pytest.raises(UserError, match=r"run [0-9a-f]{12}-1 .* differs from the log: status timeout and ok"):
        merge([part], tmp_path / "all")


def test_a_library_that_differs_is_refused(parts: list[Path], part: Path, tmp_path: Path) -> None:
    path = next((part / "libraries").glob("*.npz"))
    library = TaskLibrary.load(path)
    library.filter(np.arange(len(library)) > 0).save(path)
    with pytest.raises(UserError, match=f"library .*{path.name} differs"):
        merge([parts[0], part], tmp_path / "all")


def test_columns_that_others_have_added_are_kept(part: Path, tmp_path: Path) -> None:
    board = next((part / "leaderboards").glob("*.csv"))
    header, *lines = board.read_text().splitlines()
    board.write_text("\n".join([f"{header},note", *(f"{line},seen" for line in lines)]) + "\n")
    merge([part], tmp_path / "all")
    assert {row.get("note") for row in rows_of(tmp_path / "all") if row["run"] in board.read_text()} == {"seen"}


def test_folders_are_only_read_and_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    interrupted(killed)
    assert (killed / "log.sqlite-wal").exists()
    before = content(killed)
    result = merge([killed], tmp_path / "all")
    assert (result.runs, result.unfinished, result.running) == (1, 1, 0)
    assert content(killed) == before
    assert merge([killed], tmp_path / "all") == result
    for out, more in ((tmp_path / "all", {"resume": True}), (whole, {})):
        tdbench.run("random", **{**CHEAP, "budget": 400}, out=out, **more)
    assert rows_of(tmp_path / "all") == rows_of(whole)
    again = merge([killed], tmp_path / "all")  # the copy that got further stays
    assert (again.runs, again.unfinished) == (1, 0)
    assert log(tmp_path / "all") == log(whole)
    change(killed, "UPDATE evaluation SET taskness = taskness + 1e-9 WHERE evaluation = 0")
    with pytest.raises(UserError, match=r"differs between .* in table evaluation"):
        merge([killed], tmp_path / "all")


def test_runs_that_are_running_are_merged_as_far_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(tmp_path / "part")
    wait_for_evaluations(tmp_path / "part", 30)
    process.send_signal(signal.SIGSTOP)
    try:
        code, printed, _ = called(capsys, "merge", tmp_path / "part", "--out", tmp_path / "all")
    finally:
        process.send_signal(signal.SIGCONT)
    assert code == 0
    assert "1 runs have not ended (1 of them are running now): merge again when they have" in printed
    process.communicate()
    assert merge([tmp_path / "part"], tmp_path / "all").unfinished == 0
    assert rows_of(tmp_path / "all") == rows_of(tmp_path / "part")
    assert log(tmp_path / "all", clocks=True) == log(tmp_path / "part", clocks=True)
    assert (tmp_path / "all" / "pictures").is_dir()


def test_a_folder_whose_runs_are_running_is_not_merged_into(tmp_path: Path) -> None:
    process = start(tmp_path / "all")
    wait_for_evaluations(tmp_path / "all", 30)
    process.send_signal(signal.SIGSTOP)
    try:
        shutil.copytree(tmp_path / "all", tmp_path / "part")
        with pytest.raises(UserError, match="another tdbench process is at this run"):
            merge([tmp_path / "part"], tmp_path / "all")
    finally:
        process.kill()
        process.communicate()


def test_shards_sealed_with_different_keys_are_refused(tmp_path: Path) -> None:
    keys = {"a": tmp_path / "a.key", "b": tmp_path / "b.key"}
    for key in keys.values():
        write_new_key(key)
    for shard, key in ((1, keys["a"]), (2, keys["a"]), (3, keys["b"]), (4, None)):
        out = tmp_path / f"part-{shard}"
        tdbench.bench("random", seeds=4, **CHEAP, shard=f"{shard}/4", sealed=key, out=out)
    assert merge([tmp_path / "part-1", tmp_path / "part-2"], tmp_path / "all").runs == 2
    for other in ("part-3", "part-4"):
        with pytest.raises(UserError, match="merge folders that were sealed with one key"):
            merge([tmp_path / "part-1", tmp_path / other], tmp_path / "none")
    with pytest.raises(UserError, match="merge folders that were sealed with one key"):
        merge([tmp_path / "part-3"], tmp_path / "all")
    assert not (tmp_path / "none").exists()


def test_spaces_of_one_name_and_other_images_stay_apart(tmp_path: Path) -> None:
    for i in (1, 2):
        images = np.random.default_rng(i).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
        (tmp_path / str(i)).mkdir()
        np.savez(tmp_path / str(i) / "mine.npz", images=images, labels=np.arange(60) % 6)
        tdbench.run("random", **CHEAP, data=tmp_path / str(i) / "mine.npz", out=tmp_path / f"part-{i}")
    assert merge([tmp_path / "part-1", tmp_path / "part-2"], tmp_path / "all").runs == 2
    assert len(board_files(tmp_path / "all")) == 2
    assert len(log(tmp_path / "all")["space"]) == 2
    assert len(list((tmp_path / "all" / "pictures").glob("*.png"))) == 2


def test_what_version_0_1_0_wrote_is_merged(tmp_path: Path) -> None:
    old = ROOT / "tests" / "fixtures" / "v0.1.0"
    before = content(old)
    result = merge([old], tmp_path / "all")
    assert (result.runs, result.unfinished) == (6, 3)
    assert content(old) == before
    assert log(tmp_path / "all", clocks=True) == log(old, clocks=True)
    assert rows_of(tmp_path / "all") == rows_of(old)


def test_more_than_one_engine_is_said_and_rows_keep_theirs(
    parts: list[Path], part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(part, "UPDATE run SET engine_detail = 'elsewhere', row = json_set(row, '$.engine_detail', 'elsewhere')")
    shutil.rmtree(part / "leaderboards")
    code, printed, _ = called(capsys, "merge", part, *parts[1:], "--out", tmp_path / "all")
    assert code == 0
    assert "2 engines trained, whose results differ in their last bits" in printed
    assert {row["engine_detail"] for row in rows_of(tmp_path / "all")} > {"elsewhere"}
    assert called(capsys, "leaderboard", "--out", tmp_path / "all")[0] == 0


def test_an_empty_shard_can_be_merged(parts: list[Path], tmp_path: Path) -> None:
    tdbench.bench("random", seeds=1, **CHEAP, shard="1/3", out=tmp_path / "empty")
    assert merge([tmp_path / "empty", parts[0]], tmp_path / "all").runs == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--out", "all"], "there is no log.sqlite in nothing"),
        (["all", "--out", "all"], "merge needs at least one folder"),
        (["part", "--out", "file"], "file is no folder"),
        (["part", "--out", "other"], "other holds something else than results"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "part").symlink_to(parts[0])
    code, _, error = called(capsys, "merge", *arguments)
    assert message in one_error(code, error)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "other", "part"}


@pytest.mark.parametrize("existing", [False, True], ids=["new folder", "folder with results"])
def test_a_merge_that_is_killed_leaves_nothing_half_written(
    existing: bool, parts: list[Path], merged: Path, tmp_path: Path
) -> None:
    out, hidden = tmp_path / "all", tmp_path / ".all.partial"
    draw = random.Random(0)
    for _ in range(10):
        shutil.rmtree(out, ignore_errors=True)
        if existing:
            merge(parts[:1], out)
        process = subprocess.Popen(
            command("merge", *parts, "--out", out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        while not hidden.exists() and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(draw.uniform(0, 0.06))
        process.kill()
        process.wait()
        assert set(tmp_path.iterdir()) <= {out, hidden}
        if existing:
            assert len(log(out)["run"]) in (4, 16)
            rows_of(out)
        elif out.exists():
            assert log(out) == log(merged)
        merge(parts, out)
        assert log(out, clocks=True) == log(merged, clocks=True)
        assert board_files(out) == board_files(merged)
        assert libraries(out) == libraries(merged)
        assert list(tmp_path.iterdir()) == [out]
