"""`--recommend race:F`, end to end: what is evaluated, told and recommended, and that being killed changes nothing."""

from __future__ import annotations

import math
import shutil
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import CHEAP, called, evaluations, run_options, start, table, tdbench, wait_for_evaluations
from numpy.typing import NDArray

import tdbench as package
from tdbench.arena.campaign import Result
from tdbench.arena.race import entrants, field_size
from tdbench.export.export import export
from tdbench.leaderboard.summary import run_summary
from tdbench.store.log import Store
from tdbench.store.rows import read_rows

BUDGET, SEARCHED = 80, 48  # race:0.4 leaves 48 evaluations to the search
RULE = "race:0.4"

COUNTING = """
import numpy as np
from tdbench import hookimpl

class Counting:
    def __init__(self, problem):
        self.problem, self.rng, self.told = problem, np.random.default_rng(problem.seed), 0
    def ask(self, n):
        assert self.told + n <= self.problem.budget, "asked beyond its budget"
        return self.rng.random((n, self.problem.dim))
    def tell(self, scores, loss):
        self.told += len(loss)
    def recommend(self):
        scores = np.zeros(self.problem.dim)
        scores[-self.problem.n_positives:] = 1
        return scores

@hookimpl
def register_searchers(register):
    register("counting", Counting)
"""


def race(out: Path, searcher: str = "random", **settings: object) -> Result:
    given = {"searcher": searcher, "out": out, **CHEAP, "budget": BUDGET, "recommend": RULE, **settings}
    return package.run(**given)  # type: ignore[arg-type]


