"""A leaderboard file as people and processes leave it: edited in a spreadsheet, cut off by a kill."""

from __future__ import annotations

import csv
import io
import math
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from tdbench.base.errors import UserError
from tdbench.store.rows import COLUMNS, Leaderboard, Row, append_row, read_rows, to_csv

SHIPPED = ROOT / "leaderboards" / "digits-n50-r4-s0-b28d80e3ec15.csv"
EXAMPLE = read_rows(SHIPPED)[0]
NOTES = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NOTES |= st.sampled_from(["two\nlines", 'a "quoted" word', "a, b", "", " "])


def row(run: str, **changes: object) -> Row:
    return replace(EXAMPLE, run=run, **changes)


def cells_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def edited(rows: list[Row], names: list[str], places: list[int], notes: list[str], ending: str) -> str:
    """The file of these rows with columns of a user's own at those places."""
    lines = cells_of(to_csv(rows))
    for name, place in zip(names, places, strict=True):
        for i, line in enumerate(lines):
            line.insert(place, name if i == 0 else notes[i % len(notes)])
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=ending).writerows(lines)
    return out.getvalue()


@given(
    st.lists(st.sampled_from(["note", "my score", "plot\nme"]), unique=True, max_size=3),
    st.data(),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_columns_of_a_user_survive_an_append_and_a_rewrite(tmp_path_factory, names, data, ending, bom, ended, differs):
    places = [data.draw(st.integers(0, len(COLUMNS) + i)) for i in range(len(names))]
    notes = data.draw(st.lists(NOTES, min_size=1, max_size=3))
    path = tmp_path_factory.mktemp("board") / "space.csv"
    text = edited([row("a-1"), row("b-1")], names, places, notes, ending)
    path.write_bytes(("\ufeff" * bom + (text if ended else text.removesuffix(ending))).encode())
    before = cells_of(text)
    assert [r.run for r in read_rows(path)] == ["a-1", "b-1"]

    append_row(path, row("c-1"))
    append_row(path, row("a-1", told=0.125 if differs else EXAMPLE.told))
    append_row(path, row("d-1"))

    written = path.read_bytes().decode()
    assert written.startswith("\ufeff") == bom
    assert written.endswith(ending)
    after = cells_of(written)
    assert after[0] == before[0]
    own = [i for i, name in enumerate(before[0]) if name not in COLUMNS]
    assert [[line[i] for i in own] for line in after[1:3]] == [[line[i] for i in own] for line in before[1:]]
    assert read_rows(path) == [row("a-1", told=0.125 if differs else EXAMPLE.told), row("b-1"), row("c-1"), row("d-1")]


def test_a_row_of_the_same_run_is_replaced_only_where_it_differs_in_more_than_the_time(tmp_path):
    path = tmp_path / "space.csv"
    append_row(path, row("a-1"))
    append_row(path, row("b-1"))
    before = path.read_bytes()
    assert not append_row(path, row("a-1", seconds=9e9, timestamp="2001-01-01T00:00:00+00:00"))
    assert path.read_bytes() == before
    assert append_row(path, row("a-1", versions="python=4"))
    assert [(r.run, r.versions) for r in read_rows(path)] == [("a-1", "python=4"), ("b-1", EXAMPLE.versions)]


@pytest.mark.parametrize("keep", [0, 1, 2, 100, -2, -1])
def test_a_line_that_was_cut_off_is_no_row_and_is_written_again(tmp_path, keep):
    """Its first byte comes last, so what is cut off begins with a zero byte, however much of it is there."""
    path = tmp_path / "space.csv"
    append_row(path, row("a-1"))
    line = to_csv([row("b-1")]).split("\n")[1] + "\n"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" + line.encode()[1:][:keep])
    assert [r.run for r in read_rows(path)] == ["a-1"]
    append_row(path, row("b-1"))
    assert path.read_bytes() == whole + line.encode()


def test_a_last_line_that_an_editor_left_without_its_end_is_a_row(tmp_path):
    path = tmp_path / "space.csv"
    path.write_text(to_csv([row("a-1"), row("b-1")]).removesuffix("\n"))
    append_row(path, row("c-1"))
    assert path.read_text() == to_csv([row("a-1"), row("b-1"), row("c-1")])


def test_what_another_process_adds_is_seen_and_what_it_changes_too(tmp_path):
    path = tmp_path / "space.csv"
    mine = Leaderboard(path)
    mine.add(row("a-1"))
    append_row(path, row("b-1"))
    assert not mine.add(row("b-1"))
    mine.add(row("c-1"))
    path.write_text(to_csv([row("c-1"), row("e-1")]))
    mine.add(row("e-1"))
    mine.add(row("a-1"))
    assert [r.run for r in read_rows(path)] == ["c-1", "e-1", "a-1"]
    path.unlink()
    mine.add(row("a-1"))
    assert [r.run for r in read_rows(path)] == ["a-1"]


def test_an_append_writes_its_line_and_reads_no_other(tmp_path, monkeypatch):
    """Costs are counted, not timed: bytes written for one row, whatever the file holds."""
    written: list[int] = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: written.append(len(data)) or pwrite(file, data, at))
    counts = []
    for rows in (10, 1000):
        path = tmp_path / f"{rows}.csv"
        path.write_text(to_csv([row(f"{i:012x}-1") for i in range(rows)]))
        board = Leaderboard(path)
        board.check()
        inode = path.stat().st_ino
        written.clear()
        monkeypatch.setattr(Path, "read_bytes", None)  # the file is not read again
        for i in range(3):
            board.add(row(f"f{i:011x}-1"))
        monkeypatch.undo()
        monkeypatch.setattr(os, "pwrite", lambda file, data, at: written.append(len(data)) or pwrite(file, data, at))
        counts.append(sum(written))
        assert path.stat().st_ino == inode
        assert len(read_rows(path)) == rows + 3
    assert counts[0] == counts[1] == 3 * len(to_csv([row(f"{0:012x}-1")]).split("\n")[1] + "\n")


