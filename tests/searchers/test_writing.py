"""A searcher class of a notebook becomes a plugin file that works alone, or one clear line says why it cannot."""

from __future__ import annotations

import linecache
from pathlib import Path
from typing import Any

import pytest
from helpers import CHEAP

from tdbench import UserError, run, write_plugin

CELL = """
import math as maths

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray
from tdbench import Done, Problem

SPREAD, TABLE = 0.5, {"a": (1, 2.5)}
frame = __import__("pandas").DataFrame()
limit = float("inf")


def scaled(values):
    return values * SPREAD


class Base:
    def __init__(self, problem: Problem) -> None:
        self.dim, self.rng = problem.dim, default_rng(problem.seed)


class Own(Base):
    start = maths.pi

    def ask(self, n: int) -> NDArray[np.float64]:
        draw = lambda: scaled(self.rng.random((n, self.dim)))
        return draw() * TABLE["a"][0]

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        self.best = [s for s in scores][0]


class UsesAFrame(Own):
    def tell(self, scores, loss):
        print(frame)


class UsesInfinity(Own):
    def tell(self, scores, loss):
        print(limit)


class Misspelled(Own):
    def tell(self, scores, loss):
        print(no_such_name)


class FailsAlone(Own):
    print(__name__ == "cell" or 1 / 0)

    def tell(self, scores, loss): ...
"""


@pytest.fixture
def cell() -> dict[str, Any]:
    """The names that a notebook cell has defined, in a module without a file."""
    linecache.cache["<cell>"] = (len(CELL), None, CELL.splitlines(keepends=True), "<cell>")
    names: dict[str, Any] = {"__name__": "cell"}
    exec(compile(CELL, "<cell>", "exec"), names)
    return names


def test_a_class_of_a_notebook_becomes_a_plugin_with_all_that_it_uses(tmp_path: Path, cell: dict[str, Any]) -> None:
    path = write_plugin(cell["Own"], tmp_path / "own_searcher.py", name="own", baseline=True)
    result = run("own", plugins=[path], out=tmp_path / "out", **CHEAP)
    assert result.row.status == "ok", result.row.error
    text = path.read_text()
    assert "frame" not in text
    assert "import math as maths" in text and "def scaled" in text and "SPREAD = 0.5" in text


def test_the_name_of_the_file_is_the_searchers_name(tmp_path: Path, cell: dict[str, Any]) -> None:
    path = write_plugin(cell["Own"], str(tmp_path / "from_a_notebook.py"))
    assert "register('from_a_notebook', Own)" in path.read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("UsesAFrame", "UsesAFrame uses frame, which cannot be written to a file"),
        ("UsesInfinity", "UsesInfinity uses limit, which cannot be written to a file: inf"),
        ("Misspelled", "Misspelled uses 'no_such_name', which is not defined"),
        ("FailsAlone", "cannot be loaded: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_written_is_one_clear_line_and_leaves_no_file(
    tmp_path: Path, cell: dict[str, Any], name: str, said: str
) -> None:
    with pytest.raises(UserError) as error:
        write_plugin(cell[name], tmp_path / "own.py")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "own.py").exists()


def test_a_class_without_source_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the source of int cannot be found"):
        write_plugin(int, tmp_path / "own.py")
    with pytest.raises(UserError, match="searcher must be a class, got 'random'"):
        write_plugin("random", tmp_path / "own.py")  # type: ignore[arg-type]
