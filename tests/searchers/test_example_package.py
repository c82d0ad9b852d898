"""The examples of the pages on writing a searcher and a reduction: the pages show the real files, and they work."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import CHEAP

from tdbench.searchers.scaffold import NewPlugin, NewReduction, NewSearcher, rendered

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "example-searcher"
REDUCTION = DOCS / "example-reduction" / "waves.py"
FILES = ["mine.py", "pyproject.toml", "tests/test_contract.py", ".github/workflows/test.yml"]


@pytest.mark.parametrize(
    ("page", "folder", "name"),
    [
        *(("writing-a-searcher.md", EXAMPLE, name) for name in FILES),
        ("writing-a-reduction.md", REDUCTION.parent, REDUCTION.name),
    ],
)
def test_page_shows_the_file_as_it_is(page: str, folder: Path, name: str) -> None:
    block = re.search(rf"`{re.escape(name)}`:\n\n```\w+\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert block is not None, f"the page has no block headed `{name}`:"
    assert block[1] == (folder / name).read_text()


@pytest.mark.parametrize(("folder", "new"), [(EXAMPLE, NewSearcher("mine")), (REDUCTION.parent, NewReduction("waves"))])
def test_the_example_is_what_the_command_writes(folder: Path, new: NewPlugin) -> None:
    for template, path in new.files.items():
        assert (folder / path).read_text() == rendered(template, new.words), f"write {path} again"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example package was installed into, by pip and without network."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools, to build the example without network")
    folder = tmp_path_factory.mktemp("example")
    source = folder / "source"  # pip builds in the source folder
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    target = folder / "installed"
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def _python(installed: Path, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_installed_example_is_listed_with_its_package_and_version(installed: Path, tmp_path: Path) -> None:
    code = (
        "from tdbench.searchers.loading import load_plugins;"
        "mine = load_plugins().searchers['mine']; print(mine.origin, mine.version)"
    )
    assert _python(installed, "-c", code, cwd=tmp_path).split() == ["tdbench-mine", "0.1.0"]


def test_installed_example_passes_its_own_contract_test(installed: Path, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "tests" / "test_contract.py", tmp_path)
    output = _python(
        installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path), cwd=tmp_path
    )
    assert "16 passed" in output


def test_the_file_alone_works_as_an_extra_plugin() -> None:
    from tdbench.testing import check_searcher

    failed = [result for result in check_searcher("mine", [str(EXAMPLE / "mine.py")]) if not result.passed]
    assert failed == []


def test_the_reductions_test_on_the_page_passes(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "writing-a-reduction.md").read_text(), re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(blocks[1], namespace)
    contract = type("InAFile", (namespace["TestWaves"],), {"plugins": (str(REDUCTION),)})()
    tests = [name for name in dir(contract) if name.startswith("test_")]
    assert len(tests) == 9
    for name in tests:
        getattr(contract, name)()


def test_a_searcher_runs_with_the_example_reduction(tmp_path: Path) -> None:
    from tdbench import run

    result = run("random", reduction="waves:3", plugins=[str(REDUCTION)], out=tmp_path, **CHEAP)
    assert (result.row.searcher, result.row.sees_images, result.row.status) == ("random+waves:3", True, "ok")
