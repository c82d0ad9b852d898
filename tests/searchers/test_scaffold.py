"""`tdbench new-searcher`: the package it writes installs, passes its own test, and hides nothing that exists."""

from __future__ import annotations

import ast
import keyword
import os
import string
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import CHEAP, ROOT, as_options, tdbench
from hypothesis import given
from hypothesis import strategies as st

from tdbench import UserError
from tdbench.cli import main
from tdbench.searchers import scaffold
from tdbench.searchers.scaffold import NewPlugin, NewReduction, NewSearcher, write_package

NAME = "My-own_Search2"
FILES = {
    "pyproject.toml",
    "my_own_search2.py",
    "tests/test_contract.py",
    "README.md",
    ".github/workflows/test.yml",
}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run(*command: object, cwd: Path, **environment: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False, cwd=cwd, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_package_installs_and_passes_its_own_test(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="needs setuptools, to build the package without network")
    package = write_package(NewSearcher(NAME)).resolve()
    target = tmp_path / "installed"
    quiet = ["--quiet", "--no-index", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    run("-m", "pip", "install", *quiet, "--target", target, package, cwd=tmp_path)
    python_path = os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    tested = run("-m", "pytest", "-q", "-W", "error", cwd=package, PYTHONPATH=python_path)
    assert "16 passed" in tested
    code = (
        "from tdbench.searchers.loading import load_plugins as l; s = l().searchers[{!r}]; print(s.origin, s.version)"
    )
    assert run("-c", code.format(NAME), cwd=tmp_path, PYTHONPATH=python_path).split() == [f"tdbench-{NAME}", "0.1.0"]


def test_package_is_lint_and_format_clean() -> None:
    pytest.importorskip("ruff")
    package = write_package(NewSearcher(NAME))
    run("-m", "ruff", "check", "--isolated", "--select", "E,F,W,I,N,UP,B,RUF", ".", cwd=package)
    run("-m", "ruff", "format", "--isolated", "--check", ".", cwd=package)


def test_package_is_typed() -> None:
    for package in (write_package(NewSearcher(NAME)), write_package(NewReduction("my-waves"))):
        (module,) = package.glob("*.py")
        strictly = ("--strict", "--ignore-missing-imports", "--follow-imports=silent")
        # MYPYPATH, because mypy does not follow an editable installation
        run("-m", "mypy", *strictly, module.name, cwd=package, MYPYPATH=str(ROOT))


def test_a_package_of_a_reduction_holds_its_contract_and_can_be_searched_with(tmp_path: Path) -> None:
    module = write_package(NewReduction("my-waves")) / "my_waves.py"
    assert "holds the contract" in tdbench("check", "my-waves", "--plugin", module).stdout
    settings = as_options({**CHEAP, "reduction": "my-waves:3", "plugin": module, "out": tmp_path / "out"})
    assert "cmaes+my-waves:3" in tdbench("run", "--searcher", "cmaes", *settings).stdout


def test_the_workflow_stops_and_says_where_pip_gets_tdbench_from() -> None:
    text = (write_package(NewSearcher(NAME)) / ".github" / "workflows" / "test.yml").read_text()
    assert "no package index yet" in text
    script = (
        text.partition("run: |\n")[2].partition("      - run")[0].replace('pip install "$TDBENCH"', "echo installed")
    )
    empty = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, env={"TDBENCH": ""}, check=False)
    assert (empty.returncode, empty.stdout) == (1, "TDBENCH is empty: see .github/workflows/test.yml\n")
    given = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, env={"TDBENCH": "x"}, check=True)
    assert given.stdout == "installed\n"


@pytest.mark.parametrize("name", ["problem", "reduction-problem", "register-searcher"])
@pytest.mark.parametrize("kind", [NewSearcher, NewReduction])
def test_a_class_never_hides_what_its_module_imports(name: str, kind: type[NewPlugin]) -> None:
    new = kind(name)
    assert new.class_name.endswith(("Searcher", "Reduction"))
    assert f"class {new.class_name}:" in scaffold.rendered(f"new-{new.kind}/module.py.jinja", new.words)


def test_package_works_as_a_file_before_it_is_installed(tmp_path: Path) -> None:
    module = write_package(NewSearcher(NAME)) / "my_own_search2.py"
    assert "holds the contract" in tdbench("check", NAME, "--plugin", module).stdout


