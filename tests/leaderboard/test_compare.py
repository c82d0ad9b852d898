"""Which leaderboards may be compared, who meets whom, and what is concluded."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import board, failed, rows, write

from tdbench import UserError
from tdbench.base import stats
from tdbench.cli import tdbench
from tdbench.leaderboard.compare import compare

GOOD, FAIR = (0.5, 0.52, 0.48, 0.51, 0.49, 0.505), (0.3, 0.33, 0.27, 0.31, 0.29, 0.305)
SHIPPED = board(*(r for k, s in enumerate("abcde") for r in rows(s, np.array(FAIR) + 0.1 * k)), label="shipped")


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 300)  # these tests are not about the width of an interval


def mine(*members):
    return board(*members, label="mine")


def pairs(result):
    return [(str(c.a), str(c.b)) for table in result.tables for c in table.comparisons]


def cli(*args):
    return CliRunner().invoke(tdbench, ["compare", *map(str, args)], catch_exceptions=False)


# --- who meets whom


def test_a_searcher_of_ones_own_meets_every_shipped_one():
    expected = {("mine (mine)", f"{name} (shipped)") for name in "abcde"}
    assert set(pairs(compare([mine(*rows("mine", GOOD)), SHIPPED]))) == expected
    assert set(pairs(compare([SHIPPED, mine(*rows("mine", GOOD))]))) == {(b, a) for a, b in expected}


def test_a_searcher_in_both_files_meets_itself():
    result = compare([mine(*rows("a", GOOD), *rows("b", GOOD)), SHIPPED])
    assert ("a (mine)", "a (shipped)") in pairs(result)
    assert ("b (mine)", "b (shipped)") in pairs(result)


def test_as_few_comparisons_as_answer_the_question():
    result = compare([mine(*rows("mine", GOOD), *rows("a", FAIR)), SHIPPED])
    assert len(pairs(result)) == 6  # itself, and the newcomer with five; shipped ones do not meet each other
    assert not any(a.startswith("a (mine)") and not b.startswith("a") for a, b in pairs(result))


def test_a_single_file_has_its_searchers_compared():
    result = compare([SHIPPED])
    assert len(pairs(result)) == 10
    assert pairs(result)[0] == ("a", "b")


def test_three_files_are_compared_two_by_two():
    boards = [board(*rows("a", FAIR), label=label) for label in ("x", "y", "z")]
    assert pairs(compare(boards)) == [("a (x)", "a (y)"), ("a (x)", "a (z)"), ("a (y)", "a (z)")]


# --- what is concluded


def test_a_clear_difference_is_found_and_signed():
    (comparison,) = compare([mine(*rows("mine", GOOD)), board(*rows("a", FAIR), label="x")]).tables[0].comparisons
    assert comparison.verdict == "higher"
    assert comparison.difference.value == pytest.approx(0.2, abs=0.01)
    assert comparison.difference.low > 0
    assert comparison.improvement.value == 1
    assert comparison.p_holm == pytest.approx(2 / math.comb(12, 6))
    assert 0 < comparison.detectable < 0.1


def test_no_difference_is_undecided_not_equal():
    (comparison,) = compare([mine(*rows("mine", FAIR)), board(*rows("a", FAIR), label="x")]).tables[0].comparisons
    assert comparison.verdict == "undecided"
    assert comparison.difference.low < 0 < comparison.difference.high


def test_the_same_searcher_on_the_same_seeds_is_paired():
    small_gain = rows("a", np.array(FAIR) + 0.01 + 0.0001 * np.arange(6))
    (comparison,) = compare([mine(*small_gain), board(*rows("a", FAIR), label="x")]).tables[0].comparisons
    assert comparison.test.name == "Wilcoxon"
    assert comparison.verdict == "higher"


@pytest.mark.parametrize("count", [5, 6])
def test_pairs_too_few_for_wilcoxon_and_other_seeds_are_not_paired(count):
    shifted = [replace(r, seed=r.seed + (count == 6)) for r in rows("a", FAIR[:count])]
    (comparison,) = compare([mine(*shifted), board(*rows("a", FAIR[:count]), label="x")]).tables[0].comparisons
    assert comparison.test.name == "Mann-Whitney"


def test_p_values_are_corrected_over_the_table():
    (table,) = compare([mine(*rows("mine", GOOD)), SHIPPED]).tables
    raw, corrected = ([c.test.p for c in table.comparisons], [c.p_holm for c in table.comparisons])
    assert all(p <= q for p, q in zip(raw, corrected, strict=True))
    assert min(corrected) == pytest.approx(5 * min(raw))


def test_a_failed_run_costs_its_searcher():
    result = compare([mine(*rows("mine", FAIR[:5]), failed("mine", 5)), board(*rows("a", FAIR), label="x")])
    (comparison,) = result.tables[0].comparisons
    assert comparison.a.values[-1] == 0
    assert any("failed runs count as taskness 0: 1 of mine (mine)" in w for w in result.tables[0].warnings)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=7), st.lists(st.floats(-1, 1), min_size=1, max_size=7))
@settings(deadline=None, max_examples=20)
def test_swapping_the_files_swaps_the_answer(a, b):
    first, second = board(*rows("x", a), label="first"), board(*rows("y", b), label="second")
    (there,), (back,) = (compare(boards).tables[0].comparisons for boards in ([first, second], [second, first]))
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert there.test.p == pytest.approx(back.test.p, nan_ok=True)
    opposite = {"higher": "lower", "lower": "higher", "undecided": "undecided"}
    assert there.verdict == opposite[back.verdict]


def test_differences_over_spaces_have_an_interval_over_spaces():
    def on_spaces(name, level, label):
        spaces = [rows(name, np.array(FAIR) + level + 0.01 * s, space=f"s{s}", space_seed=s) for s in range(5)]
        return board(*(r for members in spaces for r in members), label=label)

    (over,) = compare([on_spaces("mine", 0.1, "mine"), on_spaces("a", 0.0, "x")]).over_spaces
    assert over.difference.n == 5
    assert over.difference.value == pytest.approx(0.1)
    assert over.higher_in == 5


# --- refusals and warnings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 50}, "budget differs: 50 in mine, 100 in shipped"),
        ({"confirm": 32}, "confirm differs: 32 in mine, 4 in shipped"),
        ({"noise": "frozen"}, "noise differs: frozen in mine, fresh in shipped"),
        ({"space": "other", "n": 20}, "n differs: 20 in mine, 10 in shipped"),
        ({"space": "other", "space_seed": 3}, "space-seed differs: 3 in mine, 0 in shipped"),
        ({"space": "other"}, "the images (space identity) differs: other in mine, 0123456789ab in shipped"),
    ],
)
def test_what_differs_is_refused_by_name_and_compared_by_force(change, message):
    boards = [mine(*rows("mine", GOOD, **change)), SHIPPED]
    with pytest.raises(UserError) as refused:
        compare(boards)
    assert message in str(refused.value)
    assert "force=True" in str(refused.value)
    (table,) = compare(boards, force=True).tables
    assert len(table.comparisons) == 5
    assert f"compared by force: {message}" in table.warnings


def test_what_is_compared_by_force_is_never_paired():
    boards = [mine(*rows("a", GOOD, budget=50)), board(*rows("a", FAIR), label="x")]
    assert compare(boards, force=True).tables[0].comparisons[0].test.name == "Mann-Whitney"


def test_force_cannot_choose_between_several_protocols():
    several = mine(*rows("a", GOOD, budget=50), *rows("a", GOOD, budget=60))
    with pytest.raises(UserError, match="each board must hold one space and protocol"):
        compare([several, SHIPPED], force=True)


def test_what_has_no_counterpart_is_named():
    result = compare([mine(*rows("mine", GOOD), *rows("mine", GOOD, budget=50)), SHIPPED])
    assert len(result.tables) == 1
    assert any("not compared: digits-n10-r4-s0-0123456789ab of mine, budget 50" in w for w in result.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "native"}, "engines differ: native cpu in mine, reference cpu in shipped"),
        ({"hardware": "GPU"}, "hardware differ: GPU in mine, a processor (2 cores) in shipped"),
        (
            {"versions": "python=3.11.7 torch=2.11.0"},
            "versions of torch differ: 2.11.0 in mine, 2.13.0 in shipped",
        ),
    ],
)
def test_what_computed_the_results_is_warned_of(change, message):
    result = compare([mine(*rows("mine", GOOD, **change)), SHIPPED])
    assert result.warnings == (message,)


def test_another_version_of_a_searcher_is_warned_of():
    result = compare([mine(*rows("a", GOOD, searcher_version="2.0")), SHIPPED])
    assert "versions of a differ: 2.0 in mine, 1.0 in shipped" in result.tables[0].warnings


def test_few_seeds_are_warned_of():
    result = compare([mine(*rows("mine", GOOD[:4])), SHIPPED])
    assert "fewer than 5 seeds: mine (mine) has 4" in result.tables[0].warnings


def test_a_table_that_could_find_nothing_says_so():
    result = compare([mine(*rows("mine", GOOD[:3])), board(*rows("a", FAIR[:3]), label="x")])
    assert result.tables[0].comparisons[0].detectable == math.inf
    assert any("no difference, however large" in w for w in result.tables[0].warnings)


# --- the command


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "x", "mine", rows("mine", GOOD)), write(tmp_path / "y", "shipped", SHIPPED.rows)


def test_the_command_compares_files_and_folders(files):
    shown = cli(*files).output
    assert "mine (mine)" in shown
    assert "a (shipped)" in shown
    assert "higher" in shown
    assert cli(files[0].parents[1], files[1].parents[1]).exit_code == 0


def test_json_has_the_test_and_both_p_values(files):
    (table,) = json.loads(cli(*files, "--format", "json").output)["tables"]
    first = table["comparisons"][0]
    assert first["test"] == "Mann-Whitney"
    assert first["p"] < first["p_holm"]
    assert first["verdict"] == "higher"


def test_markdown_and_csv_hold_every_comparison(files):
    assert cli(*files, "--format", "md").output.count("Mann-Whitney") == 5
    assert len(cli(*files, "--format", "csv").stdout.splitlines()) == 6


def test_warnings_do_not_stand_between_the_lines_of_a_csv(files, tmp_path):
    few = write(tmp_path / "few", "few", rows("few", GOOD[:3]))
    result = cli(few, files[1], "--format", "csv")
    assert "fewer than 5 seeds" in result.stderr
    assert "fewer than 5 seeds" not in result.stdout


def test_the_command_refuses_what_differs_and_obeys_force(files, tmp_path):
    other = write(tmp_path / "z", "other", rows("mine", GOOD, budget=50))
    with pytest.raises(UserError, match="budget differs: 50 in other, 100 in shipped"):
        cli(other, files[1])
    assert "compared by force" in cli(other, files[1], "--force").output
