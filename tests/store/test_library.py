"""Task libraries: what they hold, how they are kept in files, and what they refuse."""

from __future__ import annotations

import csv
import math
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdbench import TaskLibrary, TaskSpace, UserError
from tdbench.base.rng import random_labelings
from tdbench.space.sources import load_source

SPACES = {(10, 4): TaskSpace("digits", n=10, steps=5), (12, 1): TaskSpace("digits", n=12, ratio=1, steps=5)}
SPACE = SPACES[10, 4]
SPACE_SOURCE = load_source("digits")
LABELS = np.eye(10, dtype=np.uint8)[:9] + np.eye(10, k=1, dtype=np.uint8)[:9]  # images 0 and 1, 1 and 2, ...


def made(members=(0, 2, 4), confirmed=(0.5, 0.25, -0.125), **changes) -> TaskLibrary:
    """Labelings that share no positive, each with these confirmed values on two replicates."""
    values = np.array([[c - 0.0625, c + 0.0625] for c in confirmed]).reshape(-1, 2)
    given = {"engine": "native cpu", "searchers": "umda", "runs": "abc", "told": [0.75, math.nan, 0.5][: len(members)]}
    return TaskLibrary.of(SPACE, LABELS[list(members)], values, **{**given, **changes})


@st.composite
def libraries(draw) -> TaskLibrary:
    space = SPACES[draw(st.sampled_from(list(SPACES)))]
    m, replicates = draw(st.integers(0, 5)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = random_labelings(40, space.n, space.n_positives, seed=int(rng.integers(99)))
    words = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)
    library = TaskLibrary.of(space, labels[:0], np.empty((0, replicates)), engine=draw(words), max_similarity=1.0)
    m = len(chosen := library.rule.choose(labels, np.arange(40), m))
    return TaskLibrary.of(
        space,
        labels[chosen],
        rng.normal(0, 0.3, (m, replicates)),
        engine=draw(words),
        told=np.where(rng.random(m) < 0.5, np.nan, rng.normal(0, 0.3, m)),
        evaluations=rng.integers(0, 9, m),
        searchers=[draw(words) for _ in range(m)],
        runs=[draw(words) for _ in range(m)],
        tasks=max(m, 1) + draw(st.integers(0, 3)),
        max_similarity=1.0,
    )


# what it says


def test_members_stand_best_confirmed_first():
    library = made(confirmed=(-0.125, 0.5, 0.25), told=[0.1, 0.2, 0.3])
    assert library.confirmed.tolist() == [0.5, 0.25, -0.125] and library.told.tolist() == [0.2, 0.3, 0.1]
    np.testing.assert_array_equal(library.labels, LABELS[[2, 4, 0]])


def test_quality_counts_negative_members_and_empty_places_as_0():
    library = made(tasks=4)
    assert library.confirmed_qd == pytest.approx(0.75 / 4) and library.told_qd == pytest.approx(1.25 / 4)
    assert library.confirm == 2 and library.confirmed_se.tolist() == pytest.approx([0.0625] * 3)
    assert library.confirmed_qd_se == pytest.approx(0.125 / 4)  # both that count are high on the same replicate


def test_similarity_is_kappa_of_each_pair():
    library = made()
    expected = np.full((3, 3), -0.25)  # none of 2 positives shared; 0.4 are by chance
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(library.similarity(), expected)
    shares = np.array([1.25, 1.25, 0.5]) / 3  # its eigenvalues
    assert library.effective_number == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_it_knows_the_space_and_where_the_images_are_in_the_source():
    library = made()
    assert library.space == SPACE.identity
    again = TaskSpace.of(library.settings, SPACE_SOURCE)
    assert again.identity == SPACE.identity
    np.testing.assert_array_equal(SPACE_SOURCE.images[library.source_index], SPACE.pixels)


def test_a_source_with_one_name_for_two_classes_can_be_drawn_again(tmp_path):
    source = replace(SPACE_SOURCE, label_names=("a",) * 10)
    space = TaskSpace(source, n=10, steps=5)
    library = TaskLibrary.of(space, LABELS[:1], np.ones((1, 2)), engine="native cpu")
    again = TaskLibrary.load(library.save(tmp_path / "a.npz"))
    assert TaskSpace.of(again.settings, source).identity == space.identity


