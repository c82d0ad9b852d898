"""Plugins that are rude where they are imported or register: what is installed is found out whatever they do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import rude
from rude import CHEAPEST, DECENT, OUT, TIMES, Done

pytestmark = pytest.mark.long  # `test_rudest` is the short form

# What a plugin does before it registers a searcher named like it, and a part of the reason for its failure. None where
# it may well be listed: it does no harm but to its own process.
IMPORTS: dict[str, tuple[str, str | None]] = {
    "exits": ("import os; os._exit(0)", ""),
    "exits_with_3": ("import os; os._exit(3)", "3"),
    "segfaults": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "kills_itself": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    "raises_system_exit": ("raise SystemExit(0)", "SystemExit: 0"),
    "raises_keyboard_interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "raises_odd_text": (r"raise RuntimeError('\x1b[31mred\n caf\udce9 ' + 'x' * 10**7)", "RuntimeError"),
    "raises_odd_class": (
        "class Odd(BaseException):\n    def __str__(self): raise Odd\n    __repr__ = __str__\nraise Odd",
        "Odd",
    ),
    "is_no_python": ("def broken(:", "SyntaxError"),
    "closes_all": ("import os; os.closerange(0, 4096)", ""),
    "forks_and_exits": ("import os, time\nif not os.fork(): time.sleep(3600)\nos._exit(0)", ""),
    "changes_folder": ("import os; os.chdir('/')", None),
    "prints": ("import os; print('noise ' * 2_000_000); os.write(1, b'noise ' * 10**6)", None),
    "complains": ("import sys, os; sys.stderr.write('noise ' * 2_000_000); os.write(2, b'noise ' * 10**6)", None),
    "patches_random": ("import numpy; numpy.random.seed = numpy.random.default_rng = lambda *a: 1 / 0", None),
    "patches_json": (
        "import json\njson.dumps = json.dump = lambda *a, **k: 'nonsense'\njson.JSONEncoder.encode = json.dumps",
        None,
    ),
    "patches_builtins": ("import builtins; builtins.print = builtins.len = None", None),
    "patches_exit": ("import os, sys; os._exit = sys.exit = lambda *a: None", None),
    "removes_modules": ("import sys; sys.modules.clear()", None),
    "floods": (
        "import os, threading\ndef flood(fd):\n    while True: os.write(fd, b'{\"a\": 1}' * 1000)\n"
        "for fd in range(3, 20): threading.Thread(target=flood, args=(fd,), daemon=True).start()",
        None,
    ),
    "leaves_a_thread": ("import threading, time; threading.Thread(target=time.sleep, args=(3600,)).start()", None),
    "leaves_a_session": ("import subprocess\nsubprocess.Popen(['sleep', '3600'], start_new_session=True)", None),
    "sleeps_at_exit": ("import atexit, time; atexit.register(time.sleep, 3600)", None),
    "exits_at_exit": ("import atexit, os; atexit.register(os._exit, 9)", None),
    "ignores_signals": (
        "import signal\nfor n in (signal.SIGTERM, signal.SIGINT): signal.signal(n, signal.SIG_IGN)",
        None,
    ),
}
SLEEPER = ("import time; time.sleep(3600)", "")
PLUGIN = """
{rude}

import numpy as np
from tdbench import hookimpl

MINE = {name!r}

class Mine:
    def __init__(self, problem): self.problem = problem
    def ask(self, n): return np.full((n, self.problem.dim), 0.5)
    def tell(self, scores, loss): pass

class EvilText(str):
    def __eq__(self, other): raise RuntimeError("raised in __eq__, as it should")
    __hash__ = __str__ = __repr__ = __len__ = isprintable = strip = __eq__

class Evil:
    def __bool__(self): raise RuntimeError("raised in __bool__, as it should")
    __eq__ = __hash__ = __str__ = __repr__ = __bool__

@hookimpl
def register_searchers(register):
    {body}
