"""What is ranked, what a failure costs, and that seeds and spaces are kept apart."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import board, failed, row, rows, write

from tdbench import TaskSpace, UserError
from tdbench.base import stats
from tdbench.cli import tdbench
from tdbench.leaderboard.boards import latest_runs, load_boards
from tdbench.leaderboard.standings import space_table, standings
from tdbench.settings import RunSettings
from tdbench.store.log import Store
from tdbench.store.rows import row_to_json

GOOD, FAIR, POOR = (0.5, 0.52, 0.48, 0.51, 0.49), (0.3, 0.33, 0.27, 0.31, 0.29), (0.1, 0.12, 0.08, 0.11, 0.09)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 300)  # these tests are not about the width of an interval


def only_table(*members):
    (table,) = standings([board(*members)]).tables
    return table


def cli(*args):
    return CliRunner().invoke(tdbench, ["leaderboard", *map(str, args)], catch_exceptions=False)


# --- one space


def test_searchers_are_ranked_by_the_interquartile_mean_of_confirmed_not_told():
    lucky = [replace(r, told=0.99, optimism=0.99 - r.confirmed) for r in rows("lucky", POOR)]
    table = only_table(*lucky, *rows("solid", (0.3, 0.31, 0.29, 0.3, -1.0)))
    assert [(s.searcher, s.rank) for s in table.standings] == [("solid", 1), ("lucky", 2)]
    assert table.standings[0].confirmed.value == pytest.approx(np.mean([0.29, 0.3, 0.3]))
    assert table.standings[1].told == pytest.approx(0.99)
    assert table.standings[1].optimism == pytest.approx(0.99 - 0.1)


def test_searchers_that_score_alike_share_their_ranks():
    table = only_table(*rows("a", FAIR), *rows("b", FAIR), *rows("c", POOR))
    assert [(s.searcher, s.rank) for s in table.standings] == [("a", 1.5), ("b", 1.5), ("c", 3)]


def test_every_seeds_value_is_there_in_the_order_of_seeds():
    table = only_table(*reversed(rows("a", FAIR)))
    assert table.standings[0].values == FAIR


def test_the_matrix_says_how_often_the_row_beats_the_column():
    table = only_table(*rows("a", GOOD), *rows("b", POOR))
    assert table.improvement[0][1].value == 1
    assert table.improvement[1][0].value == 0
    assert table.improvement[0][0].value == 0.5


def test_anytime_prefers_the_searcher_that_was_good_early():
    late = [replace(r, confirmed_10=0.0, confirmed_20=0.0, confirmed_50=0.1) for r in rows("late", FAIR)]
    early, late = (only_table(*members).standings[0] for members in (rows("early", FAIR), late))
    assert early.confirmed == late.confirmed
    assert early.anytime.value == pytest.approx(0.3)
    assert late.anytime.value < early.anytime.value
    assert [round(c.value, 3) for c in late.checkpoints] == [0.0, 0.0, 0.1, 0.3]


def test_a_missing_checkpoint_leaves_the_rank_alone():
    without = [replace(r, confirmed_10=math.nan) for r in rows("a", FAIR)]
    standing = only_table(*without).standings[0]
    assert math.isnan(standing.anytime.value)
    assert standing.confirmed.value == pytest.approx(0.3)


# --- failures


def test_a_failed_run_counts_as_knowing_nothing():
    table = only_table(*rows("a", FAIR[:4]), failed("a", 4))
    assert table.failure_score == 0
    assert table.standings[0].values == (*FAIR[:4], 0.0)
    assert table.standings[0].failures == {"crash": 1}
    assert "1 failed run(s) count as taskness 0" in table.notes


def test_failing_is_never_better_than_finishing():
    table = only_table(*rows("bad", (-0.2, -0.1, -0.15, -0.12, -0.11)), *(failed("gone", i) for i in range(5)))
    assert table.failure_score == -0.2
    assert [s.searcher for s in table.standings] == ["bad", "gone"]


def test_what_a_run_confirmed_before_it_failed_does_not_count():
    standing = only_table(*rows("a", FAIR[:4]), failed("a", 4, confirmed_10=0.9, confirmed_20=0.9)).standings[0]
    assert standing.runs[4].checkpoints == (0, 0, 0, 0)


def test_told_and_optimism_are_of_the_runs_that_did_not_fail():
    standing = only_table(*rows("a", FAIR[:4]), failed("a", 4, told=7.0)).standings[0]
    assert standing.told == pytest.approx(stats.iqm([v + 0.5 for v in FAIR[:4]]))
    assert math.isnan(only_table(failed("a")).standings[0].told)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.integers(0, 7))
@settings(deadline=None, max_examples=20)
def test_failing_instead_of_finishing_never_raises_a_score(values, which):
    which %= len(values)
    others = rows("other", (-1.0, 0.0, 1.0))
    finished = space_table([*rows("a", values), *others])
    broken = rows("a", values)
    broken[which] = failed("a", which)
    with_failure = space_table([*broken, *others])
    before, after = (next(s for s in t.standings if s.searcher == "a") for t in (finished, with_failure))
    assert after.confirmed.value <= before.confirmed.value + 1e-9


# --- what goes together


@pytest.mark.parametrize(
    "change",
    [{"budget": 200}, {"batch": 5}, {"replicates": 2}, {"noise": "frozen"}, {"confirm": 8}, {"recommend": "best"}],
)
def test_runs_of_different_protocols_are_never_in_one_table(change):
    result = standings([board(*rows("a", FAIR), *rows("a", GOOD, **change))])
    assert len(result.tables) == 2
    assert {len(s.runs) for t in result.tables for s in t.standings} == {5}
    assert result.overall == ()


def test_a_run_made_again_counts_once_and_the_latest_counts():
    again = row("a", 0, 0.9, run="again", timestamp="2026-02-01T00:00:00+00:00")
    table = only_table(again, *rows("a", FAIR))
    assert table.standings[0].values == (0.9, *FAIR[1:])
    assert any("1 earlier run" in note for note in table.notes)


def test_a_reader_is_told_of_few_seeds_mixed_engines_and_who_looks():
    looking = [replace(r, sees_images=True, engine="native") for r in rows("looking", FAIR[:3])]
    notes = " / ".join(only_table(*rows("a", FAIR), *looking).notes)
    for expected in (
        "fewer than 5 seeds (3)",
        "2 different engines: native on cpu; reference on cpu",
        "not run with the same seeds",
        "looks at the images: looking",
    ):
        assert expected in notes


def test_a_clean_table_has_no_notes():
    assert only_table(*rows("a", FAIR), *rows("b", GOOD)).notes == ()


# --- over spaces


def over_spaces(count, searchers=("a", "b", "c"), **changes):
    rng = np.random.default_rng(0)
    return [
        r
        for s in range(count)
        for k, name in enumerate(searchers)
        for r in rows(name, 0.1 * k + 0.05 * s + rng.normal(0, 0.01, 5), space=f"space-{s}", space_seed=s, **changes)
    ]


def test_spaces_are_aggregated_after_seeds_and_their_interval_counts_spaces():
    (table,) = standings([board(*over_spaces(6))]).overall
    best = table.standings[0]
    assert [s.searcher for s in table.standings] == ["c", "b", "a"]
    assert best.confirmed.n == 6  # spaces, not the 30 runs
    assert best.confirmed.value == pytest.approx(np.mean(best.confirmed_in_spaces))
    assert best.average_rank == 1
    assert best.told == pytest.approx(np.mean([standing.told for standing in best.in_spaces]))
    assert best.optimism == pytest.approx(best.told - best.confirmed.value, abs=0.05)
    assert best.checkpoints[-1].value == pytest.approx(best.confirmed.value)
    assert table.ranks.n_spaces == 6
    assert table.ranks.average_ranks == tuple(s.average_rank for s in table.standings)


def test_few_spaces_have_no_interval_and_no_critical_difference():
    (table,) = standings([board(*over_spaces(3))]).overall
    assert not table.standings[0].confirmed.has_interval
    assert table.ranks is None


def test_one_space_has_nothing_over_spaces():
    assert standings([board(*rows("a", FAIR))]).overall == ()


def test_only_searchers_run_on_the_same_spaces_are_compared_over_them():
    lonely = rows("mine", FAIR, space="space-0")
    elsewhere = rows("a", FAIR, space="space-9", space_seed=9)
    (table,) = standings([board(*over_spaces(5), *lonely, *elsewhere)]).overall
    assert {s.searcher for s in table.standings} == {"a", "b", "c"}
    assert len(table.spaces) == 5
    assert table.left_out == ("mine", "digits-n10-r4-s9-space-9")


# --- files, logs and the command


@pytest.fixture
def out(tmp_path):
    """An output folder with two leaderboards."""
    write(tmp_path, "one", [*rows("a", FAIR), *rows("b", POOR)])
    write(tmp_path, "two", [*rows("a", GOOD, space="other"), *rows("b", FAIR, space="other")])
    return tmp_path


def test_a_folder_its_leaderboards_and_a_file_are_all_read(out):
    boards = load_boards([out, out / "leaderboards", out / "leaderboards" / "one.csv"])
    assert [len(b.rows) for b in boards] == [20, 20, 10]
    assert len({b.label for b in boards}) == 3


def test_boards_of_the_same_file_name_are_told_apart(tmp_path):
    paths = [write(tmp_path / name, "one", rows("a", FAIR)) for name in ("mine", "shipped")]
    assert [b.label for b in load_boards(paths)] == ["mine/leaderboards/one", "shipped/leaderboards/one"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no "),
        (lambda p: p.mkdir(), "there is no leaderboard (*.csv) in "),
        (lambda p: p.write_text("a,b\n1,2\n"), "is not a leaderboard of this version: it has no column 'space'"),
        (lambda p: p.write_text(_header()), "holds no finished run yet"),
    ],
)
def test_what_is_no_leaderboard_is_one_clear_line(tmp_path, make, message):
    path = tmp_path / "x"
    make(path)
    with pytest.raises(UserError) as caught:
        load_boards([path])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def _header():
    from tdbench.store.rows import to_csv

    return to_csv([])


def test_ranking_needs_no_torch(out):
    code = (
        "import sys; from pathlib import Path; from tdbench.leaderboard.boards import load_boards;"
        "from tdbench.leaderboard.standings import standings;"
        f"standings(load_boards([Path({str(out)!r})])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_reference_tasks_come_from_the_log_beside_the_leaderboard(tmp_path):
    space = TaskSpace("digits", n=10, ratio=4, engine="reference")
    with Store(tmp_path) as store:
        store.add_space(space)
        known = row("a", space=space.identity)
        store.begin("k", 1, space.identity, RunSettings(n=10), "1.0", ("reference", "cpu", ""))
        store.finish("k-1", "ok", "", 1.0, row_to_json(known))
        from tdbench.store.confirmations import space_references

        tasks = space_references(store, space.identity)
        values = np.linspace(0, 1, len(tasks))[:, None].repeat(4, axis=1)
        store.add_confirmations(space.identity, "reference cpu", np.stack([t.labels for t in tasks]), values)
    path = write(tmp_path, "one", [known])
    for given_path in (tmp_path, path):
        (table,) = standings(load_boards([given_path])).tables
        assert [line.name for line in table.references] == [t.name for t in tasks]
        assert {line.kind for line in table.references} == {"class", "pixel", "random"}
        summary = {line.name: line.mean for line in table.reference_summary}
        classes = [line.mean for line in table.references if line.kind == "class"]
        assert summary["class tasks, mean of 5"] == pytest.approx(np.mean(classes))
    (table,) = standings(load_boards([write(tmp_path / "elsewhere", "one", [known])])).tables
    assert table.references == ()


def test_the_table_shows_the_ranking(out):
    shown = cli(out, "--seeds").output
    for expected in ("budget 100", "searcher", "0.300 [", "Probability that a run", "Confirmed taskness of every seed"):
        assert expected in shown
    assert shown.index(" 0.500") < shown.index("Over 2 spaces")


def test_json_is_json_and_has_every_seed(out):
    result = json.loads(cli("--out", out, "--format", "json").output)
    standing = result["tables"][0]["standings"][0]
    assert [run["confirmed"] for run in standing["runs"]] == list(FAIR)
    assert result["overall"][0]["ranks"] is None
    assert result["overall"][0]["standings"][0]["confirmed"]["low"] is None  # NaN is not JSON


def test_csv_has_one_line_for_each_searcher_and_space(out):
    import pandas as pd

    (out / "table.csv").write_text(cli(out, "--format", "csv").output)
    frame = pd.read_csv(out / "table.csv")
    assert len(frame) == 4
    assert frame.loc[0, "values"].split()[0] == "0:0.3"
    assert (frame.confirmed_low < frame.confirmed).all()


def test_names_from_plugins_cannot_break_the_page(tmp_path):
    name = "<b>x</b>|[y](http://z)"
    write(tmp_path, "one", rows(name, FAIR))
    shown = cli(tmp_path, "--format", "md").output
    assert "<b>" not in shown
    assert "](" not in shown
    assert "x&lt;/b&gt;\\|[y]" in shown
    write(tmp_path / "rich", "one", rows("[red]x[/red]", FAIR))
    assert "[red]x[/red]" in cli(tmp_path / "rich").output


def test_a_name_that_begins_like_a_formula_is_text_in_csv(tmp_path):
    write(tmp_path, "one", rows("=1+1", FAIR))
    assert ",'=1+1," in cli(tmp_path, "--format", "csv").output


def test_paths_and_out_together_are_refused(tmp_path):
    assert cli(tmp_path, "--out", tmp_path).exit_code == 2


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*nowhere"):
        cli(Path(tmp_path) / "nowhere")


def test_of_attempts_at_one_run_the_last_counts_whatever_the_clock_said():
    def attempt(run: str, day: int):
        return row(run=run, timestamp=f"2026-01-{day:02}T00:00:00+00:00")

    def counted(*rows):
        (row,) = latest_runs(rows)
        return row.run

    assert counted(attempt("a-1", 9), attempt("a-2", 3)) == "a-2"  # the clock was set back
    assert counted(attempt("a-10", 3), attempt("a-9", 9)) == "a-10"
    assert counted(attempt("a-2", 3), attempt("b-1", 5), attempt("a-1", 9)) == "b-1"  # other keys: by time
    assert counted(attempt("b-1", 5), attempt("a-1", 5)) == "a-1"  # of equal times the one that came last
    assert counted(attempt("by hand", 5), attempt("by hand", 4)) == "by hand"


# --- recommendations that were never evaluated, and seals


def test_a_note_counts_recommendations_that_were_never_evaluated_and_a_failed_run_is_none():
    unseen = [replace(r, recommended_told=math.nan) for r in rows("model", FAIR[:2])]
    raced = [replace(r, recommend="race:0.25") for r in unseen]
    note = "recommended a labeling that the run never evaluated: model in 2 of 4 runs"
    table = only_table(*unseen, *rows("model", FAIR)[2:3], failed("model", 3), *rows("told", FAIR[:4]))
    assert [n for n in table.notes if "never evaluated" in n] == [note]
    assert not [n for n in only_table(*raced).notes if "never evaluated" in n]


def test_the_protocol_names_a_seal_only_where_there_is_one():
    seal = "0123456789abcdef"
    plain, sealed = (only_table(*rows("a", FAIR, sealed=s)).protocol for s in ("", seal))
    assert str(sealed) == f"{plain}, sealed {seal}"
    assert sealed.record() == {**plain.record(), "sealed": seal}
    assert "sealed" not in plain.record()


def test_different_seals_are_never_in_one_table_over_spaces():
    members = [
        row("a", seed, 0.3, space=space, sealed=seal)
        for seal in ("", "0" * 16)
        for space in ("aaaaaaaaaaaa", "bbbbbbbbbbbb")
        for seed in range(3)
    ]
    result = standings([board(*members)])
    assert [(t.protocol.sealed, len(t.spaces)) for t in result.overall] == [("", 2), ("0" * 16, 2)]
    assert [len(t.standings[0].runs) for t in result.tables] == [3] * 4