def _append_for_ever(path: Path, name: str) -> None:
    board = Leaderboard(path)
    error = "x" * 20_000  # pages long: a write of it can be cut off
    for i in range(10**6):
        board.add(row(f"{name}{i}-1", error=error[: 1 + i * 997 % 20_000]))


def test_kills_while_rows_are_appended_leave_whole_rows(tmp_path):
    path, moments = tmp_path / "space.csv", random.Random(0)
    context = multiprocessing.get_context("fork")
    seen: list[str] = []
    for kill in range(30):
        process = context.Process(target=_append_for_ever, args=(path, f"k{kill}x"))
        process.start()
        until = time.monotonic() + moments.uniform(0.02, 0.1)
        while time.monotonic() < until:
            if path.exists():
                rows = read_rows(path)  # while it is being written
                assert [r.run for r in rows][: len(seen)] == seen
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if path.exists():
            rows = read_rows(path)
            assert [r.run for r in rows][: len(seen)] == seen
            assert all(r == row(r.run, error=r.error) and set(r.error) == {"x"} for r in rows)
            seen = [r.run for r in rows]
    assert len(seen) > 30
    append_row(path, row("last-1"))
    assert [r.run for r in read_rows(path)] == [*seen, "last-1"]
    assert path.read_bytes().count(b"\n") == len(seen) + 2
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.replace(",0.001,", ",small,"), "row 1: column 'lr' must be of type float, got 'small'"),
        (lambda s: s.replace(",1000,", "," + "9" * 5000 + ",", 1), "row 1: column 'budget' must be of type int"),
        (lambda s: s.replace(",False,", ",maybe,"), "row 1: column 'sees_images' must be of type bool, got 'maybe'"),
        (lambda s: s.replace("confirmed_10", "told"), "no column 'confirmed_10'"),
        (lambda s: s.replace("\n", ",run\n", 1), "the column 'run' twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, change, said):
    path = tmp_path / "space.csv"
    text = to_csv([EXAMPLE])
    path.write_text(change(text))
    assert path.read_text() != text
    for use in (read_rows, lambda path: Leaderboard(path).check()):
        with pytest.raises(UserError) as error:
            use(path)
        assert str(path) in str(error.value) and said in str(error.value)
        assert len(str(error.value)) < 400


def test_no_number_changes_when_a_file_is_rewritten(tmp_path):
    path = tmp_path / "space.csv"
    path.write_bytes(SHIPPED.read_bytes())
    append_row(path, replace(EXAMPLE, confirmed=math.nan))
    assert path.read_text() == to_csv([replace(EXAMPLE, confirmed=math.nan), *read_rows(SHIPPED)[1:]])
