"""Rude reductions in one bench: each fails its own runs, and the searcher is told what it asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import rude
from rude import CHEAPEST, OUT, TIMES, Done

pytestmark = pytest.mark.long  # `test_rudest` is the short form
DECENT = ("identity", "pca:3", "clusters:3", "polite:3")
EXPECTED = {
    "factory-raises": "crash|invalid",
    "factory-odd-text": "crash|invalid",
    "factory-sys-exit": "crash",
    "factory-os-exit": "crash",
    "factory-segfault": "crash",
    "factory-sleeps": "timeout",
    "is-nothing": "crash|invalid",
    "no-dim": "crash|invalid",
    "dim-too-large": "invalid",
    "dim-zero": "invalid",
    "dim-negative": "invalid",
    "dim-huge": "crash|invalid",
    "dim-text": "crash|invalid",
    "dim-nan": "crash|invalid",
    "leaves-a-session": "ok",
    "in-place": "ok",
    "scores-raise": "crash|invalid",
    "scores-odd-text": "crash|invalid",
    "scores-sys-exit": "crash",
    "scores-os-exit": "crash",
    "scores-segfault": "crash",
    "scores-keyboard": "crash",
    "scores-sleep": "timeout",
    "scores-nan": "invalid",
    "scores-infinite": "invalid",
    "scores-too-many": "invalid",
    "scores-transposed": "invalid",
    "scores-ragged": "invalid",
    "scores-words": "invalid",
    "scores-complex": "invalid",
    "scores-huge": "crash|invalid",
    "scores-nothing": "invalid",
    "scores-exit-unpickled": "crash|invalid",
    "scores-differ": "ok",
}
SEARCHERS = ("random", "witness")
SAID = {
    "factory-raises": "raised in the factory, as it should",
    "scores-raise": "raised in scores, as it should",
    "scores-segfault": "SIGSEGV",
    "dim-too-large": "4",
    "scores-too-many": "(20, 10)",
}


def bench(folder: Path, reductions: list[str], *extra: str, timeout: float) -> Done:
    plugin = ("--plugin", folder / "plugins" / "reductions.py")
    options = rude.as_options({**CHEAPEST, "seeds": 1, "out": OUT, "searchers": ",".join(SEARCHERS)})
    arguments = ["--reductions", ",".join(reductions), *options, *TIMES, *plugin, *extra]
    return rude.tdbench(folder, "bench", *arguments, timeout=timeout)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A bench of decent reductions alone."""
    done = bench(tmp_path_factory.mktemp("alone"), list(DECENT), timeout=60)
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A bench of decent reductions in the midst of rude ones."""
    names = [f"{name}:3" for name in EXPECTED]
    done = bench(tmp_path_factory.mktemp("mixed"), [*names[:12], *DECENT, *names[12:]], timeout=200)
    if done.code is None:
        pytest.fail(f"the bench did not end; rows so far: {sorted(done.rows)}")
    return done


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_rude_reduction_ends_its_runs_with_a_status_and_a_text(mixed: Done, name: str, searcher: str) -> None:
    run = f"{searcher}+{name}:3"
    assert run in mixed.rows, f"it has no row; the bench said {mixed.err[-1000:]}"
    rude.check_end(mixed.rows[run], EXPECTED[name])


@pytest.mark.parametrize(("name", "said"), SAID.items())
def test_the_error_names_the_reduction_and_says_what_was_the_matter(mixed: Done, name: str, said: str) -> None:
    assert said in mixed.rows[f"random+{name}:3"]["error"]
    assert f"{name}:3" in mixed.rows[f"random+{name}:3"]["error"]


@pytest.mark.parametrize("name", DECENT)
def test_decent_reductions_beside_them_are_the_same_to_the_bit(mixed: Done, alone: Done, name: str) -> None:
    for searcher in SEARCHERS:
        run = searcher if name == "identity" else f"{searcher}+{name}"
        assert mixed.rows[run] == alone.rows[run]


def test_a_reduction_that_works_in_place_gives_the_same_result_as_one_that_does_not(mixed: Done) -> None:
    left, right = (
        {k: v for k, v in mixed.rows[f"witness+{name}:3"].items() if k not in ("searcher", "run")}
        for name in ("in-place", "polite")
    )
    assert left == right


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


@pytest.mark.parametrize("name", ["scores-sys-exit", "factory-sys-exit", "factory-os-exit", "scores-sleep"])
def test_a_run_whose_reduction_fails_is_a_failed_run(tmp_path: Path, name: str) -> None:
    options = rude.as_options({**CHEAPEST, "out": OUT, "searcher": "random", "reduction": f"{name}:3"})
    done = rude.tdbench(tmp_path, "run", *options, *TIMES, "--plugin", tmp_path / "plugins" / "reductions.py")
    assert done.code == 1, done.err
    rude.check_end(done.rows[f"random+{name}:3"], EXPECTED[name])
    rude.check_printed(done)
    assert done.left == ()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", EXPECTED)
def test_each_alone_beside_a_decent_reduction(tmp_path: Path, alone: Done, name: str) -> None:
    done = bench(tmp_path, [f"{name}:3", "polite:3"], *rude.SOON, timeout=90)
    assert done.code == 0, done.err[-1000:]
    assert (done.left, done.strewn) == ((), [])
    rude.check_printed(done)
    for searcher in SEARCHERS:
        rude.check_end(done.rows[f"{searcher}+{name}:3"], EXPECTED[name])
        assert done.rows[f"{searcher}+polite:3"] == alone.rows[f"{searcher}+polite:3"]
