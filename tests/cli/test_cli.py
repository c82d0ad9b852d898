"""The command line as a user meets it: what goes wrong is one clear line, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import CHEAP, MISBEHAVING, as_options, called, command, environment, one_error, tdbench

from tdbench import UserError
from tdbench.cli import COMMANDS
from tdbench.engine import cuda_available
from tdbench.space.sources import NAMED
from tdbench.testing import SearcherContract
from tdbench.testing.check_run import CheckRun

NAMES = SearcherContract.checks()
SEARCHERS = ("clustered-random", "cmaes", "random", "tpe", "twopointsde")
SIZES = ["n", "ratio", "budget", "batch", "replicates", "confirm", "steps", "memory-limit", "workers", "threads"]
TIMES = ["ask-timeout", "start-timeout"]
Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Fails:
    """`tdbench COMMAND ... --out OUT` ends with status 2, one line that this returns, and no OUT."""

    def call(*args: object) -> str:
        out = tmp_path / "out"
        code, printed, error = called(capsys, *args, "--out", out)
        line = one_error(code, error)
        assert printed == ""
        assert not out.exists()
        return line

    return call


def options(**changed: object) -> list[str]:
    return as_options({"searcher": "random", **CHEAP, **changed})


# run


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"searcher": "twopointde"}, "unknown searcher 'twopointde'; did you mean 'twopointsde'"),
        ({"searcher": "nevergrad:OnePlusTwo"}, "did you mean 'nevergrad:"),
        ({"searcher": "optuna"}, "needs a variant"),
        ({"n": 11}, "nearest valid n is 10 or 15"),
        ({"n": 5}, "smallest valid n is 10"),
        ({"n": 1000}, "the largest n at 1:4 is 905"),
        ({"n": 26, "ratio": 12}, "the largest ratio here is 9"),
        ({"n": 10**25}, "the largest n at 1:4 is 905"),
        ({"classes": "0,1,2,3,x"}, "no class 'x'"),
        ({"classes": "0,1"}, "expected ratio + 1 = 5 different classes"),
        ({"budget": 9}, "at least one batch of 10, got 9"),
        ({"confirm": 1}, "at least 2"),
        ({"steps": 4}, "at least 5"),
        ({"lr": "nan"}, "lr must be a positive number"),
        ({"lr": "inf"}, "lr must be a positive number"),
        ({"lr": 0}, "lr must be a positive number"),
        ({"lr": -1e-3}, "lr must be a positive number"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 2**32}, "seed must be from 0"),
        ({"space-seed": -1}, "space-seed must be from 0"),
        ({"engine": "natif"}, "unknown engine 'natif'; did you mean 'native'"),
        ({"device": "cudo"}, "unknown device 'cudo'; did you mean 'cuda'"),
        ({"noise": "frosen"}, "'fresh', 'frozen'"),
        ({"split": "even"}, "'stratified', 'random'"),
        ({"recommend": "worst"}, "recommend must be one of searcher, best, race:F, got 'worst'"),
        ({"recommend": "race"}, "recommend race:F needs an F between 0 and 1"),
        ({"recommend": "race:2"}, "needs an F between 0 and 1"),
        ({"recommend": "race:abc"}, "needs an F between 0 and 1"),
        ({"recommend": "race:0.001", "budget": 100}, "leaves 0 of 100 evaluations to the race, which needs at least 4"),
        ({"recommend": "race:0.95", "budget": 100}, "leaves 5 of 100 evaluations to the search"),
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"n": "ten"}, "'ten' is not a valid integer"),
        ({"n": 1.5}, "'1.5' is not a valid integer"),
        ({"ask-timeout": "nan"}, "ask-timeout must be a number above 0"),
        ({"ask-timeout": "inf"}, "ask-timeout must be at most"),
        ({"budget": 10**10}, "budget must be at most"),
        ({"batch": 10**10, "budget": 10**9}, "must"),
        ({"confirm": 10**17}, "confirm must be at most"),
        ({"replicates": 10**20}, "replicates must be at most"),
        ({"steps": 10**14}, "steps must be at most"),
        ({"threads": 10**20}, "threads must be at most"),
        ({"memory-limit": 10**20}, "memory-limit must be at most"),
        ({"bugdet": 100}, "No such option '--bugdet'"),
    ],
    ids=str,
)
def test_run_says_what_is_wrong_with_an_option(fails: Fails, changed: dict[str, object], said: str) -> None:
    assert said in fails("run", *options(**changed))


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", [*SIZES, *TIMES])
def test_run_takes_no_size_of_zero_or_less(fails: Fails, name: str, value: int) -> None:
    line = fails("run", *options(**{name: value}))
    assert line.startswith(f"error: {name} must be")
    assert str(value) in line


@pytest.mark.skipif(cuda_available(), reason="there is a CUDA device")
def test_cuda_without_a_device(fails: Fails) -> None:
    assert "--device cpu" in fails("run", *options(device="cuda"))


# data


IMAGES = np.zeros((4, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": IMAGES, "labels": np.arange(4)}, "no array 'images'"),
        ({"images": IMAGES}, "no array 'labels'"),
        ({"images": IMAGES.astype(float), "labels": np.arange(4)}, "expected images of type uint8, got float64"),
        ({"images": IMAGES, "labels": np.arange(3)}, "expected labels with shape (4,), but it had shape (3,)"),
        ({"images": np.array([{}, None], dtype=object), "labels": np.arange(2)}, "pickled objects"),
        ({"images": IMAGES, "labels": np.arange(4)}, "largest n at 1:1 is 2"),
    ],
)
def test_npz_without_the_right_arrays(fails: Fails, tmp_path: Path, arrays: dict[str, object], said: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    assert said in fails("run", *options(data=path, ratio=1))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "cannot be read as an .npz"),
        (b"PK\x03\x04 not a zip", "cannot be read as an .npz"),
    ],
)
def test_npz_that_is_none(fails: Fails, tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "mine.npz"
    if content is not None:
        path.write_bytes(content)
    assert said in fails("run", *options(data=path))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_missing_cifar_folder(fails: Fails, tmp_path: Path, name: str) -> None:
    line = fails("run", *options(data=name), "--data-dir", tmp_path / "nowhere")
    assert "--data-dir" in line
    assert "--download" in line
    assert not (tmp_path / "nowhere").exists()


def test_corrupt_cifar_folder(fails: Fails, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for file in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / file).write_bytes(b"\x80\x04 cut sho")
    assert "not found complete and undamaged" in fails("run", *options(data="cifar10"), "--data-dir", folder.parent)


def test_download_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    data, out = tmp_path / "data", tmp_path / "out"
    done = tdbench("run", *options(data="cifar10"), "--download", "--data-dir", data, "--out", out)
    assert "cifar10 could not be downloaded" in one_error(done.returncode, done.stderr)
    assert not out.exists()


# logs and disks


def write_log(folder: Path, content: bytes | int) -> None:
    """A log of those bytes, or an empty one of that version."""
    folder.mkdir()
    if isinstance(content, bytes):
        (folder / "log.sqlite").write_bytes(content)
        return
    with sqlite3.connect(folder / "log.sqlite") as db:
        db.execute("CREATE TABLE meta (version INTEGER NOT NULL)")
        db.execute("INSERT INTO meta VALUES (?)", (content,))
    db.close()


@pytest.mark.parametrize("name", ["run", "status"])
@pytest.mark.parametrize(
    ("content", "said"), [(b"\xff garbage \x00" * 400, "not a database"), (999, "another version of tdbench")]
)
def test_log_that_is_not_ours(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: bytes | int, said: str
) -> None:
    write_log(tmp_path / "log", content)
    before = (tmp_path / "log" / "log.sqlite").read_bytes()
    args = options() if name == "run" else []
    code, _, error = called(capsys, name, *args, "--out", tmp_path / "log")
    assert said in one_error(code, error)
    assert (tmp_path / "log" / "log.sqlite").read_bytes() == before


def test_status_where_nothing_was_run(fails: Fails) -> None:
    assert "there is no log.sqlite" in fails("status")


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_out_that_cannot_be_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("precious")
    code, _, error = called(capsys, "run", *options(), "--out", tmp_path / "file" / below)
    assert "cannot be written" in one_error(code, error)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A small disk of its own, with those mount options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("no right to mount a small disk here")
        return folder

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    yield mount
    subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


def test_full_disk(capsys: pytest.CaptureFixture[str], disk: Callable[[str], Path]) -> None:
    code, _, error = called(capsys, "run", *options(), "--out", disk("size=64k"))
    assert "cannot be used" in one_error(code, error)


@pytest.mark.parametrize("size", ["200k", "250k"])
def test_disk_that_fills_up_in_mid_run(disk: Callable[[str], Path], size: str) -> None:
    budget = 20 if size == "250k" else 100_000  # the one ends at the picture, the other in the evaluations
    done = tdbench("run", *options(budget=budget, references="all"), "--out", disk(f"size={size}"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "full" in done.stderr or "No space left" in done.stderr


def test_read_only_disk(capsys: pytest.CaptureFixture[str], disk: Callable[[str], Path]) -> None:
    code, _, error = called(capsys, "run", *options(), "--out", disk("size=4m,ro") / "out")
    assert "Read-only" in one_error(code, error)


# plugins


def test_two_plugins_under_one_name(fails: Fails, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    shutil.copy(MISBEHAVING, other)
    line = fails("run", *options(searcher="slow"), "--plugin", MISBEHAVING, "--plugin", other)
    assert "claimed by two plugins" in line
    assert str(other) in line


def test_a_plugin_that_fails_to_import_is_listed_and_harms_no_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_library\n")
    code, listed, error = called(capsys, "searchers", "--plugin", broken, "--plugin", MISBEHAVING)
    assert (code, error) == (0, "")
    assert "failed to load: plugin broken: ModuleNotFoundError: No module named 'no_such_library'" in listed
    assert "same-vector" in listed
    assert all(name in listed for name in SEARCHERS)


def test_a_plugin_named_on_the_command_line_must_load(fails: Fails, tmp_path: Path) -> None:
    line = fails("run", *options(searcher="mine"), "--plugin", tmp_path / "mine.py")
    assert "plugin mine cannot be loaded" in line


# bench


def config(folder: Path, **changed: object) -> Path:
    words = {"searchers": '["random"]', "seeds": 1, **CHEAP, **changed}
    path = folder / "bench.toml"
    path.write_text("".join(f"{word} = {value}\n" for word, value in words.items()))
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"serchers": '["random"]'}, "unknown key 'serchers'; did you mean 'searchers'"),
        ({"searcher": '"random"'}, "did you mean 'searchers'"),
        ({"run": "{n = 5}"}, "unknown key 'run'"),
        ({"n": '"fifty"'}, "n must be a whole number"),
        ({"n": "2024-01-01"}, "n must be a whole number"),
        ({"ratio": "{a = 1}"}, "ratio must be a whole number"),
        ({"budget": "60.5"}, "budget must be a whole number, got 60.5"),
        ({"budget": "[60, 70]"}, "budget must be a whole number, got [60, 70]"),
        ({"replicates": "true"}, "replicates must be a whole number, got True"),
        ({"seeds": "[0, 0.5]"}, "seeds must be a whole number"),
        ({"seeds": "0"}, "at least one searcher, one seed"),
        ({"space-seeds": '"0"'}, "space-seeds must be a whole number"),
        ({"space-seeds": "[]"}, "at least one searcher, one seed"),
        ({"lr": '"small"'}, "lr must be a number, got 'small'"),
        ({"lr": "nan"}, "lr must be a positive number"),
        ({"resume": '"yes"'}, "resume must be true or false, got 'yes'"),
        ({"classes": "[0, 1, 2, 3, 4]"}, "classes must be a string"),
        ({"searchers": "[1]"}, "searchers must be a string"),
        ({"searchers": '["rondom"]'}, "did you mean 'random'"),
        ({"searchers": "[]"}, "bench needs --searchers"),
        ({"data": "5"}, "data must be a string"),
        ({"engine": "5"}, "engine must be a string"),
        ({"noise": '"loud"'}, "noise must be one of fresh, frozen"),
        ({"plugins": "[5]"}, "plugins must be a string"),
        ({"n": "= 5"}, "is not valid TOML"),
    ],
    ids=str,
)
def test_bench_checks_its_config(fails: Fails, tmp_path: Path, changed: dict[str, object], said: str) -> None:
    line = fails("bench", config(tmp_path, **changed))
    assert said in line


def test_bench_takes_one_value_for_a_list_in_its_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = config(tmp_path, searchers='"random, same-vector"', plugins=f'"{MISBEHAVING}"', n=10)
    path.write_text(path.read_text() + "space-seeds = 3\n")
    code, printed, _ = called(capsys, "bench", path, "--out", tmp_path / "out")
    assert code == 0
    assert "2 runs ended well" in printed


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["missing.toml"], "cannot be read"),
        ([], "bench needs --searchers"),
        (["--searchers", ","], "bench needs --searchers"),
        (["--searchers", "random", "--n", "10,x"], "whole numbers separated by commas"),
        (["--searchers", "random", "--seeds", "0"], "one seed"),
        (["--searchers", "random", "--seeds", "-3"], "one seed"),
        (["--searchers", "random,rondom"], "did you mean 'random'"),
        (["--searchers", "random", "--n", "10,11"], "nearest valid n is 10 or 15"),
    ],
    ids=str,
)
def test_bench_says_what_is_missing(fails: Fails, args: list[str], said: str) -> None:
    assert said in fails("bench", *args)


# the frame


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, printed, error = called(capsys, name, "--help")
    assert (code, error) == (0, "")
    assert printed.startswith(f"Usage: tdbench {name}")


@pytest.mark.parametrize("args", [["--help"], ["-h"], []])
def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    code, printed, error = called(capsys, *args)
    assert (code, error) == (0, "")
    assert all(f"  {name} " in printed for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "--version")[:2] == (0, "tdbench, version 0.1.0\n")


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = called(capsys, "benhc")
    assert "did you mean 'bench'" in one_error(code, error)


def test_doctor_names_versions_engines_and_sources(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, printed, _ = called(capsys, "doctor", "--data-dir", tmp_path)
    assert code == 0
    assert all(word in printed for word in ("torch ", "engine native", "engine batched", "engine reference"))
    assert all(f"data {name}" in printed for name in NAMED)


def test_searchers_lists_the_five_and_the_families(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = called(capsys, "searchers")
    assert code == 0
    names = [line.split()[0] for line in printed.splitlines() if line]
    assert {*SEARCHERS, "nevergrad:NAME", "optuna:NAME"} <= set(names)


def test_an_error_is_one_line_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = tdbench("run", *options(n=11), "--out", tmp_path / "out")
    assert "nearest valid n is 10 or 15" in one_error(done.returncode, done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = tdbench("--debug", "run", *options(n=11), "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "UserError: n must be divisible" in done.stderr


def test_output_that_nobody_reads_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command("doctor"), stdout=writer, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    finally:
        os.close(writer)
    assert done.stderr == ""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError("Unable to allocate 3 PiB")])
def test_a_machine_that_ends_is_one_line(fails: Fails, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tdbench.api.run", full)
    assert str(error.args[-1]) in fails("run", *options())


# check


def test_check_prints_a_verdict_for_each_check_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, error = called(capsys, "check", "random")
    *verdicts, summary = printed.splitlines()
    assert (code, error) == (0, "")
    assert [line.split()[:2] for line in verdicts] == [["ok", name] for name in NAMES]
    assert summary == f"random holds the contract: all {len(NAMES)} checks passed"


def test_check_takes_a_variant_of_a_family(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = called(capsys, "check", "nevergrad:DiscreteOnePlusOne")
    assert code == 0
    assert "nevergrad:DiscreteOnePlusOne holds the contract" in printed


def test_check_says_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = called(capsys, "check", "not-reproducible", "--plugin", MISBEHAVING)
    assert code == 1
    verdicts = {line.split()[1]: line for line in printed.splitlines()[:-1]}
    assert verdicts["any_ask_size_works"].startswith("ok ")
    assert verdicts["same_seed_asks_the_same"].startswith("FAILED ")
    assert "with the same seed" in verdicts["same_seed_asks_the_same"]
    assert "not-reproducible does not hold the contract" in printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rondom"], "did you mean 'random'"),
        (["optuna"], "needs a variant"),
        (["random", "--timeout", "0"], "timeout must be"),
        (["random", "--timeout", "nan"], "timeout must be"),
        (["random", "--timeout", "inf"], "timeout must be"),
    ],
    ids=str,
)
def test_check_of_what_cannot_be_checked(capsys: pytest.CaptureFixture[str], args: list[str], said: str) -> None:
    code, printed, error = called(capsys, "check", *args)
    assert said in one_error(code, error)
    assert printed == ""


PLUGIN = """
import os, sys, time
import numpy as np
from tdbench import hookimpl

