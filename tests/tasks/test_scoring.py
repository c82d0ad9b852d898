"""Labelings that somebody else made are confirmed as those of runs are, and wrong files are one line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tdbench import TaskLibrary, TaskSpace, UserError
from tdbench.space.seal import write_new_key
from tdbench.store.labelings_file import read_labelings
from tdbench.tasks.scoring import confirm_again, score, space_of

SPACE = TaskSpace("digits", n=10, steps=5)
LABELS = SPACE.random_labelings(3, seed=1)


def test_labelings_get_the_confirmation_of_the_space():
    done: list[int] = []
    library = score(SPACE, LABELS, confirm=4, names=["a", "b", "c"], origin="mine", advance=done.append)
    expected = SPACE.confirm(LABELS, 4)
    order = np.argsort(-expected.mean(axis=1))
    np.testing.assert_array_equal(library.confirmed_values, expected[order])
    np.testing.assert_array_equal(library.labels, LABELS[order])
    assert library.runs == tuple("abc"[i] for i in order) and library.searchers == ("mine",) * 3
    assert np.isnan(library.told).all() and sum(done) == 12


def test_a_seal_is_recorded(tmp_path):
    key = write_new_key(tmp_path / "key")
    library = score(SPACE, LABELS, confirm=4, key=key)
    assert library.engine.endswith(f"sealed {key.seal}")
    assert not np.array_equal(library.confirmed_values, score(SPACE, LABELS, confirm=4).confirmed_values)


def test_a_labeling_that_is_there_twice_is_refused():
    with pytest.raises(UserError, match="labelings 1 and 4 are the same task"):
        score(SPACE, np.concatenate([LABELS, LABELS[:1]]), confirm=4)


def test_a_library_is_confirmed_again_with_its_provenance():
    library = replace(score(SPACE, LABELS, confirm=2, origin="mine"), told=[0.5, 0.25, 0.0], tasks=5)
    again = confirm_again(library, SPACE, confirm=6)
    assert again.confirm == 6 and again.tasks == 5 and sorted(again.told) == [0, 0.25, 0.5]
    np.testing.assert_array_equal(again.confirmed_values, SPACE.confirm(again.labels, 6))


def test_the_space_of_a_library_is_drawn_again():
    assert space_of(score(SPACE, LABELS, confirm=2))[0].identity == SPACE.identity


def test_a_library_of_another_space_is_refused():
    other = TaskSpace("digits", n=10, steps=6)
    with pytest.raises(UserError, match=r"of another space: 6ca20b096adb and \w+ differ in steps 5 and 6"):
        confirm_again(score(SPACE, LABELS, confirm=2), other, confirm=2)


def test_the_source_of_a_library_from_a_file_must_be_given(tmp_path):
    library = score(SPACE, LABELS, confirm=2)
    foreign = replace(library, settings=replace(library.settings, data="photos"))
    with pytest.raises(UserError, match="come from a file 'photos'; say where it lies with data"):
        space_of(foreign)


# CSV files


def lines(labels, first=()):
    return "\n".join([*first, *(",".join(map(str, row)) for row in labels)]) + "\n"


def test_every_layout_of_a_csv_gives_the_same_labelings(tmp_path):
    path = tmp_path / "mine.csv"
    named = [["x", *LABELS[0]], ["y", *LABELS[1]], ["z", *LABELS[2]]]
    library = score(SPACE, LABELS, confirm=2, names=["x", "y", "z"])
    frame = pd.DataFrame(LABELS, index=["x", "y", "z"])
    order = [library.runs.index(name) for name in "xyz"]
    for text, names in (
        (lines(LABELS), "123"),
        ("\ufeff" + lines(LABELS).replace("\n", "\r\n"), "123"),
        (lines(LABELS, [",".join("abcdefghij")]), "123"),
        (lines(named), "xyz"),
        (lines(named, ["name," + ",".join("abcdefghij")]), "xyz"),
        (frame.to_csv(), "xyz"),
        (frame.to_csv(index=False), "123"),
        (frame.astype(float).to_csv(), "xyz"),
        (
            "name,labels\n" + "".join(f"{n},{''.join(map(str, row))}\n" for n, row in zip("xyz", LABELS, strict=True)),
            "xyz",
        ),
    ):
        path.write_text(text, encoding="utf-8", newline="")
        read = read_labelings(path, 10, 2)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert "".join(read.names) == names
    library.save(tmp_path / "other.npz")
    read = read_labelings(tmp_path / "other.csv", 10, 2)  # the CSV beside the library
    np.testing.assert_array_equal(read.labels[order], LABELS)
    assert read.names == library.runs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no labelings"),
        ("a,b,c,d,e,f,g,h,i,j\n", "has no labelings"),
        (lines(LABELS[:, :9]), "labeling 1: expected 10 labels .* got 9 cells"),
        (lines(LABELS) + "1,1,1,0,0,0,0,0,0,0\n", r"labeling 4: expected P = 2 ones, got 3"),
        (lines(LABELS) + "1,2,0,0,0,0,0,0,0,0\n", "labeling 4: expected labels of 0 and 1, got '2'"),
        (lines(LABELS) + "1,1\n", "labeling 4: expected 10 labels"),
        ("labels\n0101\n", "labeling 1: expected 10 labels .* got 4 cells"),
        ("name,labels\nx\n", "labeling 1: expected 10 labels"),
        ("\x00\xff", "cannot be read"),
    ],
)
def test_a_wrong_csv_is_one_line(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message) as error:
        read_labelings(path, 10, 2)
    assert "mine.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_csv_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"mine.csv cannot be read: No such file"):
        read_labelings(tmp_path / "mine.csv", 10, 2)


def test_a_scored_library_can_be_saved(tmp_path):
    library = score(SPACE, LABELS, confirm=2)
    assert TaskLibrary.load(library.save(tmp_path / "a.npz")) == library
