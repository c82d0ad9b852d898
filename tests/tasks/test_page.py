"""The page about task libraries: its examples run, and it lists what is in the files."""

from __future__ import annotations

import re
import shlex

import pytest
from helpers import ROOT, called

from tdbench.store import library_file
from tdbench.tasks import extend

PAGE = (ROOT / "docs" / "libraries.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_run_in_their_order(tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    for language, block in re.findall(r"^```(python|sh)\n(.*?)^```", PAGE, flags=re.M | re.S):
        if language == "python":
            exec(block, {})
            continue
        for line in block.splitlines():
            code, out, err = called(capsys, *shlex.split(line)[1:])
            assert code == 0 and out, f"{line}: {err}"
    assert {path.name for path in tmp_path.iterdir()} > {"mine.npz", "mine.csv", "mine.extended.csv", "merged.npz"}


@pytest.mark.parametrize("name", [*library_file._KEYS, *library_file.COLUMNS, *extend._KEYS])
def test_the_page_explains_every_array_and_column(name):
    assert f"`{name}`" in PAGE.partition("## The files")[2]