"""
# What a plugin does where it registers a searcher MINE, and a part of the reason for its failure. A family that cannot
# say its variants is listed with that reason.
REGISTRATIONS = {
    "variants_raise": ("register(MINE, Mine, variants=lambda: 1 / 0)", "ZeroDivisionError"),
    "variants_exit": ("register(MINE, Mine, variants=lambda: exit(0))", "SystemExit"),
    "variants_no_function": ("register(MINE, Mine, variants=5)", "variants"),
    "variants_int": ("register(MINE, Mine, variants=lambda: 5)", "variants"),
    "variants_ints": ("register(MINE, Mine, variants=lambda: [1, 2])", "variants"),
    "variants_text": (r"register(MINE, Mine, variants=lambda: ['\x1b[31mred'])", "variants"),
    "variants_endless": (
        "import itertools; register(MINE, Mine, variants=lambda: map(str, itertools.count()))",
        "at most",
    ),
    "summary_number": ("register(MINE, Mine, summary=5)", "summary"),
    "version_object": ("register(MINE, Mine, version=object())", "version"),
    "version_evil": ("register(MINE, Mine, version=Evil())", "version"),
    "sees_images_text": ("register(MINE, Mine, sees_images='yes')", "sees_images"),
    "sees_images_number": ("register(MINE, Mine, sees_images=1)", "sees_images"),
    "sees_images_evil": ("register(MINE, Mine, sees_images=Evil())", "sees_images"),
    "baseline_text": ("register(MINE, Mine, baseline='no')", "baseline"),
    "reducible_text": ("register(MINE, Mine, reducible='no')", "reducible"),
    "name_escapes": (r"register('\x1b[31mred', Mine)", "printable"),
    "name_surrogate": (r"register('caf\udce9', Mine)", "printable"),
    "name_lines": (r"register('two\nlines', Mine)", "printable"),
    "name_bytes": ("register(b'mine', Mine)", "name"),
    "name_evil": ("register(Evil(), Mine)", ""),
    "name_twice": ("register(MINE, Mine); register(MINE, Mine)", "registered twice"),
    "factory_none": ("register(MINE, None)", "callable"),
    "raises": ("raise ValueError('while registering')", "ValueError: while registering"),
    "exits_while_registering": ("import os; os._exit(0)", ""),
    "recurses": ("register_searchers(register)", "RecursionError"),
}


def write(folder: Path, name: str, rude_text: str = "", body: str = "") -> Path:
    """A plugin file; it registers a searcher of its name, unless `body` says what it does."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(PLUGIN.format(rude=rude_text, name=name, body=body or "register(MINE, Mine)"))
    return path


def listing(folder: Path, plugins: list[Path], timeout: float = 150) -> Done:
    given = [part for path in plugins for part in ("--plugin", path)]
    return rude.tdbench(folder, "searchers", "--format", "json", *given, timeout=timeout)


def records(done: Done) -> list[dict[str, Any]]:
    assert done.code == 0, done.err[-1000:]
    listed: list[dict[str, Any]] = json.loads(done.out)
    return listed


def failure(done: Done, name: str) -> str:
    """The line that names that plugin and its reason."""
    lines = [line for line in done.err.split("\n") if line.startswith(f"failed to load: plugin {name}: ")]
    assert len(lines) == 1, f"expected one line about {name}, got {done.err[-2000:]}"
    return lines[0]