def test_an_empty_library_is_worth_nothing(tmp_path):
    empty = made(members=(), confirmed=(), told=[], tasks=4)
    assert (empty.confirmed_qd, empty.told_qd, empty.effective_number, empty.recall().recalled) == (0, 0, 0, 0)
    assert TaskLibrary.load(empty.save(tmp_path / "a.npz")) == empty and len(made().merge(empty)) == 3


def test_class_tasks_are_recalled_from_the_file_alone(tmp_path):
    space = TaskSpace("digits", n=20, steps=5)
    labels = np.stack([task.labels for task in space.reference_tasks[:2]])
    library = TaskLibrary.of(space, labels, np.ones((2, 2)), engine="native cpu")
    recall = TaskLibrary.load(library.save(tmp_path / "a.npz")).recall()
    assert set(space.classes[:2]) <= {n for n, hit in zip(recall.names, recall.hits, strict=True) if hit}


def test_a_filter_leaves_places_empty():
    library = made()
    kept = library.filter(min_confirmed=0.25)
    assert len(kept) == 2 and kept.tasks == 3 and kept.confirmed_qd == library.confirmed_qd
    assert len(library.filter([True, False, True])) == 2
    assert len(library.filter(lambda members: members.told > 0.6, min_confirmed=0.9)) == 0
    with pytest.raises(UserError, match="keep must be 3 booleans"):
        library.filter([0, 1])


def test_a_dataframe_has_a_row_for_each_member():
    frame = made().to_dataframe()
    assert frame["confirmed"].tolist() == [0.5, 0.25, -0.125] and frame["positives"].tolist()[0] == [0, 1]
    assert made(members=(), confirmed=(), told=[], tasks=2).to_dataframe().shape == (0, 8)


# merging


def test_a_merge_keeps_the_best_of_what_is_too_similar():
    a, b = made(), made(members=(1, 4, 6), confirmed=(0.375, 0.5, 0.0), searchers="cga")
    merged = a.merge(b)
    # 1 shares a positive with 0 and with 2; 4 is in both
    assert merged.confirmed.tolist() == [0.5, 0.5, 0.25, 0.0] and merged.tasks == 4
    assert merged.searchers == ("umda", "cga", "umda", "cga")
    np.testing.assert_array_equal(merged.labels, LABELS[[0, 4, 2, 6]])
    assert len(a.merge(b, max_similarity=1.0)) == 5 and len(a.merge(b, tasks=2)) == 2
    assert a.merge() == a


def test_libraries_that_cannot_be_compared_are_not_merged():
    other = TaskSpace("digits", n=10, steps=5, seed=1)
    foreign = TaskLibrary.of(other, LABELS[:1], np.ones((1, 2)), engine="native cpu")
    for library, reason in (
        (foreign, r"unlike spaces.*classes .*; space_seed 0 and 1"),
        (made(confirmed=(), members=(), told=[], engine="batched cuda"), "engine 'native cpu' and of 'batched cuda'"),
        (replace(made(), confirmed_values=np.ones((3, 5))), "2 and of 5 replicates"),
        ("a.npz", "expected a TaskLibrary"),
    ):
        with pytest.raises(UserError, match=reason):
            made().merge(library)


# refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS[[0, 1, 4]]}, "labelings 1 and 2 have similarity 0.375, max_similarity is 0.25"),
        ({"labels": LABELS[[0, 2, 0]], "max_similarity": 1.0}, "labelings 1 and 3 are the same task"),
        ({"labels": LABELS[:2]}, r"confirmed_values with shape \(2, R\), but it had shape \(3, 2\)"),
        ({"labels": LABELS[[0, 2, 4], :9]}, r"labels with shape \(m, 10\)"),
        ({"labels": 1 - LABELS[[0, 2, 4]]}, "P = 2 ones each, but labeling 1 has 8"),
        ({"labels": 2 * LABELS[[0, 2, 4]]}, "labels must be 0 or 1"),
        ({"confirmed_values": np.full((3, 2), np.nan)}, "confirmed_values must be finite"),
        ({"confirmed_values": np.ones((3, 1))}, "at least 2 replicates"),
        ({"told": [math.inf, 0, 0]}, "told must be finite, or NaN"),
        ({"evaluations": [-1, 0, 0]}, "evaluations must be whole numbers from 0"),
        ({"searchers": ("a", "b")}, "one name for each of 3 members"),
        ({"tasks": 2}, "tasks must be at least 3"),
        ({"max_similarity": 1.5}, "max_similarity must be"),
        ({"space": "x"}, "12 hex digits"),
        ({"source_index": np.zeros(10, dtype=int)}, "every image once"),
    ],
)
def test_fields_that_do_not_fit_are_one_line(change, message):
    with pytest.raises(UserError, match=message):
        replace(made(), **change)


