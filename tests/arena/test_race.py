"""The race that picks a recommendation: what it spends, whom it lets in, and who wins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tdbench import UserError
from tdbench.arena.race import Race, entrants, field_size
from tdbench.settings import LEAST_RACE, check_race, race_budget, race_share


def candidates(count: int) -> NDArray[np.uint8]:
    """(count, count) label vectors, the i-th with its one at i."""
    return np.eye(count, dtype=np.uint8)


def play(race: Race, values: NDArray[np.float64], batch: int, noise: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which candidate each evaluation went to; the i-th evaluation of the race adds noise[i] to its value."""
    went_to: list[int] = []
    while len(labels := race.ask(batch)):
        assert len(labels) <= batch
        turns = labels.argmax(axis=1)
        race.tell(values[turns] + noise[len(went_to) : len(went_to) + len(turns)])
        went_to += turns.tolist()
    return np.array(went_to)


@given(count=st.integers(1, 40), surplus=st.integers(0, 300), batch=st.integers(1, 64), seed=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_whole_budget_is_spent_and_the_batch_size_changes_nothing(
    count: int, surplus: int, batch: int, seed: int
) -> None:
    budget = 2 * count * max(2, math.ceil(math.log2(count))) + surplus
    rng = np.random.default_rng(seed)
    values, noise = rng.random(count), rng.standard_normal(budget)
    in_batches, one_by_one = Race(candidates(count), budget), Race(candidates(count), budget)
    went_to = play(in_batches, values, batch, noise)
    assert len(went_to) == budget
    assert np.array_equal(went_to, play(one_by_one, values, 1, noise))
    assert np.array_equal(in_batches.winner, one_by_one.winner)
    assert len(in_batches.ask(batch)) == 0


@given(count=st.integers(1, 40), budget=st.integers(LEAST_RACE, 2000), seed=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_without_noise_the_best_candidate_wins_and_the_better_ones_are_evaluated_more(
    count: int, budget: int, seed: int
) -> None:
    count = min(count, field_size(budget))
    values = np.random.default_rng(seed).permutation(count).astype(float)
    race = Race(candidates(count), budget)
    evaluations = np.bincount(play(race, values, 32, np.zeros(budget)), minlength=count)
    assert race.winner.argmax() == values.argmax()
    assert evaluations.min() >= 2
    by_value = evaluations[np.argsort(-values)]
    assert (by_value[:-1] >= by_value[1:] - 1).all()  # turns are as equal as can be, give or take one


def test_rounds_halve_the_field_and_are_equally_long() -> None:
    values = np.arange(8.0)[::-1]
    went_to = play(Race(candidates(8), 48), values, 5, np.zeros(48))
    assert went_to[:16].tolist() == [*range(8)] * 2
    assert went_to[16:32].tolist() == [*range(4)] * 4
    assert went_to[32:].tolist() == [0, 1] * 8


def test_all_evaluations_in_the_race_count_not_only_the_last_round() -> None:
    race = Race(candidates(4), 16)  # two rounds of 8
    race.tell(np.array([0.9, 0.6, 0.1, 0.1, 0.9, 0.6, 0.1, 0.1]))
    race.tell(np.array([0.5, 0.6, 0.5, 0.6, 0.5, 0.6, 0.5, 0.6]))  # the second is better in this round alone
    assert race.winner.argmax() == 0


def test_of_equals_the_earlier_candidate_wins() -> None:
    race = Race(candidates(5), 60)
    play(race, np.full(5, 0.3), 7, np.zeros(60))
    assert race.winner.argmax() == 0


def test_a_single_candidate_takes_the_whole_race() -> None:
    race = Race(candidates(1), 9)
    assert play(race, np.zeros(1), 4, np.zeros(9)).tolist() == [0] * 9
    assert race.winner.tolist() == [1]


def test_under_noise_the_winner_is_better_than_the_luckiest() -> None:
    rng = np.random.default_rng(0)
    by_race, luckiest = [], []
    for _ in range(60):
        values = rng.uniform(0, 0.6, 1000)
        told = values + 0.25 * rng.standard_normal(1000)
        labels = rng.permuted(np.tile(np.repeat([1, 0], [10, 40]).astype(np.uint8), (1000, 1)), axis=1)
        chosen = entrants(labels, told, None, 250)
        worth = {row.tobytes(): value for row, value in zip(labels, values, strict=True)}
        race = Race(chosen, 250)
        while len(asked := race.ask(32)):
            race.tell(np.array([worth[row.tobytes()] for row in asked]) + 0.25 * rng.standard_normal(len(asked)))
        by_race.append(worth[race.winner.tobytes()])
        luckiest.append(values[told.argmax()])
    assert np.mean(by_race) > np.mean(luckiest) + 0.05


def test_the_field_is_the_own_recommendation_and_the_best_told_each_once() -> None:
    labels = candidates(6)[[0, 1, 2, 1, 3, 4]]
    told = np.array([0.1, 0.5, 0.5, 0.9, 0.2, 0.3])
    assert entrants(labels, told, None, 1000).argmax(axis=1).tolist() == [1, 2, 4, 3, 0]
    assert entrants(labels, told, candidates(6)[5], 1000).argmax(axis=1).tolist() == [5, 1, 2, 4, 3, 0]
    assert entrants(labels, told, candidates(6)[2], 20).argmax(axis=1).tolist() == [2, 1, 4, 3]


@given(budget=st.integers(LEAST_RACE, 10**6))
def test_the_field_is_as_large_as_two_evaluations_each_in_the_first_round_allow(budget: int) -> None:
    size = field_size(budget)
    assert 2 * size * math.log2(size) <= budget < 4 * size * math.log2(2 * size)


@pytest.mark.parametrize("rule", ["race", "race:", "race:2", "race:1", "race:0", "race:-0.1", "race:abc", "race:nan"])
def test_a_race_without_a_proper_share_is_an_error_that_names_one(rule: str) -> None:
    with pytest.raises(UserError, match=r"F between 0 and 1.*race:0\.25; got 'race"):
        race_share(rule)


def test_other_rules_have_no_race() -> None:
    assert race_share("searcher") is None
    assert race_budget("best", 4000) == 0
    check_race("best", 1, 1)


@given(budget=st.integers(1, 10**6), batch=st.integers(1, 5000), share=st.floats(0.0001, 0.9999))
@settings(max_examples=300)
def test_a_race_is_refused_only_where_it_or_the_search_would_be_too_short_and_the_share_that_is_named_works(
    budget: int, batch: int, share: float
) -> None:
    assume(batch <= budget)
    rule = f"race:{share!r}"
    racing = race_budget(rule, budget)
    if LEAST_RACE <= racing <= budget - batch:
        check_race(rule, budget, batch)
        return
    with pytest.raises(UserError) as refused:
        check_race(rule, budget, batch)
    message = str(refused.value)
    if budget >= batch + LEAST_RACE:
        named = "race:" + message.partition("use race:")[2].partition(" or ")[0]
        check_race(named, budget, batch)


def test_the_share_is_taken_as_it_is_written() -> None:
    assert race_budget("race:0.29", 100) == 29  # 0.29 x 100 is 28.999999999999996 in floating point
    assert race_budget("race:0.25", 4000) == 1000