def test_command_writes_the_package_and_says_what_is_next(
    capsys: pytest.CaptureFixture[str], in_empty_folder: Path
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["new-searcher", NAME])
    assert exit_.value.code == 0
    assert os.listdir(in_empty_folder) == [f"tdbench-{NAME}"]  # noqa: PTH208 - hidden leftovers count
    assert files(in_empty_folder / f"tdbench-{NAME}") == FILES
    assert f"cd tdbench-{NAME} && pip install" in capsys.readouterr().out


def test_readme_has_three_commands() -> None:
    readme = (write_package(NewSearcher(NAME)) / "README.md").read_text()
    assert len(readme.split("```sh\n")[1].split("```")[0].splitlines()) == 3
    assert f"tdbench run --searcher {NAME}" in readme


def test_folder_can_be_chosen(in_empty_folder: Path) -> None:
    assert files(write_package(NewSearcher(NAME), in_empty_folder / "elsewhere")) == FILES


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "expected at most 80 letters"),
        ("a" * 81, "expected at most 80 letters"),
        ("two words", "expected at most 80 letters"),
        ("2fast", "expected at most 80 letters"),
        ("-dash", "expected at most 80 letters"),
        ("dash-", "expected at most 80 letters"),
        ("---", "expected at most 80 letters"),
        ("größe", "expected at most 80 letters"),
        ("a/b", "expected at most 80 letters"),
        ("../up", "expected at most 80 letters"),
        ("a\\b", "expected at most 80 letters"),
        ("a:b", "expected at most 80 letters"),
        ("a,b", "expected at most 80 letters"),
        ("a\n", "expected at most 80 letters"),
        ("{{ x }}", "expected at most 80 letters"),
        ("class", "cannot be called class.py"),
        ("Setup", "cannot be called setup.py"),
        ("tests", "cannot be called tests.py"),
        ("test-contract", "cannot be called test_contract.py"),
        ("random", "there is a searcher 'random' already"),
        ("TPE", "there is a searcher 'tpe' already"),
        ("clustered-random", "there is a searcher 'clustered-random' already"),
        ("nevergrad", "there is a searcher 'nevergrad' already"),
        ("cma", "would hide the Python module 'cma'"),
        ("Statistics", "would hide the Python module 'statistics'"),
        ("tdbench", "would hide the Python module 'tdbench'"),
        ("numpy", "would hide the Python module 'numpy'"),
    ],
)
def test_a_name_that_cannot_be_used_is_one_line_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], in_empty_folder: Path, name: str, said: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["new-searcher", "--", name])
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2
    assert line.startswith("error: ")
    assert said in line
    assert list(in_empty_folder.parent.rglob("*")) == [in_empty_folder]


@pytest.mark.parametrize("existing", ["file", "folder", "link"])
def test_what_exists_is_left_alone(in_empty_folder: Path, existing: str) -> None:
    path = in_empty_folder / f"tdbench-{NAME}"
    if existing == "file":
        path.write_text("precious")
    elif existing == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(UserError, match="exists already"):
        write_package(NewSearcher(NAME))
    assert list(in_empty_folder.rglob("*")) == [path]


@pytest.mark.parametrize("to", ["no/such/parent", "file/below", "x" * 300])
def test_a_folder_that_cannot_be_made(in_empty_folder: Path, to: str) -> None:
    (in_empty_folder / "file").write_text("precious")
    with pytest.raises(UserError):
        write_package(NewSearcher(NAME), Path(to))
    assert list(in_empty_folder.rglob("*")) == [in_empty_folder / "file"]


def test_nothing_half_written_is_left(in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(new: NewPlugin, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scaffold, "_render", full)
    with pytest.raises(UserError, match="No space left"):
        write_package(NewSearcher(NAME))
    assert list(in_empty_folder.iterdir()) == []


@given(name=st.text(string.ascii_letters + string.digits + "-_.: \n", min_size=1, max_size=12))
def test_a_name_is_refused_or_gives_files_that_parse(name: str) -> None:
    try:
        new = NewSearcher(name)
    except UserError:
        return
    assert new.module.isidentifier()
    assert not keyword.iskeyword(new.module)
    texts = {template: scaffold.rendered(template, new.words) for template in new.files}
    tomllib.loads(texts["new-plugin/pyproject.toml.jinja"])
    module = ast.parse(texts["new-searcher/module.py.jinja"])
    defined = [node.name for node in module.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assigned = [target.id for node in module.body if isinstance(node, ast.Assign) for target in node.targets]  # type: ignore[attr-defined]
    assert defined == [new.class_name, "register_searchers"]
    assert new.class_name not in assigned
    ast.parse(texts["new-searcher/test_contract.py.jinja"])
