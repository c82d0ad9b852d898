"""A results folder that was not left as it was made: a log deleted, an engine changed, a cell damaged."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers import CHEAP, MISBEHAVING, as_options, called, interrupted, one_error, run_options

import tdbench
from tdbench import TaskSpace, UserError
from tdbench.settings import RunSettings
from tdbench.store.log import FILE_NAME, Store
from tdbench.store.rows import read_rows, to_csv

RUN = ["run", *as_options({**CHEAP, "searcher": "random"})]


def run(out: Path, **settings: object) -> tdbench.campaign.Result:  # type: ignore[name-defined]
    return tdbench.run(**{"searcher": "random", "out": out, **CHEAP, **settings})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one ended run."""
    folder = tmp_path_factory.mktemp("made") / "out"
    run(folder)
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was killed."""
    folder = tmp_path_factory.mktemp("killed")
    interrupted(folder)
    return folder


def change(out: Path, *statement: object) -> None:
    with sqlite3.connect(out / FILE_NAME) as db:
        db.execute(*statement)
    db.close()


def last_error(code: int, error: str) -> str:
    """The error of a command that had shown its progress bar already."""
    return one_error(code, error.splitlines()[-1])


def board_of(out: Path) -> Path:
    (path,) = (out / "leaderboards").glob("*.csv")
    return path


def test_a_row_without_its_log_is_kept_where_the_new_run_says_the_same(out: Path, capsys) -> None:
    before = board_of(out).read_bytes()
    (out / FILE_NAME).unlink()
    code, _, error = called(capsys, *RUN, "--out", out)
    assert (code, "replaced" in error) == (0, False)
    assert board_of(out).read_bytes() == before


def test_a_row_without_its_log_is_replaced_where_the_new_run_says_another_thing(out: Path, capsys) -> None:
    (old,) = read_rows(board_of(out))
    board_of(out).write_text(board_of(out).read_text().replace(repr(old.confirmed), "0.99"))
    (out / FILE_NAME).unlink()
    code, _, error = called(capsys, *RUN, "--out", out)
    assert code == 0
    (line,) = [line for line in error.splitlines() if "replaced" in line]
    assert f"1 row(s) of {board_of(out)} differed" in line and old.run in line
    (new,) = read_rows(board_of(out))
    assert new.confirmed == old.confirmed


def test_resume_with_another_engine_or_device_says_so_and_begins_nothing(killed: Path, tmp_path: Path, capsys) -> None:
    folder = shutil.copytree(killed, tmp_path / "killed")
    for words in (["--engine", "reference"], ["--device", "cpu"]):
        code, _, error = called(capsys, "run", *run_options(folder, "--resume", *words))
        line = one_error(code, error)
        assert "the run of random with seed 0 was begun with --engine auto --device auto" in line
    bench = [word for word in run_options(folder, "--resume") if word != "--searcher"]
    bench.remove("random")
    code, _, error = called(capsys, "bench", "--searchers", "random", "--seeds", 1, "--engine", "batched", *bench)
    assert "was begun with --engine auto" in one_error(code, error)
    with Store(folder, read_only=True) as store:
        assert len(store.runs()) == 1


def test_resume_with_another_engine_of_an_ended_run_says_so_too(out: Path) -> None:
    with pytest.raises(UserError, match="begun with engine auto"):
        run(out, engine="reference", resume=True)
    assert run(out, engine="reference").row.engine == "reference"  # beside it, where that is what was meant
    assert len(read_rows(board_of(out))) == 2


def _begun_with_whole_lr(folder: Path) -> None:
    """What version 0.1.0 kept of `tdbench.run(lr=1)`: 1 in the settings, and in what the key is made of."""
    settings = RunSettings(**{**CHEAP, "searcher": "random", "lr": 1})
    _, key = settings.keys(TaskSpace(n=10, steps=6, lr=1))
    change(folder, "UPDATE run SET settings = replace(settings, '\"lr\": 1.0', '\"lr\": 1')")
    for table in ("run", "ask", "evaluation", "recommendation"):
        column = "id" if table == "run" else "run"
        change(folder, f"UPDATE {table} SET {column} = ?", (f"{key}-1",))
    change(folder, "UPDATE run SET key = ?", (key,))


def test_a_learning_rate_is_one_however_it_is_written(tmp_path: Path) -> None:
    first = run(tmp_path, lr=1)
    for lr in (1.0, np.float64(1), np.int64(1)):
        assert run(tmp_path, lr=lr, resume=True).row == first.row
    settings = [RunSettings(lr=lr) for lr in (1, 1.0)]
    assert settings[0].key(first.space) == settings[1].key(first.space)


def test_a_run_that_was_recorded_with_lr_1_is_found_and_goes_on(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", lr=1.0)
    _begun_with_whole_lr(tmp_path / "whole")
    for lr in (1, 1.0):
        assert run(tmp_path / "whole", lr=lr).was_finished
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    change(tmp_path / "cut", "UPDATE run SET status = 'running', row = NULL")
    change(tmp_path / "cut", "DELETE FROM recommendation")
    change(tmp_path / "cut", "DELETE FROM ask WHERE first >= 30")
    change(tmp_path / "cut", "DELETE FROM evaluation WHERE evaluation >= 30")
    resumed = run(tmp_path / "cut", lr=1.0, resume=True)
    assert resumed.row.run != whole.row.run  # the run that there was
    np.testing.assert_array_equal(resumed.told, whole.told)
    again = run(tmp_path / "cut", lr=1, again=True)
    assert again.row.run == resumed.row.run.replace("-1", "-2")


def test_a_leaderboard_in_the_way_is_an_error_before_anything_is_trained(tmp_path: Path, capsys) -> None:
    path = tmp_path / "leaderboards" / f"{TaskSpace(n=10, steps=6).name}.csv"
    path.parent.mkdir()
    for content in (b"my,notes\n1,2\n", b"\xff\xfe\0", to_csv([]).encode() + b"half a row\n"):
        path.write_bytes(content)
        code, _, error = called(capsys, *RUN, "--out", tmp_path)
        assert path.name in one_error(code, error)
        assert path.read_bytes() == content
        assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(["leaderboards", path.name])


@pytest.mark.parametrize(("length", "file"), [(251, "the leaderboard of n"), (150, "the picture of searcher s")])
def test_a_name_too_long_for_a_file_is_an_error_before_anything_is_trained(
    tmp_path: Path, capsys, length: int, file: str
) -> None:
    searcher, source = "s" * 80, "n" * length
    plugin = tmp_path / "plugin.py"
    plugin.write_text(Path(MISBEHAVING).read_text().replace('"same-vector"', repr(searcher)))
    images = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / f"{source}.npz", images=images, labels=np.arange(40) % 5)
    options = [*as_options({**CHEAP, "searcher": searcher if length < 200 else "random", "out": tmp_path / "out"})]
    code, _, error = called(capsys, "run", *options, "--plugin", plugin, "--data", tmp_path / f"{source}.npz")
    line = one_error(code, error)
    assert f"the file name of {file}" in line and "takes at most" in line and source in line
    assert not (tmp_path / "out").exists()


DAMAGE = {
    "settings": ("UPDATE run SET settings = substr(settings, 1, 40)", "table run", "settings cannot be parsed"),
    "settings type": ("UPDATE run SET settings = '[1]'", "table run", "settings must be a JSON object"),
    "huge number": (
        f"UPDATE run SET settings = replace(settings, '\"budget\": 60', '\"budget\": {'6' * 5000}')",
        "table run",
        "settings cannot be parsed",
    ),
    "wrong value": (
        'UPDATE run SET settings = replace(settings, \'"budget": 60\', \'"budget": "many"\')',
        "table run",
        "budget must be a whole number",
    ),
    "deep": ("UPDATE run SET settings = '" + "[" * 100_000 + "'", "table run", "settings cannot be parsed"),
    "row": ("UPDATE run SET row = '{\"told\": '", "table run", "row cannot be parsed"),
    "number": ("UPDATE run SET seconds = 'long'", "table run", "seconds must be of type float, got 'long'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_one_clear_line_in_every_command_that_reads_it(out: Path, capsys, damage: str) -> None:
    statement, *said = DAMAGE[damage]
    change(out, statement)
    for command in (
        ["status", "--out", out],
        ["report", "--out", out],
        ["export", "--out", out, "--format", "ioh", "--to", out / "ioh"],
        [*RUN, "--resume", "--out", out],
    ):
        line = one_error(*called(capsys, *command)[::2])
        assert all(words in line for words in (str(out / FILE_NAME), board_of(out) and "-1:", *said)), command
        assert len(line) < 700


@pytest.mark.parametrize(
    ("statement", "command", "said"),
    [
        ("UPDATE evaluation SET labels = x'00' WHERE evaluation = 7", "export", "labels of 10 images must be 2 bytes"),
        ("UPDATE evaluation SET taskness = 'high' WHERE evaluation = 7", "report", "could not convert"),
        ("DELETE FROM evaluation WHERE evaluation = 7", "report", "evaluations are missing"),
        ("UPDATE recommendation SET labels = 'text'", "report", "labels of 10 images must be 2 bytes"),
        ("UPDATE run SET row = '{\"told\": 1}'", "export", "there is no column 'space'"),
        ("UPDATE run SET row = replace(row, '\"n\": 10', '\"n\": 10.5')", "export", "column 'n' must be of type int"),
        ("UPDATE run SET row = NULL", "run", "it has no leaderboard row"),
        ("UPDATE space SET classes = '{'", "leaderboard", "classes cannot be parsed"),
        ("UPDATE space SET pixels = x'0000'", "leaderboard", "reshape"),
        ("UPDATE confirmation SET taskness = x'00'", "leaderboard", "buffer size"),
    ],
)
def test_a_damaged_cell_is_one_clear_line(out: Path, capsys, statement: str, command: str, said: str) -> None:
    change(out, statement)
    words = {
        "export": ["export", "--out", out, "--format", "ioh", "--to", out / "ioh"],
        "run": [*RUN, "--resume", "--out", out],
    }.get(command, [command, "--out", out])
    line = last_error(*called(capsys, *words)[::2])
    assert f"{out / FILE_NAME} is damaged: table " in line and said in line


def test_a_damaged_ask_is_one_clear_line_on_resume(killed: Path, tmp_path: Path, capsys) -> None:
    folder = shutil.copytree(killed, tmp_path / "killed")
    change(folder, "UPDATE ask SET n = 3 WHERE first = 10")
    line = last_error(*called(capsys, "run", *run_options(folder, "--resume"))[::2])
    assert "table ask, run " in line and "do not belong together" in line


def test_statements_for_a_run_do_not_grow_with_the_folder(tmp_path: Path) -> None:
    """A run of a bench costs as many statements beside one run as beside thirty."""
    counts = []
    for others in (1, 30):
        folder = tmp_path / str(others)
        tdbench.bench("random", seeds=others, **CHEAP, references="all", out=folder)
        seen: list[str] = []
        connect = sqlite3.connect

        def counting(*args: object, seen: list[str] = seen, connect=connect, **kwargs: object) -> sqlite3.Connection:
            connection = connect(*args, **kwargs)
            connection.set_trace_callback(seen.append)
            return connection

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tdbench.base.database.sqlite3.connect", counting)
            run(folder, seed=1000, references="all")
        counts.append(len([text for text in seen if "evaluation" not in text]))
    assert counts[0] == counts[1] > 10
