"""The leaderboard: a table that anyone can open, and that loses nothing."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import multiprocessing
import resource
import typing

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

from tdbench.base.errors import UserError
from tdbench.space.settings import SPACE_COLUMNS
from tdbench.store import rows as store_rows
from tdbench.store.rows import (
    CHECKPOINTS,
    COLUMNS,
    Row,
    append_row,
    checkpoint_column,
    leaderboard_path,
    read_rows,
    row_from_json,
    row_to_json,
    to_csv,
)

TYPES = typing.get_type_hints(Row)
VALUES = {
    str: st.text(max_size=20) | st.sampled_from(["=1+1", "+1", "-1", "@x", "'", "1.10", "0012e3", "nan", 'a,"b"\n']),
    int: st.integers(-(2**62), 2**62),
    float: st.floats(),
    bool: st.booleans(),
}
ROWS = st.builds(Row, **{column: VALUES[TYPES[column]] for column in COLUMNS})
SHIPPED = sorted((ROOT / "leaderboards").rglob("*.csv"))


def row(**changes):
    values = {column: {str: "x", int: 1, float: 0.5, bool: False}[TYPES[column]] for column in COLUMNS}
    return Row(**{**values, **changes})


def as_kept(value):
    """What a cell keeps of a value: one line of text that UTF-8 can hold."""
    if isinstance(value, str):
        return value.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace").decode()
    return value


def same(a, b):
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@given(st.lists(ROWS, min_size=1, max_size=3, unique_by=lambda r: r.run))
@example([row(searcher='=cmd|"/C calc"!A0', error="one,\ntwo\r\n'three'\x00\ud800", told=-math.inf)])
def test_rows_come_back_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("board") / "space.csv"
    path.write_text(to_csv(rows), encoding="utf-8", newline="")
    for read, written in zip(read_rows(path), rows, strict=True):
        for column in COLUMNS:
            assert same(getattr(read, column), as_kept(getattr(written, column))), column


@given(ROWS)
def test_no_text_cell_can_become_a_formula_or_a_number(written):
    cells = next(csv.DictReader(io.StringIO(to_csv([written]), newline="")))
    for column, cell in cells.items():
        if TYPES[column] is str:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
            with pytest.raises(ValueError, match="could not convert"):
                float(cell)


@given(ROWS)
def test_a_row_is_one_line_of_the_file(written):
    lines = to_csv([written]).split("\n")
    assert len(lines) == 3
    assert lines[-1] == ""
    assert "\r" not in lines[1]


@given(ROWS)
def test_a_row_survives_the_log(written):
    back = row_from_json(row_to_json(written))
    assert all(same(getattr(back, c), getattr(written, c)) for c in COLUMNS)


def test_pandas_reads_every_column_with_its_type(tmp_path):
    path = tmp_path / "space.csv"
    append_row(path, row(run="a", confirmed=math.nan, told=-0.25, searcher="=x"))
    append_row(path, row(run="b", status="crash"))
    frame = pd.read_csv(path)
    assert list(frame.columns) == list(COLUMNS)
    kinds = {int: "i", float: "f", bool: "b"}
    for column in COLUMNS:
        if TYPES[column] is not str:
            assert frame[column].dtype.kind == kinds[TYPES[column]], column
        else:
            assert pd.api.types.is_string_dtype(frame[column]), column
    assert math.isnan(frame.confirmed[0])
    np.testing.assert_array_equal(frame.told, [-0.25, 0.5])


def test_an_identity_of_digits_alone_keeps_its_zeros_in_pandas(tmp_path):
    path = tmp_path / "space.csv"
    append_row(path, row(space="001234567890", searcher_version="1.10"))
    frame = pd.read_csv(path)
    assert (frame.space[0], frame.searcher_version[0]) == ("'001234567890", "'1.10")
    assert read_rows(path)[0].space == "001234567890"


def test_a_run_is_one_row_however_often_it_is_appended(tmp_path):
    path = leaderboard_path(tmp_path, "digits-n50")
    for run in ("a", "b", "a"):
        append_row(path, row(run=run))
    assert [r.run for r in read_rows(path)] == ["a", "b"]
    assert path == tmp_path / "leaderboards" / "digits-n50.csv"


def test_failed_runs_are_rows_too(tmp_path):
    path = tmp_path / "space.csv"
    for status in ("crash", "timeout", "invalid"):
        append_row(path, row(run=status, status=status, confirmed=math.nan))
    assert [r.status for r in read_rows(path)] == ["crash", "timeout", "invalid"]


def test_an_endless_error_text_leaves_a_file_that_can_be_read(tmp_path):
    path = tmp_path / "space.csv"
    append_row(path, row(error="x" * 10**6))
    assert read_rows(path)[0].error.startswith("xxx")


def _append(path, name, count):
    for i in range(count):
        append_row(path, row(run=f"{name}-{i}"))


def test_processes_that_append_at_once_lose_no_row(tmp_path):
    path = tmp_path / "board" / "space.csv"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(path, name, 20)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(r.run for r in read_rows(path)) == sorted(f"{name}-{i}" for name in "ab" for i in range(20))


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b"\x00", ("x" * 200_000).encode()])
def test_a_file_that_is_no_leaderboard_is_one_line_and_is_left_alone(tmp_path, content):
    path = tmp_path / "space.csv"
    path.write_bytes(content)
    for use in (lambda: read_rows(path), lambda: append_row(path, row())):
        with pytest.raises(UserError, match=r"space\.csv") as error:
            use()
        assert "\n" not in str(error.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", [lambda s: s[: len(s) // 2], lambda s: s.replace(",0.5,", ",half,")])
def test_a_damaged_row_is_one_line_that_names_the_row(tmp_path, damage):
    header, line = to_csv([row()]).split("\n")[:2]
    path = tmp_path / "space.csv"
    path.write_text(f"{header}\n{line}\n{damage(line)}\n")
    with pytest.raises(UserError, match="row 2"):
        read_rows(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_shipped_leaderboards_are_read_and_written_again_equal(path):
    assert to_csv(read_rows(path)) == path.read_text(encoding="utf-8")


def test_shipped_leaderboards_are_found():
    assert len(SHIPPED) >= 17


@pytest.fixture
def later_version(monkeypatch):
    """A version whose rows have two columns more, each with a default."""

    @dataclasses.dataclass(frozen=True)
    class LaterRow(Row):
        network: str = "lenet"
        kept: float = math.nan

    fields = dataclasses.fields(LaterRow)
    monkeypatch.setattr(store_rows, "Row", LaterRow)
    monkeypatch.setattr(store_rows, "COLUMNS", tuple(field.name for field in fields))
    monkeypatch.setattr(store_rows, "_TYPES", {**TYPES, "network": str, "kept": float})
    return LaterRow


def test_a_file_from_before_a_column_existed_is_read_with_its_default(tmp_path, later_version):
    path = tmp_path / "space.csv"
    path.write_text(SHIPPED[0].read_text(encoding="utf-8"), encoding="utf-8")
    rows = read_rows(path)
    assert {r.network for r in rows} == {"lenet"}
    assert all(math.isnan(r.kept) for r in rows)
    assert rows[0].space == "7750c001cfba"


def test_appending_to_an_older_file_keeps_its_rows_and_adds_the_column(tmp_path, later_version):
    path = tmp_path / "space.csv"
    path.write_text(SHIPPED[0].read_text(encoding="utf-8"), encoding="utf-8")
    before = [r.run for r in read_rows(path)]
    append_row(path, later_version(**{**dataclasses.asdict(row(run="new")), "network": "wide"}))
    after = read_rows(path)
    assert [r.run for r in after] == [*before, "new"]
    assert [r.network for r in after] == ["lenet"] * len(before) + ["wide"]
    assert path.read_text(encoding="utf-8").startswith(",".join(COLUMNS) + ",network\n")  # none has a `kept`


def test_a_column_without_a_default_must_be_there(tmp_path):
    path = tmp_path / "space.csv"
    path.write_text(to_csv([row()]).replace("confirmed_10", "confirmed_11"), encoding="utf-8")
    with pytest.raises(UserError, match="it has no column 'confirmed_10'"):
        read_rows(path)


def test_every_checkpoint_and_setting_of_a_space_has_its_column():
    assert {*map(checkpoint_column, CHECKPOINTS), *SPACE_COLUMNS} <= set(COLUMNS)
    assert row(confirmed_10=0.1, confirmed_20=0.2, confirmed_50=0.3, confirmed=0.4).checkpoints == (0.1, 0.2, 0.3, 0.4)


def test_a_missing_leaderboard_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_rows(tmp_path / "space.csv")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        append_row(tmp_path / "file" / "space.csv", row())


@pytest.mark.parametrize("room", [0, 1, 30, 100])
def test_a_disk_that_is_full_within_a_row_leaves_the_old_rows(tmp_path, room):
    path = tmp_path / "space.csv"
    append_row(path, row(run="old"))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, limits[1]))
    try:
        with pytest.raises(UserError, match=r"space\.csv cannot be written: File too large"):
            append_row(path, row(run="new"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before


def test_every_column_is_explained():
    documented = typing.cast(str, Row.__doc__)
    missing = [field.name for field in dataclasses.fields(Row) if field.name not in documented]
    assert not missing
