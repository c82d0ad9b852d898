"""`--format`: the same table for people, as Markdown, CSV and JSON, with nothing else on standard output."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import CHEAP, MISBEHAVING, as_options, called, interrupted

from tdbench.base.table import Table
from tdbench.cli.printing import show

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Standard output and standard error of `tdbench ARGS`, which ends well."""

    def call(*args: object, code: int = 0) -> tuple[str, str]:
        ended, printed, error = called(capsys, *args)
        assert ended == code, error
        return printed, error

    return call


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run that was killed."""
    folder = tmp_path_factory.mktemp("killed")
    interrupted(folder)
    return folder


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_status(run: Run, out: Path) -> None:
    (record,) = json.loads(run("status", "--out", out, "--format", "json")[0])
    assert list(record) == ["space", "searcher", "seed", "status", "evaluations", "left", "error"]
    assert (record["searcher"], record["status"]) == ("random", "interrupted")
    assert record["evaluations"] + record["left"] == 400
    printed, error = run("status", "--out", out, "--format", "csv")
    assert lines_of(printed) == [{key: str(value) for key, value in record.items()}]
    assert error == f"0 of 1 runs ended, {record['left']} evaluations left in the runs that have begun\n"
    assert "| space | searcher | seed |" in run("status", "--out", out, "--format", "md")[0]
    assert run("status", "--out", out)[0].splitlines()[-1] == error.strip()


def test_bench(run: Run, tmp_path: Path) -> None:
    words = ["bench", "--searchers", "random,raises-at-start", "--seeds", 2, "--plugin", MISBEHAVING]
    words += [*as_options(CHEAP), "--out", tmp_path]
    printed, error = run(*words, "--format", "json")
    records = {record["searcher"]: record for record in json.loads(printed)}
    assert list(records["random"]) == ["space", "searcher", "runs", "told", "confirmed", "failed"]
    assert "2 runs ended well, 2 failed" in error
    again = lines_of(run(*words, "--format", "csv")[0])
    assert {line["searcher"] for line in again} == set(records)
    assert float(again[0]["confirmed"]) == records[again[0]["searcher"]]["confirmed"]


def test_searchers(run: Run) -> None:
    records = json.loads(run("searchers", "--format", "json")[0])
    assert {record["kind"] for record in records} == {"searcher", "reduction"}
    by_name = {record["name"]: record for record in records}
    assert by_name["hunch"]["sees_images"] and by_name["hunch"]["reducible"] is False
    assert by_name["nevergrad:NAME"]["variants"] > 100
    assert by_name["ntk:D"]["reducible"] is None
    assert [line["name"] for line in lines_of(run("searchers", "--format", "csv")[0])] == list(by_name)


def test_a_plugin_that_fails_does_not_spoil_the_json(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_library\n")
    printed, error = run("searchers", "--plugin", broken, "--format", "json")
    assert json.loads(printed)
    assert "failed to load: plugin broken" in error


def test_doctor(run: Run) -> None:
    parts = {record["part"]: record["state"] for record in json.loads(run("doctor", "--format", "json")[0])}
    assert parts["engine reference"] == "available"
    assert {line["part"]: line["state"] for line in lines_of(run("doctor", "--format", "csv")[0])} == parts


def test_check_of_a_searcher_that_fails(run: Run) -> None:
    words = ["check", "same-vector", "--plugin", MISBEHAVING]
    printed, error = run(*words, "--format", "json", code=1)
    records = json.loads(printed)
    assert {record["passed"] for record in records} == {True, False}
    assert all(record["message"] for record in records)
    assert f"of {len(records)} checks failed" in error


NUMBERS = Table("a_b", ("name", "x"), (("<i>", "1"), ("=2", "-")), ("note",))
RECORDS: list[dict[str, Any]] = [{"name": "<i>", "x": 1.5}, {"name": "=2", "x": float("nan")}, {"name": "", "x": None}]


def test_cells_cannot_be_formulas_or_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show("csv", [NUMBERS], RECORDS)
    assert capsys.readouterr().out == "name,x\n<i>,1.5\n'=2,\n,\n"
    show("md", [NUMBERS], RECORDS)
    assert (
        capsys.readouterr().out == "## a\\_b\n\n| name | x |\n|---|---:|\n| &lt;i&gt; | 1 |\n| =2 | - |\n\n- note\n\n"
    )


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    show("json", [NUMBERS], RECORDS, lines=["beside"])
    printed = capsys.readouterr()
    assert [record["x"] for record in json.loads(printed.out)] == [1.5, None, None]
    assert printed.err == "beside\n"
    show("json", [NUMBERS], RECORDS, document={"all": RECORDS}, lines=["in the document"])
    printed = capsys.readouterr()
    assert list(json.loads(printed.out)) == ["all"]
    assert printed.err == ""


def test_a_narrow_terminal_cuts_no_number_and_breaks_only_the_last_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    prose = "eleven words that are far too long to stand on one line"
    show("table", [Table("", ("name", "what it is"), (("x" * 9, prose),), text=(0, 1))], [])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 60  # with the codes of colours
    assert "x" * 9 in printed
    assert " ".join(printed.split()).count("eleven") == 1
    show("table", [Table("", ("name", "a", "b"), (("x" * 9, "1" * 20, "2" * 20),))], [])
    printed = capsys.readouterr().out
    assert "a " + "1" * 20 in printed.replace("\n", " ")
    assert "2" * 20 in printed