def log(result: Result) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(n, N) labels and (n,) taskness of all evaluations."""
    with Store(result.log.parent, read_only=True) as store:
        return store.evaluations(store.record(result.row.run))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run of random search with the rule; its files are for reading only."""
    return race(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def counting(tmp_path: Path) -> str:
    path = tmp_path / "counting.py"
    path.write_text(COUNTING)
    return str(path)


def test_the_last_part_of_the_budget_evaluates_leading_candidates_and_the_best_of_them_is_recommended(
    finished: Result,
) -> None:
    result = finished
    labels, taskness = log(result)
    assert len(labels) == result.row.evaluations == result.row.trainings == BUDGET
    chosen = entrants(labels[:SEARCHED], taskness[:SEARCHED], None, BUDGET - SEARCHED)
    assert len(chosen) == field_size(BUDGET - SEARCHED) == 4
    went_to = (labels[SEARCHED:, None] == chosen[None]).all(axis=2)
    assert (went_to.sum(axis=1) == 1).all()
    means = [taskness[SEARCHED:][went_to[:, i]].mean() for i in range(4)]
    finalists = went_to[-2:].any(axis=0)
    winner = max(np.flatnonzero(finalists), key=lambda i: means[i])
    assert np.array_equal(result.labels, chosen[winner])


def test_told_is_of_the_search_alone(finished: Result) -> None:
    result = finished
    labels, taskness = log(result)
    assert np.array_equal(result.told, taskness[:SEARCHED])
    assert result.row.told == taskness[:SEARCHED].max()
    assert result.row.optimism == result.row.told - result.row.confirmed
    own = (labels[:SEARCHED] == result.labels).all(axis=1)
    assert result.row.recommended_told == taskness[:SEARCHED][own].mean()


def test_the_searcher_is_asked_its_part_of_the_budget_only_and_what_it_recommends_takes_part(
    tmp_path: Path, counting: str
) -> None:
    result = race(tmp_path, "counting", plugins=(counting,))
    assert result.row.status == "ok", result.row.error
    labels, _ = log(result)
    own = np.array([0] * 8 + [1] * 2, dtype=np.uint8)
    assert np.array_equal(labels[SEARCHED], own)  # it leads the field, so it is evaluated first


def test_the_rule_is_in_the_leaderboard_however_it_was_written(finished: Result) -> None:
    (row,) = read_rows(finished.leaderboard)
    assert row.recommend == RULE
    out = finished.log.parent
    assert race(out, recommend="race:.40", resume=True).row == finished.row


def test_checkpoints_that_lie_in_the_race_are_what_the_search_ended_with(tmp_path: Path) -> None:
    result = race(tmp_path, recommend="race:0.75")
    labels, taskness = log(result)
    with Store(result.log.parent, read_only=True) as store:
        recommended = store.recommended(store.record(result.row.run))
    assert sorted(recommended) == [0.1, 0.2, 0.5, 1.0]
    assert np.array_equal(recommended[0.5], labels[taskness[:20].argmax()])
    assert np.array_equal(recommended[0.1], labels[taskness[:10].argmax()])
    assert not math.isnan(result.row.confirmed_50)


def test_replicates_are_charged_in_the_race_too(tmp_path: Path) -> None:
    assert race(tmp_path, replicates=2).row.trainings == 2 * BUDGET


def test_frozen_noise_gives_the_race_nothing_new_and_it_ends_all_the_same(tmp_path: Path) -> None:
    result = race(tmp_path, noise="frozen")
    labels, taskness = log(result)
    assert result.row.evaluations == BUDGET
    assert result.row.trainings == result.row.distinct == len(np.unique(labels, axis=0))
    assert np.array_equal(result.labels, labels[taskness.argmax()])


def test_a_space_of_few_labelings_races_them_all(tmp_path: Path) -> None:
    result = race(tmp_path, n=4, ratio=1, classes=("0", "1"), budget=400)
    labels, _ = log(result)
    assert result.row.evaluations == 400
    assert len(np.unique(labels[240:], axis=0)) == 6 < field_size(160)


def test_runs_side_by_side_are_as_alone(tmp_path: Path, finished: Result) -> None:
    settings = {**CHEAP, "budget": BUDGET, "recommend": RULE}
    for beside in package.bench(["random", "umda"], seeds=1, out=tmp_path, **settings):  # type: ignore[arg-type]
        alone = finished if beside.row.searcher == "random" else race(tmp_path / "alone", "umda")
        assert np.array_equal(log(beside)[1], log(alone)[1])
        assert beside.row.confirmed == alone.row.confirmed


@pytest.mark.parametrize("kept", [10, SEARCHED, SEARCHED + 10, BUDGET])
def test_a_run_cut_off_anywhere_is_resumed_to_the_bit(tmp_path: Path, finished: Result, kept: int) -> None:
    cut_off(finished, kept, tmp_path / "out")
    again = race(tmp_path / "out", resume=True)
    for one, other in zip(log(finished), log(again), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(again.labels, finished.labels)
    assert table(tmp_path / "out") == table(finished.log.parent)


def test_a_race_that_is_not_the_recorded_one_is_reported(tmp_path: Path, finished: Result) -> None:
    cut_off(finished, BUDGET, tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / "log.sqlite") as db:
        db.execute("UPDATE ask SET digest = x'00' WHERE first = (SELECT MAX(first) FROM ask)")
    again = race(tmp_path / "out", resume=True)
    assert again.row.status == "invalid"
    assert "not reproducible: on resume the race of its recommendations asked something else" in again.row.error


def test_killed_in_its_race_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    settings = ("--searcher", "umda", "--recommend", "race:0.7")  # 120 of 400 evaluations are the search's
    process = start(tmp_path / "killed", *settings)
    wait_for_evaluations(tmp_path / "killed", 121)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(evaluations(tmp_path / "killed"))
    assert 121 <= done < 400, "it was not killed in its race"
    assert tdbench("run", *run_options(tmp_path / "killed", *settings), "--resume").returncode == 0
    assert tdbench("run", *run_options(tmp_path / "whole", *settings)).returncode == 0
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    assert evaluations(tmp_path / "killed") == evaluations(tmp_path / "whole")


def test_an_export_holds_what_was_told(tmp_path: Path, finished: Result) -> None:
    exported = export(finished.log.parent, tmp_path / "ioh", "ioh")
    (data,) = [path for path in exported.files if path.suffix == ".dat"]
    assert len(data.read_text().splitlines()) == 1 + SEARCHED


def test_the_command_line_and_a_config_file_take_the_rule(tmp_path: Path) -> None:
    config = tmp_path / "bench.toml"
    config.write_text(f'searchers = ["random"]\nseeds = 1\nrecommend = "{RULE}"\n')
    small = [text for name in ("n", "steps", "batch", "confirm") for text in (f"--{name}", str(CHEAP[name]))]
    done = tdbench("bench", str(config), *small, "--budget", str(BUDGET), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert table(tmp_path)[0]["recommend"] == RULE


def cut_off(finished: Result, evaluations_kept: int, out: Path) -> None:
    """Make `out` what the run's folder was when so many of its evaluations were committed."""
    out.mkdir()
    shutil.copy(finished.log, out)
    with sqlite3.connect(out / finished.log.name) as db:
        db.execute("UPDATE run SET status = 'running', row = NULL")
        db.execute("DELETE FROM recommendation")
        db.execute("DELETE FROM ask WHERE first >= ?", (evaluations_kept,))
        db.execute("DELETE FROM evaluation WHERE evaluation >= ?", (evaluations_kept,))


# --- recommendations that were never evaluated


NOTE = "recommended a labeling that the run never evaluated: "


def test_a_recommendation_that_was_never_evaluated_is_said_in_summary_table_and_report(
    tmp_path: Path, counting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**CHEAP, "n": 20, "out": tmp_path}
    results = package.bench(["counting", "random"], seeds=2, plugins=(counting,), **given)  # type: ignore[arg-type]
    assert [math.isnan(result.row.recommended_told) for result in results] == [True, True, False, False]
    summaries = ["\n".join(run_summary(result)) for result in results]
    assert ["was never evaluated in the run" in text for text in summaries] == [True, True, False, False]
    printed = called(capsys, "leaderboard", "--out", tmp_path)[1]
    assert f"  {NOTE}counting in 2 of 2 runs\n" in printed
    assert called(capsys, "report", "--out", tmp_path)[0] == 0
    assert f"{NOTE}counting in 2 of 2 runs.".capitalize() in (tmp_path / "report.html").read_text()


def test_the_winner_of_a_race_was_evaluated_though_no_searcher_was_told_of_it(tmp_path: Path, counting: str) -> None:
    result = race(tmp_path, "counting", n=20, plugins=(counting,))
    labels, _ = log(result)
    own = np.array([0] * 16 + [1] * 4)
    assert not (labels[:SEARCHED] == own).all(axis=1).any()
    assert (labels[SEARCHED:] == own).all(axis=1).any()
    assert not replace(result.row, recommended_told=math.nan).never_evaluated
    assert "never evaluated" not in "\n".join(run_summary(result))
