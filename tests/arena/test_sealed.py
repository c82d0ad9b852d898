"""`--sealed KEYFILE`, end to end: which replicates confirm, who may go on, and where the key must never be."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import CHEAP, CLOCKS, called, interrupted, one_error, run_options, table, tdbench

import tdbench as package
from tdbench import TaskSpace, UserError
from tdbench.space.seal import HEADER, Key
from tdbench.store.log import Store
from tdbench.store.result import Result

SECRETS = {"ours": bytes(range(32)), "theirs": b"another secret of many bytes"}
SEALS = {name: Key(secret).seal for name, secret in SECRETS.items()}
CONFIRMED = {"confirmed", "confirmed_se", "optimism", "confirmed_10", "confirmed_20", "confirmed_50"}

LOOKING = """
import os
from pathlib import Path
import numpy as np
from tdbench import hookimpl

class Looking:
    def __init__(self, problem):
        self.problem, self.rng = problem, np.random.default_rng(problem.seed)
        pid = os.getpid()
        while pid > 1:  # itself and all that started it
            for name in ("cmdline", "environ", "status"):
                try:
                    content = Path(f"/proc/{pid}/{name}").read_bytes()
                except OSError:
                    content = b""
                (Path(__file__).parent / "seen" / f"{pid}-{name}").write_bytes(content)
            pid = int(content.partition(b"PPid:")[2].split()[0]) if content else 0
    def ask(self, n):
        return self.rng.random((n, self.problem.dim))
    def tell(self, scores, loss):
        pass

@hookimpl
def register_searchers(register):
    register("looking", Looking)
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    for name, secret in SECRETS.items():
        (folder / name).write_text(f"{HEADER}\n{secret.hex()}\n")
    return {name: folder / name for name in SECRETS}


def run(out: Path, key: Path | None = None, **settings: object) -> Result:
    return package.run(**{"searcher": "random", "out": out, **CHEAP, "sealed": key, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Path]) -> dict[str, Result]:
    """The same run without a key and with either, in one folder; for reading only."""
    out = tmp_path_factory.mktemp("results")
    return {name: run(out, key, references="all") for name, key in (("none", None), *keys.items())}


def test_the_search_is_the_same_and_only_the_confirmation_differs(results: dict[str, Result]) -> None:
    plain, ours, theirs = (results[name].row for name in ("none", "ours", "theirs"))
    for a, b in ((plain, ours), (plain, theirs), (ours, theirs)):
        differing = {name for name, value in vars(a).items() if value != getattr(b, name)} - {*CLOCKS}
        assert differing == CONFIRMED | {"sealed", "run"}
    assert [row.sealed for row in (plain, ours, theirs)] == ["", SEALS["ours"], SEALS["theirs"]]
    np.testing.assert_array_equal(results["none"].labels, results["ours"].labels)


def test_reference_tasks_are_confirmed_on_the_replicates_of_the_key(results: dict[str, Result]) -> None:
    for name, secret in (("none", None), *SECRETS.items()):
        result = results[name]
        assert len(result.references) >= 5 + 8
        key = None if secret is None else Key(secret)
        expected = result.space.confirm(np.stack([r.task.labels for r in result.references]), 4, key=key)
        np.testing.assert_array_equal([r.values for r in result.references], expected)


def test_a_labeling_confirmed_by_hand_scores_as_a_sealed_run_does(
    results: dict[str, Result], keys: dict[str, Path]
) -> None:
    handed_in = results["none"].labels
    assert handed_in is not None
    space = TaskSpace("digits", n=10, ratio=4, steps=6, engine=results["none"].space.engine)
    assert space.confirm(handed_in, 4, key=keys["ours"]).mean() == results["ours"].row.confirmed


