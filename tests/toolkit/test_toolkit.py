"""The published toolkit: its page names all of it, the example on it works, and a name loads only what it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tdbench import toolkit

PAGE = (Path(__file__).parents[2] / "docs" / "toolkit.md").read_text()


def test_the_page_has_a_line_for_every_name_and_no_other() -> None:
    assert sorted(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)) == sorted(toolkit.__all__)


@pytest.mark.parametrize("name", toolkit.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    assert callable(getattr(toolkit, name))


def test_another_name_is_an_ordinary_import_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'decoed'"):
        from tdbench.toolkit import decoed  # type: ignore[attr-defined] # noqa: F401


def test_the_example_on_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[-1]
    exec(example, {})
    lowest, *_, mean = map(float, re.findall(r"\d+\.\d+", capsys.readouterr().out))
    assert lowest < mean


def test_names_without_a_mark_on_the_page_load_no_large_library() -> None:
    plain = re.findall(r"^\| `(\w+)\([^|]*\| (?!\*)", PAGE, re.MULTILINE)
    assert "decode" in plain
    code = (
        f"import sys; from tdbench.toolkit import {', '.join(plain)};"
        "print([m for m in ('torch', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
