"""Reductions in a run: what a searcher is asked for, what the log keeps, what a leaderboard calls it, how it fails."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import (
    CHEAP,
    MISBEHAVING,
    ROOT,
    as_options,
    called,
    interrupted,
    one_error,
    run_options,
    table,
    tdbench,
)

import tdbench as package
from tdbench import Problem, TaskSpace, UserError
from tdbench.arena.campaign import Result
from tdbench.report.pictures import one_line
from tdbench.searchers.loading import load_plugins
from tdbench.searchers.reduction import ReductionProblem
from tdbench.settings import RunSettings
from tdbench.store.log import digest
from tdbench.store.rows import read_rows
from tdbench.testing import ReductionContract


def run(out: Path, **settings: Any) -> Result:
    return package.run(**{"searcher": "random", "out": out, **CHEAP, **settings})


def bench(out: Path, searchers: Any, reductions: Any, **settings: Any) -> list[Result]:
    return package.bench(searchers, **{"seeds": 1, "reductions": reductions, "out": out, **CHEAP, **settings})


def searchers(results: list[Result]) -> list[str]:
    return [result.row.searcher for result in results]


def logged(out: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(out / "log.sqlite") as db:
        return db.execute(query).fetchall()


# what is asked, scored and kept


def test_a_searcher_is_asked_in_few_dimensions_and_its_labelings_are_of_all_images(tmp_path: Path) -> None:
    run(tmp_path, reduction="pca:3", budget=10)
    space = TaskSpace(n=10, steps=6)
    problem = Problem(dim=3, n_images=10, n_positives=2, batch_size=10, budget=10, seed=0)
    plugins = load_plugins()
    asked = plugins.searcher("random")[0].make(problem).ask(10)
    pca = plugins.reductions["pca"].make(ReductionProblem(3, 10, 2, space.images))
    assert logged(tmp_path, "SELECT digest FROM ask") == [(digest(asked),)]
    labels = [np.unpackbits(np.frombuffer(blob, np.uint8), count=10) for (blob,) in logged(tmp_path, LABELS)]
    assert np.array_equal(labels, space.decode(pca.scores(asked)))


LABELS = "SELECT labels FROM evaluation ORDER BY evaluation"


def test_a_recommendation_is_reduced_too(tmp_path: Path) -> None:
    result = run(tmp_path, searcher="cmaes", reduction="clusters:4")
    space = TaskSpace(n=10, steps=6)
    cluster_of = load_plugins().reductions["clusters"].make(ReductionProblem(4, 10, 2, space.images))
    reachable = {row.tobytes() for row in space.decode(cluster_of.scores(np.random.default_rng(0).random((500, 4))))}
    assert result.labels is not None
    assert result.labels.tobytes() in reachable


def test_the_same_settings_give_the_same_result(tmp_path: Path) -> None:
    settings = {"searcher": "cmaes", "reduction": "features:3"}
    first, second = run(tmp_path / "a", **settings), run(tmp_path / "b", **settings)
    assert np.array_equal(first.told, second.told)
    assert table(tmp_path / "a") == table(tmp_path / "b")


# names


def test_a_leaderboard_names_the_reduction_its_version_and_that_it_looked_at_the_images(tmp_path: Path) -> None:
    rows = [result.row for result in bench(tmp_path, "random", ["identity", "pca:3", "projection:3"], plugins=PLUGINS)]
    version = rows[0].searcher_version
    assert [(row.searcher, row.searcher_version, row.sees_images) for row in rows] == [
        ("random", version, False),
        ("random+pca:3", f"{version}+{version}", True),
        ("random+projection:3", version, False),  # a file has no version
    ]


PLUGINS = (MISBEHAVING,)


def test_what_follows_from_a_leaderboard_keeps_reductions_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    bench(out, "random", ["identity", "pca:3", "pca:4"], seeds=2)
    names = ("random", "random+pca:3", "random+pca:4")
    ranked = json.loads(called(capsys, "leaderboard", "--out", out, "--format", "json")[1])
    assert {s["searcher"]: len(s["runs"]) for s in ranked["tables"][0]["standings"]} == dict.fromkeys(names, 2)
    compared = json.loads(called(capsys, "compare", out, "--format", "json")[1])["tables"][0]["comparisons"]
    assert {frozenset((c["a_searcher"], c["b_searcher"])) for c in compared} == {
        frozenset((a, b)) for a in names for b in names if a != b
    }
    assert called(capsys, "export", "--format", "ioh", "--out", out, "--to", tmp_path / "ioh")[0] == 0
    assert len([path for path in (tmp_path / "ioh").iterdir() if path.is_dir()]) == 3
    assert called(capsys, "report", "--out", out)[0] == 0
    assert all(f">{name}<" in (out / "report.html").read_text() for name in names)
    assert "random+pca:3" in called(capsys, "status", "--out", out)[1]


def test_a_name_too_long_for_a_figure_keeps_its_reduction_apart_from_others() -> None:
    shown = [one_line(f"twopointsde+features:{dim}", 18) for dim in (10, 20)]
    assert shown == ["twopointsde…res:10", "twopointsde…res:20"]


# the key of a run


def test_runs_without_a_reduction_keep_the_keys_that_they_had_before_there_were_reductions() -> None:
    golden = {("digits", "b28d80e3ec15"): "d76436c39d0c", ("cifar100-sample", "7750c001cfba"): "26e585c08ef9"}
    for (source, identity), key in golden.items():
        space: Any = SimpleNamespace(source=source, identity=identity)
        assert RunSettings("cmaes", data=source, budget=1000, seed=3).key(space) == key
        assert RunSettings("cmaes", data=source, budget=1000, seed=3, reduction="identity").key(space) == key


def test_the_shipped_leaderboards_still_name_the_runs_that_their_settings_give() -> None:
    rows = [row for path in (ROOT / "leaderboards").glob("*.csv") for row in read_rows(path) if "+" not in row.searcher]
    assert rows
    for row in rows:
        space: Any = SimpleNamespace(source=row.data, identity=row.space)
        names = ("data", "n", "ratio", "space_seed", "seed", "budget", "batch", "replicates", "noise", "split")
        same = {name: getattr(row, name) for name in (*names, "confirm", "steps", "lr", "recommend")}
        assert row.run.startswith(RunSettings(row.searcher, **same).key(space))


def test_a_reduction_has_a_key_of_its_own() -> None:
    space: Any = SimpleNamespace(source="digits", identity="b28d80e3ec15")
    keys = {RunSettings("cmaes", reduction=name).key(space) for name in ("identity", "pca:3", "pca:4", "ntk:3")}
    assert len(keys) == 4


def test_a_log_from_before_reductions_goes_on(tmp_path: Path) -> None:
    interrupted(tmp_path)
    ((recorded,),) = logged(tmp_path, "SELECT settings FROM run")
    before = {field.name for field in dataclasses.fields(RunSettings) if not field.metadata.get("later")}
    assert set(json.loads(recorded)) == before  # so it is such a log
    assert tdbench("run", *run_options(tmp_path), "--resume").returncode == 0


def test_a_log_from_before_reductions_is_not_gone_on_with_on_other_images(tmp_path: Path) -> None:
    interrupted(tmp_path, "--reduction", "identity")
    with sqlite3.connect(tmp_path / "log.sqlite") as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("UPDATE run SET space = 'feedfeedfeed', key = 'another'")
        db.execute("UPDATE space SET identity = 'feedfeedfeed'")
    done = tdbench("run", *run_options(tmp_path), "--resume")
    assert done.returncode == 2
    assert "feedfeedfeed" in done.stderr


# resuming


def test_a_reduction_that_is_another_on_resume_is_reported_and_not_resumed(tmp_path: Path) -> None:
    extra = ("--plugin", MISBEHAVING, "--reduction", "drawn-anew:4")
    interrupted(tmp_path, *extra)
    done = tdbench("run", *run_options(tmp_path, *extra), "--resume")
    assert done.returncode == 1
    assert "not reproducible: on resume reduction drawn-anew:4 gives other labelings" in done.stdout
    assert [row["status"] for row in table(tmp_path)] == ["invalid"]


# failing


@pytest.mark.parametrize(
    ("reduction", "said"),
    [
        ("broken-scores:3", "crash: reduction 'broken-scores:3' raised RuntimeError: raised in scores, as it should"),
        ("nan-scores:3", "invalid: reduction 'nan-scores:3' gave NaN or infinite scores"),
        ("transposed-scores:3", "with shape (20, 10), but it had shape (10, 20)"),
        ("word-scores:3", "invalid: reduction 'word-scores:3' must give numbers with shape (20, 10)"),
        ("broken-factory:3", "crash: reduction 'broken-factory:3' raised RuntimeError: raised in the factory"),
        ("no-dim:3", "crash: reduction 'no-dim:3' raised AttributeError"),
        ("zero-dim:3", "invalid: reduction 'zero-dim:3' cannot be used: its dim must be 3, got 0"),
        ("other-dim:3", "its dim must be 3, got 4"),
    ],
)
def test_a_reduction_that_fails_makes_a_row_that_says_why(tmp_path: Path, reduction: str, said: str) -> None:
    result = run(tmp_path, reduction=reduction, plugins=PLUGINS, batch=20)
    assert said in f"{result.row.status}: {result.row.error}"
    assert read_rows(result.leaderboard) == [result.row]


def test_a_reduction_that_cannot_be_made_fails_its_own_runs_alone(tmp_path: Path) -> None:
    results = bench(tmp_path, "random", ["identity", "broken-factory:3", "pca:3"], plugins=PLUGINS, seeds=2)
    assert [result.row.status for result in results] == ["ok"] * 2 + ["crash"] * 2 + ["ok"] * 2
    alone = bench(tmp_path / "alone", "random", ["identity", "pca:3"], seeds=2)
    assert [r.row.confirmed for r in results if r.row.status == "ok"] == [r.row.confirmed for r in alone]


# bench


def test_reductions_are_an_axis(tmp_path: Path) -> None:
    results = bench(tmp_path, ["random", "cmaes"], ["identity", "pca:3"], seeds=2, budget=20)
    assert [(r.row.searcher, r.row.seed) for r in results] == [
        (f"{searcher}{reduction}", seed)
        for searcher in ("random", "cmaes")
        for reduction in ("", "+pca:3")
        for seed in (0, 1)
    ]


def test_a_searcher_that_can_use_none_is_run_with_identity_alone_where_that_is_among_them(tmp_path: Path) -> None:
    results = bench(tmp_path, ["clustered-random", "random"], ["pca:3", "identity"], budget=20)
    assert searchers(results) == ["clustered-random", "random+pca:3", "random"]


def test_a_searcher_that_can_use_none_is_an_error_where_there_is_nothing_else_to_run_it_with(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'clustered-random' can use no reduction"):
        bench(tmp_path / "out", ["clustered-random", "random"], ["pca:3"])
    assert not (tmp_path / "out").exists()


def test_bench_says_what_it_did_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "bench.toml"
    config.write_text(
        'searchers = ["clustered-random", "random"]\nreductions = ["identity", "pca:3", "ntk:2"]\nseeds = 1\n'
        "n = 10\nsteps = 6\nconfirm = 4\nbatch = 10\nbudget = 20\n"
    )
    code, printed, _ = called(capsys, "bench", config, "--out", tmp_path / "out")
    assert code == 0
    assert "not run: clustered-random with pca:3, ntk:2, because it can use no reduction" in printed
    assert sorted(row["searcher"] for row in table(tmp_path / "out")) == [
        "clustered-random", "random", "random+ntk:2", "random+pca:3",
    ]  # fmt: skip


@pytest.mark.parametrize(("word", "said"), [("reduction", "reductions"), ("seed", "seeds")])
def test_bench_takes_lists(tmp_path: Path, word: str, said: str) -> None:
    with pytest.raises(UserError, match=f"bench takes {said}, not {word}"):
        package.bench("random", out=tmp_path, **{word: "pca:3"})


COUNTED = """
from pathlib import Path
from tdbench import hookimpl

