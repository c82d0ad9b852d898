"""The short form of the hostile suite: a few of the rudest searchers, reductions and imports, each in one command."""

from __future__ import annotations

from pathlib import Path

import rude
import test_rude_imports as imports
import test_rude_reductions as reductions
import test_rude_searchers as searchers

SEARCHERS = (
    *("ask-ragged", "ask-huge-int", "ask-raises-in-repr", "ask-exits-unpickled", "ask-above-by-4-ulp", "recommend-nan"),
    *("sys-exit-in-factory", "os-exit-in-ask", "segfault-in-tell", "sleeps-in-ask", "loops-in-recommend"),
    *("says-surrogate", "says-fifty-megabytes", "pipe-header-and-waits", "pipe-half-and-exits", "pipe-floods"),
    *("leaves-a-session-and-exits", "fork-holds-the-pipe-and-exits", "noise-on-stderr", "scribbles-on-problem"),
)
REDUCTIONS = ("factory-sys-exit", "factory-odd-text", "dim-nan", "in-place", "scores-os-exit", "scores-sleep")
IMPORTS = ("exits", "segfaults", "raises_odd_text", "closes_all")
REGISTRATIONS = ("variants_raise", "variants_endless", "variants_no_function", "summary_number", "version_evil")
SOON = ("--ask-timeout", "4")


def test_rude_searchers_fail_alone(tmp_path: Path, decent: dict[str, dict[str, str]]) -> None:
    done = rude.bench(tmp_path, [*SEARCHERS[:10], *rude.DECENT, *SEARCHERS[10:]], *SOON)
    assert done.code == 0, done.err
    for name in SEARCHERS:
        rude.check_end(done.rows[name], searchers.STATUSES[name])
        assert searchers.SAID.get(name, "") in done.rows[name]["error"]
    assert {name: done.rows[name] for name in rude.DECENT} == decent
    rude.check_printed(done)
    assert (done.left, done.strewn) == ((), [])


def test_rude_reductions_fail_alone(tmp_path: Path) -> None:
    alone = reductions.bench(tmp_path / "alone", ["polite:3"], timeout=60)
    mixed = ["polite:3", *(f"{name}:3" for name in REDUCTIONS)]
    done = reductions.bench(tmp_path / "mixed", mixed, *SOON, timeout=60)
    assert done.code == 0, done.err
    for searcher in reductions.SEARCHERS:
        for name in REDUCTIONS:
            rude.check_end(done.rows[f"{searcher}+{name}:3"], reductions.EXPECTED[name])
        assert done.rows[f"{searcher}+polite:3"] == alone.rows[f"{searcher}+polite:3"]
    rude.check_printed(done)
    assert (done.left, done.strewn) == ((), [])


def test_rude_plugins_are_listed_with_their_reasons(tmp_path: Path) -> None:
    usual = imports.records(imports.listing(tmp_path / "usual", []))
    plugins = [imports.write(tmp_path / "rude", name, imports.IMPORTS[name][0]) for name in IMPORTS]
    plugins += [imports.write(tmp_path / "rude", n, body=imports.REGISTRATIONS[n][0]) for n in REGISTRATIONS]
    done = imports.listing(tmp_path, [*plugins, imports.write(tmp_path / "rude", "last")])
    listed = imports.records(done)
    assert [record for record in listed if record in usual] == usual
    assert "last" in [record["name"] for record in listed]
    expected = {**imports.IMPORTS, **imports.REGISTRATIONS}
    for name in (*IMPORTS, *REGISTRATIONS):
        assert str(expected[name][1]) in imports.reason(done, name)
    rude.check_printed(done)
    assert (done.left, done.strewn) == ((), [])
