"""Bad command lines: each ends with status 2 and one line on standard error, and writes nothing."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest
from helpers import CHEAP, as_options, command, environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdbench.cli import COMMANDS, main, tdbench
from tdbench.cli.printing import FORMATS, show

QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
DIGITS = "9" * 5000
WORDS = ("x", "", "-", "\x1b[2J\x07", "\udcff", "\u00e9\u4efb\u52a1", "a" * 5000, DIGITS, "a\nb", "1,2,x", "nan")
NO_NUMBER = ("x", "", "1,,2", "1.5.2", "\x1b[31m1", "\u00e9", "a" * 5000, "0x10", "1e")
UNKNOWN = (["--bugdet", "1"], ["--\x1b[31m"], ["--\u00e9"], ["-q"], ["--" + "x" * 5000], ["--out"])

# Values that an option takes and `run` and `bench` do not.
OUT_OF_RANGE: dict[str, Sequence[str]] = {
    "--n": ("11", "-5", "0", "1000", "1" + "0" * 30, DIGITS),
    "--ratio": ("0", "-1", "12", "1" + "0" * 30, DIGITS),
    "--budget": ("0", "9", "-1", "1" + "0" * 30, DIGITS),
    "--batch": ("0", "-1", "61", DIGITS),
    "--replicates": ("0", "-1", "1" + "0" * 30, DIGITS),
    "--confirm": ("0", "1", "-1", "1" + "0" * 30),
    "--steps": ("0", "4", "-1", "1" + "0" * 30),
    "--lr": ("0", "-1", "nan", "inf", "1e400"),
    "--recommend": ("worst", "race", "race:2", "race:x", "race:" + DIGITS, "\x1b[2J"),
    "--classes": ("0,1", "0,1,2,3,x", "0,0,0,0,0", "a" * 5000, "\x1b[2J"),
    "--engine": ("natif", "\x1b[2J", "a" * 5000),
    "--device": ("cudo", "\udcff"),
    "--threads": ("0", "-1", DIGITS),
    "--workers": ("0", "-1", "1" + "0" * 30),
    "--memory-limit": ("0", "-1", "1" + "0" * 30),
    "--ask-timeout": ("0", "-1", "nan", "inf", "1e400"),
    "--start-timeout": ("0", "-1", "nan", "inf"),
    "--data": ("digit", "x.npz", "\x1b[2J.npz", "a" * 5000 + ".npz", "\udcff", "/"),
    "--plugin": ("x.py", "no_such_module", "\x1b[2J", "a" * 5000, "/"),
    "--out": ("a" * 5000, "\x1b[2J"),
}
OF_ONE: dict[str, dict[str, Sequence[str]]] = {
    "run": {
        "--searcher": ("rondom", "optuna", "random:x", "random+pca:2", "\x1b[2J", "\udcff", "a" * 5000),
        "--reduction": ("pca", "pca:0", "pca:11", "pca:" + DIGITS, "x", "\x1b[2J"),
        "--seed": ("-1", "4294967296", DIGITS),
        "--space-seed": ("-1", "4294967296", DIGITS),
        "--threshold": ("x", "2", "nan", "\x1b[2J", DIGITS),
    },
    "bench": {
        "--searchers": ("rondom", ",", "random,\x1b[2J", "random,random+pca:2", "a" * 5000),
        "--reductions": ("x", ",", "pca:0", "identity,pca:11"),
        "--seeds": ("0", "-1", "10000000", DIGITS),
        "--space-seeds": ("-1", "0,4294967296", DIGITS),
    },
}
MISSING = ("missing", "\x1b[2J", "a" * 5000)
# What the other commands find nothing in.
NOTHING_THERE = (
    *(["leaderboard", word] for word in ("missing.csv", "\x1b[2J", "a" * 5000, "\udcff.csv", "/")),
    *([name, "--out", word] for name in ("status", "leaderboard", "report") for word in MISSING),
    *(["compare", word, word] for word in MISSING),
    *(["export", "--format", "ioh", "--to", "to", "--out", word] for word in MISSING),
    *(["check", word] for word in ("rondom", "\x1b[2J", "a" * 5000, "")),
    *(["new-searcher", word] for word in ("", "\x1b[2J", "1x", "a b", "a+b")),
    *(["study", word] for word in ("serch", "\x1b[2J", "a" * 5000, "")),
    *(["tasks", "show", word] for word in (*MISSING, "missing.npz", "\x1b[2J.npz", f"{'a' * 5000}.npz", "/")),
    *(["tasks", word] for word in ("shw", "\x1b[2J", "a" * 5000, "")),
    *([word] for word in ("rum", "\x1b[2J", "a" * 5000, "\u00e9", "\udcff", DIGITS)),
)  # fmt: skip


@st.composite
def unreadable(draw: st.DrawFn) -> list[str]:
    """A command with a value that one of its options cannot read, or an option that it does not have."""
    name = draw(st.sampled_from(COMMANDS))
    if draw(st.booleans()):
        return [name, *draw(st.sampled_from(UNKNOWN))]
    found = tdbench.get_command(click.Context(tdbench), name)
    readable = (click.types.IntParamType, click.types.FloatParamType, click.Choice)
    options = [p for p in found.params if isinstance(p, click.Option) and isinstance(p.type, readable)]
    if not options:
        return [name, *draw(st.sampled_from(UNKNOWN))]
    option = draw(st.sampled_from(options))
    return [name, option.opts[0], draw(st.sampled_from(NO_NUMBER))]


@st.composite
def out_of_range(draw: st.DrawFn) -> list[str]:
    """`run` or `bench` with one or two values out of range."""
    name = draw(st.sampled_from(("run", "bench")))
    pool = {**OUT_OF_RANGE, **OF_ONE[name]}
    chosen = draw(st.lists(st.sampled_from(sorted(pool)), min_size=1, max_size=2, unique=True))
    given_ = {"--searcher" if name == "run" else "--searchers": "random"}
    given_ |= dict(zip(*[iter(as_options(CHEAP))] * 2, strict=True))
    given_ |= {option: draw(st.sampled_from(pool[option])) for option in chosen}
    return [name, *(part for pair in given_.items() for part in pair)]


@st.composite
def configs(draw: st.DrawFn) -> str:
    """A config file for `bench` with a word or a value that it does not take."""
    word = draw(
        st.sampled_from(("budget", "n", "searchers", "lr", "resume", "data", "bugdet", "'\u00e9'", '"\\u001b[2J"'))
    )
    value = draw(
        st.sampled_from(
            (
                "'x\\u001b'",
                '"\\u001b[2J"',
                "-1",
                "true",
                "[[1]]",
                "{a = 1}",
                "1e400",
                "nan",
                "[",
                "''",
                "1979-05-27",
                "9" * 400,
            )
        )
    )
    return f"seeds = 0\n{word} = {value}\n"


bad_lines = st.one_of(unreadable(), out_of_range(), st.sampled_from(NOTHING_THERE))


def refuse(arguments: list[str]) -> None:
    """The line ends with status 2, one clean line, and nothing new in the working folder."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main(arguments)
    err.flush()
    out.flush()
    error = err.buffer.getvalue().decode()
    assert ended.value.code == 2, error
    refused(error)
    assert out.buffer.getvalue() == b""
    assert list(Path.cwd().iterdir()) in ([], [Path.cwd() / "bench.toml"])