def test_members_cannot_be_changed():
    for array in (made().labels, made().confirmed_values, made().told):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


# files


@given(libraries())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_round_trip_changes_nothing(tmp_path, library):
    assert TaskLibrary.load(library.save(tmp_path / "a.npz")) == library


def test_libraries_differ_where_a_field_does():
    assert made() == made()
    for change in ({"runs": "xyz"}, {"told": [0.75, 0.1, 0.5]}, {"engine": "other"}, {"tasks": 5}):
        assert made() != made(**change)


def test_the_csv_beside_it_is_for_people(tmp_path):
    made(searchers="=cmd", runs="0012e9").save(tmp_path / "a.npz")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "confirmed": "0.5",
        "confirmed_se": "0.0625",
        "told": "0.75",
        "evaluations": "0",
        "searcher": "'=cmd",  # not run by a spreadsheet
        "run": "'0012e9",  # nor read as a number
        "positives": "0|1",
        "labels": "1 1 0 0 0 0 0 0 0 0",
    }
    assert rows[1]["told"] == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.npz"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    made().save(tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes(), (tmp_path / "a.csv").read_bytes()
    (tmp_path / ".a.npz.partial").mkdir()  # nothing can be written there
    with pytest.raises(UserError, match="cannot be written"):
        made(tasks=9).save(tmp_path / "a.npz")
    assert ((tmp_path / "a.npz").read_bytes(), (tmp_path / "a.csv").read_bytes()) == before


def test_a_csv_of_somebody_else_is_never_replaced(tmp_path):
    made().save(tmp_path / "a.npz")
    made(tasks=9).save(tmp_path / "a.npz")  # its own is
    (tmp_path / "b.csv").write_text("0,1,1\n")
    with pytest.raises(UserError, match=r"b.csv would be replaced by the table of b.npz"):
        made().save(tmp_path / "b.npz")
    assert (tmp_path / "b.csv").read_text() == "0,1,1\n" and not (tmp_path / "b.npz").exists()


def test_only_an_npz_in_a_folder_is_a_place_for_a_library(tmp_path):
    with pytest.raises(UserError, match=r"name it a.csv.npz, not a.csv"):
        made().save(tmp_path / "a.csv")
    (tmp_path / "b.npz").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        made().save(tmp_path / "b.npz")


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_one_line_or_the_same_library(tmp_path, data):
    path = made().save(tmp_path / "a.npz")
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        assert TaskLibrary.load(path) == made()
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def rewritten(path, **changes):
    """The file with some of its arrays replaced, or left out where None."""
    with np.load(path) as archive:
        arrays = {**archive, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2, this tdbench reads up to 1"),
        ({"format": "something"}, "is no task library"),
        ({"format": None}, "is no task library"),
        ({"told": None}, "has no array 'told'"),
        ({"labels": LABELS[[0, 2]]}, "confirmed_values"),
        ({"n": 15}, r"labels with shape \(m, 15\)"),
        ({"n": 11}, "divisible"),
        ({"n": np.array([10, 10])}, "n must be a single int"),
        ({"searchers": np.arange(3)}, "searchers must be a list of strings"),
        ({"reference_kinds": np.array(["class"])}, "a name, a kind and labels each"),
        ({"told": np.array(["a", "b", "c"])}, "told must be numbers"),
        ({"split": "sideways"}, "split must be one of"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path, changes, message):
    path = rewritten(made().save(tmp_path / "a.npz"), **changes)
    with pytest.raises(UserError, match=message) as error:
        TaskLibrary.load(path)
    assert "a.npz" in str(error.value)


def test_pickles_are_never_loaded(tmp_path):
    path = rewritten(made().save(tmp_path / "a.npz"), told=np.array([{}, {}, {}], dtype=object))
    with pytest.raises(UserError, match="pickled objects, which are never loaded"):
        TaskLibrary.load(path)


def test_files_of_other_kinds_are_one_line(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("format.npy", b"no array")
    for name in ("text.npz", "zip.npz", "missing.npz"):
        with pytest.raises(UserError, match=name):
            TaskLibrary.load(tmp_path / name)
