"""Many rude searchers in one bench: each fails alone, with a status and a text, and nobody else notices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rude
from rude import CHEAPEST, DECENT, Done

pytestmark = pytest.mark.long  # `test_rudest` is the short form
FAILURE = "crash|timeout|invalid"
ANY = f"ok|{FAILURE}"
WHERE = ("factory", "ask", "tell", "recommend")

# Of an answer in ask, and in recommend where nothing else is said.
ANSWERS = {
    "nothing": "invalid",
    "ragged": "invalid",
    "huge-int": "invalid",
    "torch": "ok|invalid",
    "torch-gradient": "invalid|crash",
    "raises": "invalid|crash",
    "raises-in-repr": "invalid|crash",
    "list-of-raises": "invalid|crash",
    "exits-in-array": "crash",
    "exits-unpickled": "invalid|crash",
    "exits-unpickled-object": "invalid|crash",
    "exits-unpickled-array": "ok|invalid",
    "huge": "invalid|crash",
    "huge-list": "invalid|crash",
    "huge-view": "invalid|crash",
    "endless": FAILURE,
    "generator": "invalid|crash",
    "nested": "invalid|crash",
    "too-many": "invalid",
    "no-dimension": "invalid",
    "empty": "invalid",
    "five-dimensions": "invalid",
    "complex": "invalid",
    "words": "invalid",
    "bytes": "invalid",
    "dates": "invalid",
    "records": "invalid",
    "dictionary": "invalid",
    "bool": "ok|invalid",
    "nan": "invalid",
    "infinite": "invalid",
    "infinite-long": "invalid",
    "above-by-4-ulp": "ok",
    "above-by-1-ulp": "ok",
    "above": "invalid",
    "below-a-little": "ok|invalid",
    "below": "invalid",
    "float32": "ok",
    "fortran": "ok",
    "backwards": "ok",
    "big-endian": "ok",
    "read-only": "ok",
}
ENDS = (
    *("sys-exit", "sys-exit-text", "os-exit", "segfault", "abort", "sigkill", "sigint", "sigterm", "kills-group"),
    *("no-memory", "memory-error", "recursion", "keyboard", "generator-exit", "stop-iteration", "eof-error"),
    *("broken-pipe", "timeout-error"),
)
WAITS = ("sleeps", "loops", "holds", "ignores-and-sleeps", "stops")
SAYS = (
    *("surrogate", "escapes", "fifty-megabytes", "fifty-megabytes-of-lines", "no-text", "blank", "formula"),
    *("raises-in-str", "says-a-number", "exits-in-str", "sleeps-in-str", "not-an-exception", "odd-name", "long-name"),
    *("many-arguments", "bad-unicode"),
)
EXPECTED: dict[str, dict[str, str]] = {
    "answers": {
        **{f"{where}-{name}": statuses for name, statuses in ANSWERS.items() for where in ("ask", "recommend")},
        "recommend-nothing": "ok",  # it makes none
        "answers-politely": "ok",
    },
    "ends": {
        f"{what}-in-{where}": "ok|crash" if what == "sigint" else "crash"  # a worker may leave Ctrl-C to its parent
        for what in ENDS
        for where in WHERE
    },
    "waits": {f"{what}-in-{where}": "timeout" for what in WAITS for where in WHERE},
    "texts": {
        **{f"says-{what}": "timeout|crash" if what == "sleeps-in-str" else "crash" for what in SAYS},
        "is-nothing": "crash|invalid",
        "is-a-class": "crash|invalid",
        "has-no-tell": "crash|invalid",
        "recommend-is-5": "crash|invalid",
        "recommend-raises-when-looked-for": "crash|invalid",
    },
    "pipes": {
        "pipe-garbage": FAILURE,
        "pipe-garbage-and-waits": FAILURE,
        "pipe-lines": FAILURE,
        "pipe-header": FAILURE,
        "pipe-header-and-waits": FAILURE,
        "pipe-huge-header": FAILURE,
        "pipe-huge-header-and-waits": FAILURE,
        "pipe-ones-and-waits": FAILURE,
        "pipe-half-and-waits": FAILURE,
        "pipe-half-little-and-waits": FAILURE,
        "pipe-half-and-exits": FAILURE,
        "pipe-drips": FAILURE,
        "pipe-floods": FAILURE,
        "pipe-floods-with-zeros": FAILURE,
        "pipe-closes-all": "crash",
        "pipe-closes-all-and-waits": "crash|timeout",
        "pipe-closes-standard": "ok|crash",
        "pipe-shuts-down": "ok|crash|timeout",
        "pipe-does-not-block": "ok|crash|timeout",
        "pipe-reads": ANY,
        "pipe-no-more-files": "ok|crash",
    },
    "processes": {
        "leaves-a-child": "ok",
        "leaves-a-session": "ok",
        "leaves-a-session-and-exits": "crash",
        "leaves-a-session-and-waits": "timeout",
        "leaves-a-daemon": "ok",
        "leaves-a-daemon-and-raises": "crash",
        "leaves-many": "ok",
        "fork-holds-the-pipe": "ok",
        "fork-holds-the-pipe-and-exits": "crash",
        "fork-answers-too": ANY,
        "leaves-a-thread": "ok",
        "leaves-threads": "ok",
        "sleeps-at-exit": "ok",
        "sleeps-at-exit-and-exits": "crash",
        "noise-on-stdout": "ok",
        "noise-on-stderr": "ok",
        "noise-on-stderr-and-exits": "crash",
        "changes-folder": "ok",
        "removes-folder": "ok",
        "litters": "ok",
        "changes-environment": "ok",
        "ignores-signals": "ok",
        "sets-an-alarm": "crash",
        "closes-streams": "ok",
        "patches-everything": ANY,
    },
    "hands": {
        "polite": "ok",
        "scribbles-on-told": "ok",
        "scribbles-on-asked": "ok",
        "keeps-all": "ok",
        "scribbles-on-images": "ok",
        "scribbles-on-problem": "ok",
        "peeks": "ok",
    },
}
STATUSES = {name: statuses for family in EXPECTED.values() for name, statuses in family.items()}

# In one bench: each answer in ask, each end and each wait in one place, and all of the other families.
MIXED = [
    *(f"sleeps-in-{where}" for where in WHERE),  # the factory's first: it is the one that takes longest
    *("loops-in-ask", "holds-in-recommend", "ignores-and-sleeps-in-tell", "stops-in-ask"),
    *(f"ask-{name}" for name in ANSWERS),
    *(f"recommend-{name}" for name in ("ragged", "huge-int", "torch", "raises", "exits-unpickled", "huge", "nan")),
    "answers-politely",
    *(f"{what}-in-{WHERE[i % len(WHERE)]}" for i, what in enumerate(ENDS)),
    *(f"{what}-in-ask" for what in ("sys-exit-text", "os-exit", "segfault", "sigkill", "no-memory")),
    *(name for family in ("texts", "pipes", "processes", "hands") for name in EXPECTED[family]),
]
MIXED = list(dict.fromkeys(MIXED))
SAID = {
    "ask-above": "1.000000001",
    "ask-below": "-1e-09",
    "os-exit-in-ask": "exit code 0",
    "segfault-in-ask": "SIGSEGV",
    "sigkill-in-ask": "SIGKILL",
    "no-memory-in-ask": "memory limit of 1500 MiB",
    "sys-exit-text-in-ask": "a text of two lines",
    "says-surrogate": "RuntimeError: a file named caf",
    "says-escapes": "lines",
    "says-fifty-megabytes": "RuntimeError: xxxxx",
    "says-no-text": "RuntimeError",
    "says-raises-in-str": "RaisesInStr",
    "fork-holds-the-pipe-and-exits": "exit code 5",
    "leaves-a-session-and-exits": "exit code 7",
    "noise-on-stderr-and-exits": "exit code 9",
    "sets-an-alarm": "SIGALRM",
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A bench of the decent searchers in the midst of rude ones."""
    names = [*MIXED[:50], *DECENT, *MIXED[50:]]
    done = rude.bench(tmp_path_factory.mktemp("mixed"), names, timeout=200)
    if done.code is None:
        pytest.fail(f"the bench did not end; rows so far: {sorted(done.rows)}")
    return done