def refused(error: str) -> None:
    line, rest = error[:-1], error[-1:]
    assert rest == "\n"
    assert line.startswith("error: ")
    assert line.isprintable()
    assert "Traceback" not in line
    assert len(line) < 1100


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@settings(max_examples=250, **QUIET)
@given(bad_lines)
def test_a_bad_command_line_is_one_line_and_leaves_nothing_behind(arguments: list[str]) -> None:
    refuse(arguments)


@settings(max_examples=50, **QUIET)
@given(configs())
def test_a_bad_config_file_is_one_line_and_leaves_nothing_behind(config: str) -> None:
    Path("bench.toml").write_text(config, encoding="utf-8")
    refuse(["bench", "bench.toml", "--searchers", "random"])


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=5000, **QUIET)
@given(bad_lines)
def test_thousands_of_bad_command_lines(arguments: list[str]) -> None:
    refuse(arguments)


# as processes


def called(arguments: Sequence[str], **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*arguments), capture_output=True, env={**environment(), **variables}, timeout=120, check=False
    )


ENCODINGS = (
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "C"},
)


@pytest.mark.parametrize("variables", ENCODINGS, ids=["ascii", "C", "coerced C"])
def test_a_dozen_bad_lines_on_a_terminal_of_ascii(variables: dict[str, str]) -> None:
    lines = [
        *[[word] for word in WORDS if word],
        ["run", "--data", "\u4efb\u52a1.npz"],
        ["bench", "\u4efb\u52a1.toml"],
    ]
    with ThreadPoolExecutor(2) as pool:
        for line, done in zip(lines, pool.map(lambda line: called(line, **variables), lines), strict=True):
            assert done.returncode == 2, (line, done.stderr)
            refused(done.stderr.decode("ascii" if "PYTHONIOENCODING" in variables else "utf-8"))
    assert list(Path.cwd().iterdir()) == []


def test_names_outside_ascii_are_printed_on_a_terminal_of_ascii() -> None:
    source = "from tdbench.cli import main; main(['run', '--searcher', 'random', '--out', '\u4efb\u52a1', *{!r}])"
    code = source.format(as_options({**CHEAP, "budget": 20}))
    variables = {**environment(), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=variables, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u4efb\\u52a1" in done.stdout


@pytest.mark.parametrize("module", ["click", "tdbench.base.errors", "tdbench.cli.run", "tdbench.api", "numpy"])
def test_ctrl_c_while_python_starts_is_one_line(module: str) -> None:
    code = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, signal.default_int_handler)
from tdbench.cli import main
main(["run", "--searcher", "random", "--n", "10", "--out", "out"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "error: stopped"  # below an empty line where the terminal shows ^C


# what reaches the terminal


@pytest.mark.parametrize("form", FORMATS)
def test_no_escape_sequence_reaches_the_terminal_in_any_format(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    from tdbench.base.table import Table

    bad = "\x1b[2J\x07\x9bred\udcff"
    table = Table(bad, ("name", bad), ((bad, "1"),), notes=(bad,), text=(0,))
    show(form, [table], [{"name": bad, "value": 1}], lines=[bad])
    printed = "".join(capsys.readouterr())
    assert printed.replace("\n", "").isprintable()
    assert "x1b[2J" in printed or "u001b[2J" in printed


def test_no_escape_sequence_of_a_searcher_reaches_the_terminal(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from tdbench import hookimpl\n"
        "def broken(problem):\n    raise RuntimeError('\\x1b[2J\\x07red')\n"
        "@hookimpl\ndef register_searchers(register):\n    register('broken', broken)\n"
    )
    options = as_options({**CHEAP, "out": "out", "plugin": plugin})
    done = called(["run", "--searcher", "broken", *options])
    assert (done.returncode, b"[2J red" in done.stdout) == (1, True)
    assert b"\x1b[2J" not in done.stdout + done.stderr
    board = called(["leaderboard", "--out", "out"])
    assert board.returncode == 0
    assert b"\x1b" not in board.stdout + board.stderr