class Counted:
    def __init__(self, problem):
        with Path({log!r}).open("a") as file:
            file.write("made\\n")
        self.n, self.dim = problem.n_images, problem.dim
    def scores(self, vectors):
        return vectors.repeat(self.n, axis=1)[:, : self.n]

@hookimpl
def register_reductions(register):
    register("counted", Counted)
"""


def test_a_reduction_is_made_once_for_a_space_and_not_at_all_for_finished_runs(tmp_path: Path) -> None:
    log, plugin = tmp_path / "made.txt", tmp_path / "counted.py"
    plugin.write_text(COUNTED.format(log=str(log)))
    settings = {"plugins": (str(plugin),), "space_seeds": (0, 1), "seeds": 3, "budget": 10}
    bench(tmp_path / "out", "random", ["counted:3"], **settings)
    assert log.read_text().count("made") == 2
    bench(tmp_path / "out", "random", ["counted:3"], **settings)
    assert log.read_text().count("made") == 2


# the command line


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--reduction", "nkt:3"], "unknown reduction 'nkt:3'; did you mean 'ntk:D'?"),
        (["--reduction", "ntk"], "needs its number of dimensions"),
        (["--reduction", "ntk:0"], "must be ntk:D with a whole number of dimensions, 1 to the number of images"),
        (["--reduction", "ntk:11"], "'ntk:11' must have at most as many dimensions as there are images, 10"),
        (["--reduction", "identity:3"], "takes no number of dimensions"),
        (["--reduction", "pca:3", "--searcher", "clustered-random"], "'clustered-random' can use no reduction"),
        (["--searcher", "random+pca:3"], "give searcher random and reduction pca:3"),
    ],
    ids=" ".join,
)
def test_a_reduction_that_cannot_be_used_is_one_line_that_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, args: list[str], said: str
) -> None:
    code, printed, error = called(capsys, "run", *as_options({**CHEAP, "out": tmp_path / "out"}), *args)
    assert said in one_error(code, error)
    assert printed == ""
    assert not (tmp_path / "out").exists()


def test_the_listing_has_reductions_and_what_failed_of_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = [tmp_path / "first.py", tmp_path / "second.py"]
    for path in paths:
        path.write_text(COUNTED.format(log=""))
    code, printed, _ = called(capsys, "searchers", "--plugin", paths[0], "--plugin", paths[1])
    assert code == 0
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    assert {"cmaes", "identity", "pca:D", "features:D", "ntk:D", "clusters:D"} <= set(lines)
    assert lines["ntk:D"].rstrip().endswith("[looks at the images]")
    assert lines["clustered-random"].rstrip().endswith("[can use no reduction]")
    assert "claimed twice: reduction 'counted' by first (" in printed


@pytest.mark.parametrize("name", ["pca", "clusters:5", "identity"])
def test_check_takes_a_reduction(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, printed, error = called(capsys, "check", name)
    assert (code, error) == (0, "")
    *verdicts, summary = printed.splitlines()
    assert [line.split()[:2] for line in verdicts] == [["ok", check] for check in ReductionContract.checks()]
    assert summary == f"{name} holds the contract: all {len(verdicts)} checks passed"


def test_check_says_what_is_wrong_with_a_reduction(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = called(capsys, "check", "drawn-anew", "--plugin", MISBEHAVING)
    assert code == 1
    assert "made twice on the same images, it gave other scores" in printed
    assert printed.splitlines()[-1] == "drawn-anew does not hold the contract: 1 of 9 checks failed"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nkt"], "unknown searcher or reduction 'nkt'; did you mean 'ntk'?"),
        (["ntk:0"], "must be ntk:D with a whole number"),
        (["ntk", "--deterministic"], "--deterministic is for searchers"),
        (["counted"], "'counted' is both a searcher and a reduction; check it in a test"),
    ],
    ids=str,
)
def test_check_of_what_can_be_no_reduction(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, args: list[str], said: str
) -> None:
    both = tmp_path / "both.py"
    both.write_text(
        COUNTED.format(log="") + '\n@hookimpl\ndef register_searchers(register):\n    register("counted", Counted)\n'
    )
    code, printed, error = called(capsys, "check", *args, "--plugin", both)
    assert said in one_error(code, error)
    assert printed == ""
