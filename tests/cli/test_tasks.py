"""`tdbench tasks`, as a user has it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import called

from tdbench import TaskLibrary, TaskSpace

SPACE = ("--n", 20, "--steps", 12, "--confirm", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class tasks and two random labelings as a CSV."""
    folder = tmp_path_factory.mktemp("tasks")
    space = TaskSpace("digits", n=20, steps=12)
    labels = np.stack([*(task.labels for task in space.reference_tasks[:2]), *space.random_labelings(2)])
    np.savetxt(folder / "mine.csv", labels, fmt="%d", delimiter=",")
    return folder


@pytest.fixture
def library(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = folder / "scored.npz"
    if not path.exists():
        assert called(capsys, "tasks", "score", folder / "mine.csv", "--out", path, *SPACE)[0] == 0
    return path


def test_scored_labelings_become_a_library(folder, library, capsys):
    code, out, err = called(capsys, "tasks", "score", folder / "mine.csv", "--out", folder / "again.npz", *SPACE)
    assert code == 0 and "4 of 4 tasks on digits, N = 20" in out and "wrote" in err
    assert TaskLibrary.load(folder / "again.npz") == TaskLibrary.load(library)
    space = TaskSpace("digits", n=20, steps=12)
    scored = TaskLibrary.load(library)
    np.testing.assert_array_equal(scored.confirmed_values, space.confirm(scored.labels, 4))


def test_a_library_is_scored_once_more_in_its_own_space(folder, library, capsys):
    code, _, _ = called(capsys, "tasks", "score", library, "--confirm", 6, "--out", folder / "six.npz")
    assert code == 0 and TaskLibrary.load(folder / "six.npz").confirm == 6
    code, _, err = called(capsys, "tasks", "score", library, "--steps", 9, "--out", folder / "other.npz")
    assert code == 2 and "differ in steps 12 and 9" in err
    assert not (folder / "other.npz").exists()


def test_show_prints_members_and_worth(library, capsys):
    code, out, _ = called(capsys, "tasks", "show", library, "--threshold", "0.1")
    assert code == 0 and "confirmed QD" in out and "known tasks found again" in out and "above 0.1: " in out
    _, out, _ = called(capsys, "tasks", "show", library, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    expected = TaskLibrary.load(library)
    assert [float(row["confirmed"]) for row in rows] == expected.confirmed.tolist()
    _, out, _ = called(capsys, "tasks", "show", library, "--format", "json")
    (document,) = json.loads(out)
    assert document["confirmed_qd"] == expected.confirmed_qd and document["told_qd"] is None
    assert [task["labels"] for task in document["tasks"]] == expected.labels.tolist()


def test_merge_keeps_what_differs(folder, library, capsys):
    path = folder / "merged.npz"
    code, out, _ = called(capsys, "tasks", "merge", library, library, "--out", path, "--tasks", 2)
    assert code == 0 and "2 of 8 tasks" in out
    np.testing.assert_array_equal(TaskLibrary.load(path).labels, TaskLibrary.load(library).labels[:2])


def test_compare_counts_shared_tasks(folder, library, capsys):
    called(capsys, "tasks", "merge", library, "--out", folder / "best.npz", "--tasks", 1)
    code, out, _ = called(capsys, "tasks", "compare", library, folder / "best.npz")
    assert code == 0 and "1 of 4" in out and "1 of 1" in out and "different numbers of places K" in out
    _, out, _ = called(capsys, "tasks", "compare", library, folder / "best.npz", "--format", "json")
    document = json.loads(out)
    assert [pair["shared"] for pair in document["shared"]] == [1, 1]
    assert [entry["members"] for entry in document["libraries"]] == [4, 1]


def test_extend_writes_beside_the_library_and_show_reads_it(folder, library, capsys):
    best = folder / "alone.npz"
    called(capsys, "tasks", "merge", library, "--out", best, "--tasks", 2)
    code, out, _ = called(capsys, "tasks", "extend", best, "--format", "json")
    records = json.loads(out)
    assert code == 0 and len(records) == 2 and len(records[0]["most_positive"]) == 12
    assert (folder / "alone.extended.npz").exists() and (folder / "alone.extended.csv").exists()
    _, out, _ = called(capsys, "tasks", "show", best)
    assert "agreement [95%]" in out
    _, out, _ = called(capsys, "tasks", "show", best, "--format", "json")
    assert json.loads(out)[0]["tasks"][0]["agreement"] == records[0]["agreement"]
    _, out, _ = called(capsys, "tasks", "compare", *sorted(folder.glob("alone*.npz")))
    assert "alone.npz" in out  # all files of a folder may be named
    called(capsys, "tasks", "merge", library, "--out", best, "--tasks", 1)
    _, out, _ = called(capsys, "tasks", "show", best)
    assert "agreement" not in out  # that extension is of other tasks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shw", "a.npz"], "did you mean 'show'?"),
        (["show", "missing.npz"], "missing.npz cannot be read"),
        (["show", "mine.csv"], "mine.csv is no task library"),
        (["show", "scored.npz", "--threshold", "2"], "threshold must be"),
        (["merge", "scored.npz", "--out", "x.npz", "--max-similarity", "2"], "max-similarity must be"),
        (["merge", "scored.npz", "--out", "x.csv"], "a task library is an .npz file"),
        (["score", "mine.csv", "--out", "mine.npz", "--n", "20"], "mine.csv would be replaced"),
        (["score", "mine.csv", "--out", "x.npz", "--n", "30"], "expected 30 labels"),
        (["score", "mine.csv", "--out", "x.npz", "--n", "20", "--ratio", "1"], "expected P = 10 ones"),
        (["score", "mine.csv", "--out", "x.npz", "--n", "20", "--confirm", "1"], "confirm must be at least 2"),
        (["extend", "scored.npz", "--picture", "x.jpg"], "a picture is a .png or an .svg"),
        (["extend", "scored.npz", "--picture", "scored.npz/x.png"], "cannot be written"),
        (["score", "mine.csv", "--out", "scored.npz/x.npz", "--n", "20"], "cannot be written"),
        (["extend", "scored.npz", "--networks", "1"], "1 is not in the range"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folder, library, capsys, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    code, out, err = called(capsys, "tasks", *words)
    assert code == 2 and out == "" and message in err
    assert err.count("\n") == 1 and err.startswith("error: ")
    assert sorted(folder.iterdir()) == before