def test_one_key_gives_the_same_bits_anywhere_and_in_a_bench(
    results: dict[str, Result], keys: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy of the key"
    shutil.copy(keys["ours"], copy)
    (again,) = package.bench(["random"], seeds=1, out=tmp_path / "out", sealed=str(copy), **CHEAP)
    row = results["ours"].row
    assert {n: v for n, v in vars(again.row).items() if n not in CLOCKS} == {
        n: v for n, v in vars(row).items() if n not in CLOCKS
    }


def test_a_bench_reads_the_key_file_from_its_toml(tmp_path: Path, keys: dict[str, Path]) -> None:
    config = tmp_path / "bench.toml"
    words = {"searchers": "random", "seeds": 1, **CHEAP, "out": str(tmp_path / "out"), "sealed": str(keys["ours"])}
    config.write_text("".join(f"{word} = {json.dumps(value)}\n" for word, value in words.items()))
    assert tdbench("bench", config).returncode == 0
    (row,) = table(tmp_path / "out")
    assert row["sealed"] == SEALS["ours"]


def test_the_log_keeps_confirmations_of_different_seals_apart(results: dict[str, Result]) -> None:
    with Store(results["none"].log.parent, read_only=True) as store:
        tags = {tag for (tag,) in store._db.rows("SELECT DISTINCT engine FROM confirmation")}
    engine = next(tag for tag in tags if "sealed" not in tag)
    assert tags == {engine, *(f"{engine} sealed {seal}" for seal in SEALS.values())}


def test_a_board_without_seals_has_the_columns_and_the_log_the_record_it_had(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert "sealed" not in result.leaderboard.read_text()
    with Store(tmp_path, read_only=True) as store:
        (record,) = store.runs()
    assert record.row is not None
    assert "sealed" not in {*record.row, *record.settings.recorded()}


# --- rankings


def test_rows_of_different_seals_stand_in_tables_of_their_own(
    results: dict[str, Result], capsys: pytest.CaptureFixture[str]
) -> None:
    out = results["none"].log.parent
    code, printed, _ = called(capsys, "leaderboard", "--out", out, "--format", "json")
    tables = json.loads(printed)["tables"]
    assert code == 0
    assert [t["protocol"].get("sealed") for t in tables] == [None, *sorted(SEALS.values())]
    assert [len(t["standings"][0]["runs"]) for t in tables] == [1, 1, 1]
    assert len({t["references"][0]["mean"] for t in tables}) == 3
    printed = called(capsys, "leaderboard", "--out", out)[1]
    assert all(f"recommend searcher, sealed {seal}\n" in printed for seal in SEALS.values())
    lines = called(capsys, "leaderboard", "--out", out, "--format", "csv")[1].splitlines()
    assert len(lines) == 4
    assert "recommend,sealed,rank" in lines[0]


def test_comparing_different_seals_is_refused_without_force(
    results: dict[str, Result], keys: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run(tmp_path / "plain")
    sealed = run(tmp_path / "sealed", keys["ours"])
    code, _, error = called(capsys, "compare", plain.leaderboard, sealed.leaderboard)
    assert f"sealed differs: no in plain/leaderboards/{plain.space.name}, {SEALS['ours']} in" in one_error(code, error)
    code, printed, _ = called(capsys, "compare", "--force", plain.leaderboard, sealed.leaderboard)
    assert code == 0
    assert "compared by force: sealed differs" in printed


@pytest.mark.parametrize("form", ["ioh", "parquet"])
def test_exports_name_the_seal(
    results: dict[str, Result], tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = results["none"].log.parent
    assert called(capsys, "export", "--out", out, "--format", form, "--to", tmp_path / "to")[0] == 0
    if form == "ioh":
        text = "".join(path.read_text() for path in (tmp_path / "to").rglob("*.json"))
        assert all(seal in text for seal in SEALS.values())
        return
    parquet = pytest.importorskip("pyarrow.parquet")
    frame = parquet.read_table(tmp_path / "to" / "runs.parquet").to_pandas()
    assert sorted(frame.sealed) == ["", *sorted(SEALS.values())]


# --- who may go on


def test_a_sealed_run_that_was_killed_goes_on_to_the_bit_with_its_key_and_not_without(
    tmp_path: Path, keys: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "killed", "--sealed", str(keys["ours"]))
    resume = ["run", *run_options(tmp_path / "killed", "--resume")]
    code, _, error = called(capsys, *resume)
    assert f"needs --sealed with the key of seal {SEALS['ours']}, but no key came" in one_error(code, error)
    code, _, error = called(capsys, *resume, "--sealed", keys["theirs"])
    line = one_error(code, error)
    assert f"the key of seal {SEALS['ours']}, but the key that came has seal {SEALS['theirs']}" in line
    assert "(interrupted)" in line
    assert called(capsys, *resume, "--sealed", keys["ours"])[0] == 0
    assert called(capsys, "run", *run_options(tmp_path / "whole", "--sealed", str(keys["ours"])))[0] == 0
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


def test_a_run_without_a_seal_is_not_resumed_with_a_key(
    tmp_path: Path, keys: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path)
    code, _, error = called(capsys, "run", *run_options(tmp_path, "--resume"), "--sealed", keys["ours"])
    assert f"it is not sealed, but the key that came has seal {SEALS['ours']}" in one_error(code, error)


def test_the_result_of_a_finished_sealed_run_is_shown_with_its_key_only(tmp_path: Path, keys: dict[str, Path]) -> None:
    first = run(tmp_path, keys["ours"])
    with pytest.raises(UserError, match=f"\\(finished\\).*seal {SEALS['ours']}, but no key came"):
        run(tmp_path, resume=True)
    assert run(tmp_path, keys["ours"], resume=True).row == first.row
    assert run(tmp_path).row.sealed == ""  # without --resume it is a run of its own


def test_a_bench_that_was_finished_under_another_seal_does_not_stop_a_new_one(
    tmp_path: Path, keys: dict[str, Path]
) -> None:
    for key in (None, keys["ours"]):
        package.bench(["random"], seeds=2, out=tmp_path, sealed=key, **CHEAP)
    results = package.bench(["random"], seeds=3, out=tmp_path, sealed=keys["theirs"], resume=True, **CHEAP)
    assert {result.row.sealed for result in results} == {SEALS["theirs"]}


@pytest.mark.parametrize("sealed", ["nowhere/key", 5, True])
def test_a_key_that_cannot_be_read_stops_the_run_before_anything_is_written(tmp_path: Path, sealed: object) -> None:
    with pytest.raises(UserError, match="key"):
        package.run("random", out=tmp_path / "out", sealed=sealed, **CHEAP)
    assert not (tmp_path / "out").exists()


# --- where the key must never be


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks into /proc")
def test_the_key_is_in_no_file_no_output_and_in_the_command_line_or_environment_of_no_process(
    tmp_path: Path, keys: dict[str, Path]
) -> None:
    plugin, out, seen = tmp_path / "looking.py", tmp_path / "out", tmp_path / "seen"
    plugin.write_text(LOOKING)
    seen.mkdir()
    secret = SECRETS["ours"]
    hidden = (secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret).encode())
    options = run_options(out, "--plugin", str(plugin), "--sealed", str(keys["ours"]))
    printed = tdbench("--debug", "run", *options, "--searcher", "looking")
    assert printed.returncode == 0, printed.stderr
    assert SEALS["ours"] in printed.stdout
    assert tdbench("report", "--out", out).returncode == 0
    texts = {"stdout": printed.stdout.encode(), "stderr": printed.stderr.encode()}
    texts |= {str(path): path.read_bytes() for path in (*out.rglob("*"), *seen.iterdir()) if path.is_file()}
    assert sum(b"--sealed" in text for text in texts.values()) >= 1, "it has seen the command line of tdbench"
    assert any(name.endswith("-environ") and b"PATH=" in text for name, text in texts.items())
    assert [name for name, text in texts.items() if any(form in text for form in hidden)] == []
