"""`tdbench transfer` and `tdbench.transfer` as users have them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import as_options, called, one_error

import tdbench
from tdbench import TaskSpace, UserError
from tdbench.tasks.scoring import score

SMALL = {"target_n": 10, "sets": 1, "replicates": 2, "controls": 1, "shots": "2", "modes": "fine-tune"}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    space = TaskSpace(n=10, steps=5)
    path = tmp_path_factory.mktemp("library") / "mine.npz"
    return score(space, space.random_labelings(3), confirm=2).save(path)


def test_it_prints_one_document_and_writes_tables_and_figures(tmp_path, library, capsys):
    options = [*as_options({**SMALL, "library": library, "out": tmp_path}), "--format", "json"]
    code, out, error = called(capsys, "transfer", *options)
    assert code == 0, error
    known = json.loads(out)
    assert {gain["kind"] for gain in known["gains"]} >= {"found", "all at once", "class", "pixel", "random", "scaled"}
    assert known["about"]["source_n"] == 10
    assert "can be expected to detect" in error
    for name in ("transfer.npz", "transfer.csv", "transfer.md", "transfer-gain.png", "transfer-gain.svg"):
        assert (tmp_path / name).stat().st_size > 0
    assert called(capsys, "transfer", *options)[1] == out  # from memory


def test_tasks_of_another_library_are_targets(tmp_path, library, capsys):
    classes = [name for name in "0123456789" if name not in TaskSpace(n=10, steps=5).classes]
    space = TaskSpace(n=10, steps=5, classes=classes)
    other = score(space, space.random_labelings(2), confirm=2).save(tmp_path / "other.npz")
    code, out, _ = called(capsys, "transfer", *as_options({**SMALL, "library": library, "targets": other}),
                          "--out", tmp_path, "--format", "csv")  # fmt: skip
    assert code == 0
    assert "task 2" in out


def test_python_gives_what_the_command_gives(tmp_path, library):
    result = tdbench.transfer(library, modes="frozen", sets=1, target_n=10, replicates=2, controls=1, out=tmp_path)
    assert result.modes == ("frozen",) and result.sets == 1
    with pytest.raises(UserError, match="the library has its own n"):
        tdbench.transfer(library, n=20, out=tmp_path)
    with pytest.raises(UserError, match="unknown setting 'setz'; did you mean 'sets'"):
        tdbench.transfer(library, setz=2, out=tmp_path)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--targets", "{library}"], "the sources and the targets share 10 of 10 images"),
        (["--modes", "melt"], "mode must be one of fine-tune, frozen, got 'melt'"),
        (["--targets", "x"], "targets must be classes or the .npz of a task library, got 'x'"),
        (["--n", "20"], "the library has its own n"),
        (["--target-n", "4000"], "target set 1 of 1 needs 4000 images"),
        (["--library", "{empty}"], "no tasks (K = 0)"),
        (["--library", "{other}"], "is no task library"),
        (["--replicates", "0"], "replicates must be at least 1"),
    ],
)
def test_bad_input_is_one_clear_line_and_trains_nothing(tmp_path, library, capsys, more, expected):
    space = TaskSpace(n=10, steps=5)
    empty = score(space, space.random_labelings(1), confirm=2).filter([False]).save(tmp_path / "empty.npz")
    np.savez(tmp_path / "other.npz", x=1)
    names = {"library": library, "empty": empty, "other": tmp_path / "other.npz"}
    words = [word.format(**names) for word in more]
    options = [*as_options({**SMALL, "library": library, "out": tmp_path / "out"}), *words]
    code, _, error = called(capsys, "transfer", *options)
    assert expected in one_error(code, error)
    assert not (tmp_path / "out").exists()
