"""Discoveries of several tasks: both protocols, what is refused, what is confirmed, and what a kill leaves."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers import CHEAP, as_options, command, environment, table, tdbench, wait_for_evaluations

import tdbench as td
from tdbench import UserError
from tdbench.arena.discovery import round_seed
from tdbench.space.similarity import Dissimilar, overlap
from tdbench.store.log import Store

PLUGIN = str(Path(__file__).parents[1] / "fixtures" / "discoverers.py")
SMALL = {**CHEAP, "n": 20, "tasks": 4, "threads": 1}
RULE = Dissimilar(20, 4, 0.25)


def pairwise_allowed(labels: np.ndarray, rule: Dissimilar = RULE) -> bool:
    others = ~np.eye(len(labels), dtype=bool)
    return bool((overlap(labels, labels)[others] <= rule.max_overlap).all())


def log_rows(out: Path, statement: str) -> list[tuple]:
    db = sqlite3.connect(out / "log.sqlite")
    try:
        return db.execute(statement).fetchall()
    finally:
        db.close()


@pytest.mark.parametrize("protocol", ["joint", "rounds"])
def test_a_library_has_different_labelings_and_what_they_confirm_at(tmp_path: Path, protocol: str) -> None:
    result = td.discover("umda", protocol=protocol, out=tmp_path, **SMALL)
    library, row = result.library, result.row
    assert library is not None
    assert row.status == "ok"
    assert row.evaluations == 60
    assert 1 <= len(library) <= 4
    assert pairwise_allowed(library.labels)
    confirmed = result.space.confirm(library.labels, replicates=4)
    np.testing.assert_array_equal(confirmed.mean(axis=1), library.confirmed)
    assert (np.diff(library.confirmed) <= 0).all()
    assert row.confirmed == pytest.approx(confirmed.mean(axis=1).clip(0).sum() / 4)
    assert row.told == pytest.approx(np.nan_to_num(library.told).clip(0).sum() / 4)
    assert row.optimism == row.told - row.confirmed


def test_told_is_the_mean_of_what_the_log_has_of_each_labeling(tmp_path: Path) -> None:
    result = td.discover("umda", protocol="joint", out=tmp_path, **SMALL)
    assert result.library is not None
    with Store(tmp_path, read_only=True) as store:
        labels, taskness = store.evaluations(store.record(result.row.run))
    for own, told, count in zip(result.library.labels, result.library.told, result.library.evaluations, strict=True):
        mine = (labels == own).all(axis=1)
        assert mine.sum() == count
        assert told == pytest.approx(taskness[mine].mean()) if count else math.isnan(told)


def test_greedy_by_mean_told_where_nothing_is_recommended(tmp_path: Path) -> None:
    result = td.discover("random", protocol="joint", out=tmp_path, **SMALL)
    assert result.library is not None
    with Store(tmp_path, read_only=True) as store:
        labels, taskness = store.evaluations(store.record(result.row.run))
    best = labels[np.argsort(-taskness, kind="stable")]
    expected = best[RULE.choose(best, np.arange(len(best)), 4)]
    assert {own.tobytes() for own in expected} == {own.tobytes() for own in result.library.labels}


def test_rounds_refuse_what_is_too_similar_and_charge_it(tmp_path: Path) -> None:
    """A searcher that always asks for the same labelings: after the first round they are refused."""
    result = td.discover("stubborn", protocol="rounds", plugins=[PLUGIN], out=tmp_path, **SMALL)
    row = result.row
    assert row.status == "ok", row.error
    assert row.evaluations == 60
    assert row.refused > 0
    assert row.trainings == 60 - row.refused
    refused = log_rows(tmp_path, "SELECT evaluation FROM refused")
    assert len(refused) == row.refused
    values = dict(log_rows(tmp_path, "SELECT evaluation, taskness FROM evaluation"))
    assert all(values[evaluation] <= 0 for (evaluation,) in refused)  # the loss 1 + similarity, above 1
    with Store(tmp_path, read_only=True) as store:
        record = store.record(row.run)
        labels, taskness = store.told(record)
        assert len(labels) == len(taskness) == len(store.told_taskness(record)) == 60 - row.refused
    assert len(result.told) == 60 - row.refused


def test_each_round_has_a_searcher_of_its_own_that_knows_what_to_avoid(tmp_path: Path) -> None:
    """The fixture notes each problem that it is given beside its log file."""
    notes = tmp_path / "notes"
    notes.mkdir()
    plugin = tmp_path / "noting.py"
    plugin.write_text(Path(PLUGIN).read_text().replace("NOTES = None", f"NOTES = {str(notes)!r}"))
    result = td.discover("stubborn", protocol="rounds", seed=5, plugins=[str(plugin)], out=tmp_path / "out",
                         **{**SMALL, "budget": 62})  # fmt: skip
    assert result.row.status == "ok", result.row.error
    noted = [dict(np.load(path)) for path in sorted(notes.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)]
    assert [int(n["budget"]) for n in noted] == [16, 16, 15, 15]
    assert [int(n["seed"]) for n in noted] == [round_seed(5, r) for r in range(4)]
    assert len({round_seed(5, r) for r in range(100)} | {round_seed(6, r) for r in range(100)}) == 200
    assert [len(n["avoid"]) for n in noted] == [0, 1, 2, 3]
    assert all(int(n["max_overlap"]) == RULE.max_overlap for n in noted)


def test_what_a_searcher_recommends_is_taken_in_order_and_the_too_similar_skipped(tmp_path: Path) -> None:
    result = td.discover("recommends", protocol="joint", plugins=[PLUGIN], out=tmp_path, **SMALL)
    assert result.row.status == "ok", result.row.error
    with Store(tmp_path, read_only=True) as store:
        members = store.members(store.record(result.row.run))
    starts = [int(np.flatnonzero(member.labels)[0]) for member in members]
    assert starts == [0, 3, 6, 9]  # it recommends 4 images in a row, from 0, 1, 2, ...; one may be shared
    assert all(math.isnan(member.told) and member.evaluations == 0 for member in members)
    assert result.row.told == 0
    assert result.row.never_evaluated


@pytest.mark.parametrize("searcher", ["recommends-too-many", "recommends-words", "recommends-ragged", "recommends-nan"])
def test_a_bad_recommendation_is_the_end_of_its_run_alone(tmp_path: Path, searcher: str) -> None:
    rows = [
        r.row for r in td.bench([searcher, "random"], seeds=1, plugins=[PLUGIN], out=tmp_path, progress=False, **SMALL)
    ]
    assert [row.status for row in rows] == ["invalid", "ok"]
    assert "recommend_many" in rows[0].error


def test_complements_are_the_same_task_at_half_positives(tmp_path: Path) -> None:
    settings = {**SMALL, "ratio": 1}
    result = td.discover("random", protocol="rounds", out=tmp_path, **settings)
    assert result.library is not None
    rule = Dissimilar(20, 10, 0.25)
    similarity = rule.similarity(result.library.labels, result.library.labels)
    assert (similarity[~np.eye(len(similarity), dtype=bool)] <= 0.25 + 1e-9).all()


def test_with_a_reduction_vectors_are_scores_of_fewer_dimensions(tmp_path: Path) -> None:
    for protocol in ("joint", "rounds"):
        result = td.discover("cmaes", reduction="pca:4", protocol=protocol, out=tmp_path, **SMALL)
        assert result.row.status == "ok", result.row.error
        assert result.library is not None
        assert pairwise_allowed(result.library.labels)


def test_ordinary_runs_and_discoveries_have_keys_and_tables_of_their_own(tmp_path: Path) -> None:
    settings = {k: v for k, v in SMALL.items() if k != "tasks"}
    results = td.bench(["random", "umda"], seeds=1, tasks=[0, 4], protocol="rounds", out=tmp_path, **settings)
    assert [r.row.tasks for r in results] == [0, 4, 0, 4]
    assert [r.row.protocol for r in results] == ["joint", "rounds", "joint", "rounds"]
    assert len({r.row.run for r in results}) == 4
    alone = td.bench(["random", "umda"], seeds=1, out=tmp_path / "alone", **settings)
    assert [r.row.run for r in alone] == [r.row.run for r in results if not r.row.tasks]
    printed = tdbench("leaderboard", "--out", tmp_path).stdout
    assert "4 tasks, rounds, similarity at most 0.25" in printed
    assert "confirmed QD" in printed


@pytest.mark.parametrize("protocol", ["joint", "rounds"])
def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path: Path, protocol: str) -> None:
    settings = {**SMALL, "budget": 400, "steps": 30, "searcher": "umda", "protocol": protocol}
    whole = tdbench("discover", *as_options({**settings, "out": tmp_path / "whole"}))
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "killed"
    import subprocess

    for evaluations in (40, 250):
        process = subprocess.Popen(
            command("discover", *as_options({**settings, "out": out}), "--resume"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        wait_for_evaluations(out, evaluations)
        process.kill()
        process.wait()
    resumed = tdbench("discover", *as_options({**settings, "out": out}), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert table(out) == table(tmp_path / "whole")
    for name in ("evaluation", "ask", "member"):
        statement = f"SELECT * FROM {name} ORDER BY 1, 2"
        assert log_rows(out, statement) == log_rows(tmp_path / "whole", statement)
    (mine,) = (out / "libraries").glob("*.npz")
    (other,) = (tmp_path / "whole" / "libraries").glob("*.npz")
    assert td.TaskLibrary.load(mine) == td.TaskLibrary.load(other)


def test_the_command_says_what_will_be_trained_and_writes_json(tmp_path: Path) -> None:
    import json

    path = tmp_path / "found.json"
    done = tdbench("discover", "--searcher", "random", *as_options({**SMALL, "out": tmp_path}), "--json", path)
    assert done.returncode == 0, done.stderr
    assert "trainings: 60 to search, at most 16 to confirm" in done.stderr
    found = json.loads(path.read_text())
    assert set(found) == {"confirmed_qd", "told_qd", "tasks"}
    assert len(found["tasks"]) == 4
    labels = np.array([task["labels"] for task in found["tasks"]])
    assert (labels.sum(axis=1) == 4).all()
    assert found["confirmed_qd"] == pytest.approx(sum(max(0, t["confirmed"]) for t in found["tasks"]) / 4)
    assert "confirmed QD" in done.stdout
    assert len(list((tmp_path / "libraries").glob("*.npz"))) == 1
    assert len(list((tmp_path / "libraries").glob("*.csv"))) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tasks": 0}, "tasks must be at least 1"),
        ({"max_similarity": 1.5}, "max.similarity"),
        ({"max_similarity": -0.1}, "max.similarity"),
        ({"max_similarity": math.nan}, "max.similarity"),
        ({"protocol": "both"}, "protocol must be one of joint, rounds"),
        ({"recommend": "race:0.25"}, "recommends? one labeling|recommend one labeling"),
        ({"tasks": 61}, "61 tasks need a budget"),
        ({"max_similarity": 0.0, "tasks": 6}, "at most 5 labelings of 4 positives among 20 images"),
        ({"tasks": 2.5}, "tasks must be a whole number"),
    ],
)
def test_settings_that_make_no_discovery_are_refused(tmp_path: Path, settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        td.discover("random", out=tmp_path / "out", **{**SMALL, **settings})
    assert not (tmp_path / "out").exists()


def test_run_finds_one_labeling(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="discover"):
        td.run("random", out=tmp_path, **SMALL)
    with pytest.raises(UserError, match="protocol is for runs that discover"):
        td.run("random", out=tmp_path, protocol="rounds")