@pytest.mark.parametrize("name", MIXED)
def test_a_rude_searcher_ends_with_its_own_status_and_a_text(mixed: Done, name: str) -> None:
    assert name in mixed.rows, f"it has no row; the bench said {mixed.err[-1000:]}"
    rude.check_end(mixed.rows[name], STATUSES[name])


@pytest.mark.parametrize(("name", "said"), SAID.items())
def test_the_error_says_what_was_the_matter(mixed: Done, name: str, said: str) -> None:
    assert said in mixed.rows[name]["error"]


@pytest.mark.parametrize("name", DECENT)
def test_decent_searchers_beside_them_are_the_same_to_the_bit(
    mixed: Done, decent: dict[str, dict[str, str]], name: str
) -> None:
    assert mixed.rows[name] == decent[name]


def test_the_bench_ended_well_since_a_run_did(mixed: Done) -> None:
    assert mixed.code == 0, mixed.err[-1000:]


def test_the_bench_prints_nothing_that_is_not_for_people(mixed: Done) -> None:
    assert f"runs ended well, {sum(row['status'] != 'ok' for row in mixed.rows.values())} failed" in mixed.out
    rude.check_printed(mixed)


def test_no_process_is_left(mixed: Done) -> None:
    assert mixed.left == ()
    assert list((mixed.folder / "plugins" / "notes").glob("[0-9]*")), "no plugin noted a process: nothing was tested"