def reason(done: Done, name: str) -> str:
    """Why that plugin's searcher cannot be used: the line that names the plugin, or the record of its family."""
    families = [record for record in records(done) if record["name"] == f"{name}:NAME"]
    return str(families[0]["summary"]) if families else failure(done, name)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is listed without any rude plugin."""
    return records(listing(tmp_path_factory.mktemp("usual"), []))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The listing beside plugins that are rude at import."""
    folder = tmp_path_factory.mktemp("imported")
    plugins = [write(folder / "rude", name, text) for name, (text, _) in IMPORTS.items()]
    return listing(folder, [*plugins, write(folder / "rude", "last")])


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The listing beside plugins that are rude where they register."""
    folder = tmp_path_factory.mktemp("registered")
    plugins = [write(folder / "rude", name, body=body) for name, (body, _) in REGISTRATIONS.items()]
    return listing(folder, [*plugins, write(folder / "rude", "last")])


@pytest.mark.parametrize("which", ["imported", "registered"])
def test_all_decent_searchers_and_reductions_are_listed(
    which: str, usual: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    done = request.getfixturevalue(which)
    listed = records(done)
    assert [record for record in listed if record in usual] == usual
    assert "last" in [record["name"] for record in listed]


@pytest.mark.parametrize("which", ["imported", "registered"])
def test_a_listing_leaves_and_prints_nothing_else(which: str, request: pytest.FixtureRequest) -> None:
    done = request.getfixturevalue(which)
    rude.check_printed(done)
    assert max(map(len, done.lines)) < 1000
    assert "noise noise" not in done.out + done.err
    assert (done.left, done.strewn) == ((), [])


@pytest.mark.parametrize("name", [name for name, (_, said) in IMPORTS.items() if said is not None])
def test_a_plugin_that_cannot_be_imported_is_named_with_its_reason(imported: Done, name: str) -> None:
    said = IMPORTS[name][1]
    assert said is not None
    assert said in failure(imported, name)
    assert name not in [record["name"] for record in records(imported)]


@pytest.mark.parametrize("name", [name for name, (_, said) in IMPORTS.items() if said is None])
def test_a_plugin_that_changes_its_process_is_listed_or_named_with_its_reason(imported: Done, name: str) -> None:
    if name not in [record["name"] for record in records(imported)]:
        failure(imported, name)


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_a_registration_that_cannot_be_used_is_named_with_its_reason(registered: Done, name: str) -> None:
    assert REGISTRATIONS[name][1] in reason(registered, name)


def test_a_plugin_that_sleeps_at_import_is_given_up(tmp_path: Path, usual: list[dict[str, Any]]) -> None:
    done = listing(tmp_path, [write(tmp_path / "rude", "sleeps", SLEEPER[0]), write(tmp_path / "rude", "last")])
    assert [record for record in records(done) if record in usual] == usual
    assert "last" in [record["name"] for record in records(done)]
    failure(done, "sleeps")
    assert done.left == ()


def test_numpys_true_is_true(tmp_path: Path) -> None:
    path = write(tmp_path / "rude", "numpys_true", body="register(MINE, Mine, sees_images=np.bool_(True))")
    done = rude.tdbench(tmp_path, *run_arguments("numpys_true", path))
    assert done.code == 0, done.err
    assert done.rows["numpys_true"]["sees_images"] == "True"


@pytest.mark.parametrize("value", ["'yes'", "[1]"])
def test_images_do_not_reach_a_searcher_that_does_not_say_true(tmp_path: Path, value: str) -> None:
    got = tmp_path / "got-images"
    rude_text = f"import pathlib\ndef look(p):\n    pathlib.Path({str(got)!r}).write_text(str(p.images is None))\n"
    body = f"register(MINE, lambda p: look(p) or Mine(p), sees_images={value})"
    done = rude.tdbench(tmp_path, *run_arguments("looks", write(tmp_path / "rude", "looks", rude_text, body)))
    assert done.code == 2
    assert "sees_images" in done.err
    assert not got.exists()


def run_arguments(searcher: str, *plugins: Path) -> list[str]:
    given = [part for path in plugins for part in ("--plugin", str(path))]
    return ["run", "--searcher", searcher, *rude.as_options({**CHEAPEST, "out": OUT}), *TIMES, *given]


def install(folder: Path, plugins: dict[str, str]) -> str:
    """PYTHONPATH with the plugins in it, installed as a distribution `rude`."""
    site = folder / "site"
    for name, text in plugins.items():
        write(site, f"rude_{name}", text, f"register({name!r}, Mine)")
    information = site / "rude-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: rude\nVersion: 1.0\n")
    lines = [f"{name} = rude_{name}" for name in plugins]
    (information / "entry_points.txt").write_text("[tdbench]\n" + "\n".join(lines) + "\n")
    return os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])


def test_rude_plugins_that_are_installed_do_not_disturb_others(
    tmp_path: Path, decent: dict[str, dict[str, str]]
) -> None:
    path = install(tmp_path, {name: text for name, (text, _) in IMPORTS.items()})
    arguments = rude.as_options({**CHEAPEST, "seeds": 1, "out": OUT, "searchers": ",".join(DECENT)})
    done = rude.tdbench(tmp_path, "bench", *arguments, *TIMES, PYTHONPATH=path, timeout=110)
    assert done.code == 0, done.err[-1000:]
    assert done.rows == decent
    rude.check_printed(done)
    assert (done.left, done.strewn) == ((), [])


def test_a_plugin_that_is_installed_and_sleeps_only_costs_time(
    tmp_path: Path, decent: dict[str, dict[str, str]]
) -> None:
    path = install(tmp_path, {"sleeps": SLEEPER[0]})
    done = rude.tdbench(tmp_path, *run_arguments("random"), PYTHONPATH=path, timeout=200)
    assert done.code == 0, done.err[-1000:]
    assert done.rows == {"random": decent["random"]}
    assert (done.left, done.strewn) == ((), [])


def test_installed_plugins_are_listed_with_the_failed_ones(tmp_path: Path, usual: list[dict[str, Any]]) -> None:
    path = install(tmp_path, {"exits": IMPORTS["exits"][0], "fine": ""})
    done = rude.tdbench(tmp_path, "searchers", "--format", "json", PYTHONPATH=path)
    assert [record for record in records(done) if record in usual] == usual
    assert [record["from"] for record in records(done) if record["name"] == "fine"] == ["rude"]
    failure(done, "exits")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("run", "exits"),
        ("check", "segfaults"),
        *(
            (command, name)
            for command in ("run", "check")
            for name in ("raises_system_exit", "raises_keyboard_interrupt", "closes_all", "is_no_python")
        ),
    ],
)
def test_a_plugin_that_is_given_must_load(tmp_path: Path, command: str, name: str) -> None:
    path = write(tmp_path / "rude", name, IMPORTS[name][0])
    arguments = run_arguments("random", path) if command == "run" else ["check", "random", "--plugin", path]
    check_refused(rude.tdbench(tmp_path, *arguments), name)


@pytest.mark.parametrize("command", ["check", "run", "bench"])
def test_a_plugin_that_is_not_there_is_refused(tmp_path: Path, command: str) -> None:
    arguments = {
        "run": run_arguments("random", Path("missing.py")),
        "bench": ["bench", "--searchers", "random", "--plugin", "missing.py", "--out", OUT],
        "check": ["check", "random", "--plugin", "missing.py"],
    }
    check_refused(rude.tdbench(tmp_path, *arguments[command]), "missing")


def check_refused(done: Done, name: str) -> None:
    """One line names the plugin; nothing has been done."""
    assert done.code == 2, done.out[-1000:] + done.err[-1000:]
    line, end = done.err.split("\n")
    assert (line[:7], end) == ("error: ", "")
    assert name in line
    assert done.out == ""
    assert not done.results.exists()
    assert (done.left, done.strewn) == ((), [])


@pytest.mark.parametrize("name", [*IMPORTS, *REGISTRATIONS])
def test_each_alone_is_listed_or_named_with_its_reason(tmp_path: Path, usual: list[dict[str, Any]], name: str) -> None:
    text, said = IMPORTS[name] if name in IMPORTS else ("", REGISTRATIONS[name][1])
    body = "" if name in IMPORTS else REGISTRATIONS[name][0]
    done = listing(tmp_path, [write(tmp_path / "rude", name, text, body)], timeout=100)
    assert [record for record in records(done) if record in usual] == usual
    if said is not None or name not in [record["name"] for record in records(done)]:
        assert (said or "") in reason(done, name)
    rude.check_printed(done)
    assert (done.left, done.strewn) == ((), [])