class Bad:
    def __init__(self, problem):
        self.problem, self.rng = problem, np.random.default_rng(problem.seed)
        if problem.dim == 500:
            {at_large}
    def ask(self, n):
        {at_ask}
        return self.rng.random((n, self.problem.dim))
    def tell(self, scores, loss):
        pass

@hookimpl
def register_searchers(register):
    register("bad", Bad, baseline=True)
"""


def bad_plugin(folder: Path, at_large: str = "pass", at_ask: str = "pass") -> str:
    path = folder / "bad.py"
    path.write_text(PLUGIN.format(at_large=at_large, at_ask=at_ask))
    return str(path)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os._exit(3)", "its process ended with exit code 3"),
        ("os.kill(os.getpid(), 11)", "its process ended with signal SIGSEGV"),
        ("sys.exit('I give up')", "its process ended with exit code 1: I give up"),
        ("time.sleep(3600)", "it did not end within 10 s"),
    ],
)
def test_check_goes_on_after_a_searcher_that_hangs_or_ends_its_process(tmp_path: Path, deed: str, said: str) -> None:
    timeout = 10 if "sleep" in deed else 120  # enough for the other checks on a busy machine
    results = list(CheckRun("bad", [bad_plugin(tmp_path, at_large=deed)], timeout=timeout))
    assert [result.name for result in results] == list(NAMES)
    assert {r.name: r.message for r in results if not r.passed} == {"large_and_small_dimensions_work": said}


def test_check_gives_up_on_a_searcher_that_hangs_from_the_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plugin = bad_plugin(tmp_path, at_ask="time.sleep(3600)")
    code, printed, _ = called(capsys, "check", "bad", "--plugin", plugin, "--timeout", "0.5")
    assert code == 1
    assert "did not end within 0.5 s" in printed.splitlines()[0]
    assert printed.splitlines()[-1] == "bad does not hold the contract: 1 of 16 checks failed, 15 were not run"


def test_check_survives_a_plugin_that_ends_the_interpreter_when_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deadly.py"
    path.write_text("import os; os._exit(7)")
    with pytest.raises(UserError, match="while it was loaded, the process ended with exit code 7"):
        list(CheckRun("deadly", [str(path)]))


def test_checks_noise_does_not_reach_the_verdict(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plugin = bad_plugin(tmp_path, at_ask="print('noise', flush=True); raise ValueError('two\\nlines \\x1b[31mred')")
    code, printed, error = called(capsys, "check", "bad", "--plugin", plugin)
    assert (code, error) == (1, "")
    lines = printed.splitlines()
    assert sum(line.startswith("FAILED") for line in lines) == len(NAMES)
    assert all(line.startswith(("FAILED", "        ")) for line in lines[:-1])
    assert "noise" not in lines
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n = 10\nbudget = " + "6" * 5000, "budget has too many digits"),
        ("seeds = [1, " + "6" * 5000 + "]", "seeds has too many digits"),
        ("budget = 0x" + "f" * 5000, "budget is too large"),
        (f"budget = {2**63}", "budget is too large"),
        ("[run]\nn = 5", "unknown key 'run'"),
        ("n.x.y = 5", "n must be a whole number or a list of them, got {'x': {'y': 5}}"),
        ("n = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("data = [" + "'a', " * 500 + "5]", "data must be a string"),
        ("n = [[10]]", "n must be a whole number"),
    ],
    ids=lambda text: text[:20],
)
def test_no_toml_file_is_a_traceback_or_a_long_line(fails: Fails, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(f"searchers = ['random']\n{text}\n")
    line = fails("bench", path)
    assert str(path) in line and said in line
    assert len(line) < 300 + len(str(path))


def test_a_toml_file_with_a_byte_order_mark_is_read(fails: Fails, tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_bytes(b"\xef\xbb\xbfserchers = 5\n")
    assert "unknown key 'serchers'" in fails("bench", path)