def test_nothing_is_written_outside_of_the_results(mixed: Done) -> None:
    assert mixed.strewn == []


@pytest.mark.parametrize(
    ("name", "polite"),
    [
        ("scribbles-on-told", "polite"),
        ("scribbles-on-asked", "polite"),
        ("keeps-all", "polite"),
        ("scribbles-on-images", "polite"),
        ("scribbles-on-problem", "polite"),
        ("ask-fortran", "answers-politely"),
        ("ask-backwards", "answers-politely"),
        ("ask-big-endian", "answers-politely"),
        ("ask-read-only", "answers-politely"),
    ],
)
def test_arrays_are_copies_which_neither_side_can_change_for_the_other(mixed: Done, name: str, polite: str) -> None:
    left, right = (
        {k: v for k, v in mixed.rows[searcher].items() if k not in ("searcher", "run", "sees_images")}
        for searcher in (name, polite)
    )
    assert left == right


def test_a_worker_is_given_no_settings_in_its_arguments_environment_or_folder(tmp_path: Path) -> None:
    arguments = rude.bench_arguments(tmp_path, ["peeks", "random"], budget=27, batch=9)
    done = rude.tdbench(tmp_path, *arguments, TDBENCH_KEY="a secret of 128 bits")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "plugins" / "notes" / "peeked.json").read_text())
    assert found["environment"] == {}
    assert "a secret of 128 bits" not in found["initial environment"]
    assert not found["images"]
    words = found["command"].split("\0")
    for setting in ("peeks", "27", "9", "digits", rude.OUT, str(done.results)):
        assert setting not in words
    assert "pipes.py" not in found["command"]
    assert Path(found["folder"]) not in (done.results, *done.results.parents[:2])


def test_exit_status_is_1_where_all_failed(tmp_path: Path) -> None:
    names = ["ask-nan", "os-exit-in-ask", "says-surrogate", "sys-exit-in-factory"]
    done = rude.bench(tmp_path, names)
    assert done.code == 1, done.err
    assert {name: row["status"] for name, row in done.rows.items()} == {
        "ask-nan": "invalid",
        "os-exit-in-ask": "crash",
        "says-surrogate": "crash",
        "sys-exit-in-factory": "crash",
    }
    assert len([line for line in done.out.split("\n") if line.startswith("failed: ")]) == 4
    rude.check_printed(done)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ask-exits-unpickled", 1),
        ("says-fifty-megabytes", 1),
        ("ask-above-by-1-ulp", 0),
    ],
)
def test_a_run_alone_ends_as_its_bench_does(tmp_path: Path, name: str, code: int) -> None:
    plugins = [part for family in rude.FAMILIES for part in ("--plugin", tmp_path / "plugins" / f"{family}.py")]
    done = rude.tdbench(
        tmp_path, "run", "--searcher", name, *rude.as_options({**CHEAPEST, "out": rude.OUT}), *rude.TIMES, *plugins
    )
    assert done.code == code, done.err
    rude.check_end(done.rows[name], STATUSES[name])
    rude.check_printed(done)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", EXPECTED)
def test_a_whole_family_beside_decent_searchers(tmp_path: Path, family: str, decent: dict[str, dict[str, str]]) -> None:
    done = rude.bench(tmp_path, [*EXPECTED[family], *DECENT], timeout=600)
    assert done.code == 0, done.err[-1000:]
    assert done.left == ()
    assert done.strewn == []
    rude.check_printed(done)
    for name, statuses in EXPECTED[family].items():
        rude.check_end(done.rows[name], statuses)
    assert {name: done.rows[name] for name in DECENT} == decent


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", STATUSES)
def test_each_alone_beside_a_decent_searcher(tmp_path: Path, name: str, decent: dict[str, dict[str, str]]) -> None:
    done = rude.bench(tmp_path, [name, "random"], *rude.SOON)
    assert done.code == 0, done.err[-1000:]
    assert done.left == ()
    assert done.strewn == []
    rude.check_printed(done)
    rude.check_end(done.rows[name], STATUSES[name])
    assert done.rows["random"] == decent["random"]
