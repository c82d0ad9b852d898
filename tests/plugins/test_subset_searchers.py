"""What the searchers over subsets of exactly P images promise beyond the contract."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tdbench_plugins import _subsets, cga, swap_annealing, umda

from tdbench import Problem, Searcher, UserError
from tdbench.searchers.loading import load_plugins

Array = NDArray[np.float64]
NAMES = ("umda", "cga", "swap-annealing", "swap-annealing:resample")
PROBLEM = Problem(dim=30, n_images=30, n_positives=6, batch_size=10, budget=600, seed=3)
HIDDEN = np.arange(6)


def make(name: str, problem: Problem) -> Searcher:
    registration, variant = load_plugins().searcher(name)
    return registration.make(problem, variant)


def share_found(labels: Array) -> Array:
    return labels[..., HIDDEN].mean(axis=-1)


def search(searcher: Searcher, problem: Problem, noise: float) -> list[Array]:
    """All asks; told 1 - (share of the first six images found) + noise."""
    rng = np.random.default_rng([problem.seed, 9])
    asks = []
    for start in range(0, problem.budget, problem.batch_size):
        asks.append(searcher.ask(min(problem.batch_size, problem.budget - start)))
        searcher.tell(asks[-1], 1 - share_found(asks[-1]) + noise * rng.standard_normal(len(asks[-1])))
    return asks


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "p"), [(2, 1), (3, 2), (9, 1), (9, 8), (30, 6)])
def test_every_ask_and_recommendation_has_exactly_p_ones(name: str, n: int, p: int) -> None:
    problem = Problem(dim=n, n_images=n, n_positives=p, batch_size=7, budget=60, seed=0)
    searcher = make(name, problem)
    rng = np.random.default_rng(0)
    for size in (7, 1, 7, 3, 7, 2, 7, 7, 7, 7, 5):
        labels = searcher.ask(size)
        assert np.isin(labels, [0, 1]).all()
        assert (labels.sum(axis=1) == p).all()
        searcher.tell(labels, rng.random(size))
        assert sorted(searcher.recommend()) == [0] * (n - p) + [1] * p  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_without_noise_the_hidden_subset_is_found(name: str) -> None:
    found = []
    for seed in range(4):
        problem = replace(PROBLEM, budget=1500, seed=seed)
        searcher = make(name, problem)
        search(searcher, problem, noise=0)
        found.append(share_found(searcher.recommend()))  # type: ignore[attr-defined]
    assert np.mean(found) > 0.95


@pytest.mark.parametrize(("name", "least"), [("umda", 0.85), ("cga", 0.9), ("swap-annealing:resample", 0.6)])
def test_under_noise_of_more_than_an_image_most_of_the_hidden_subset_is_found(name: str, least: float) -> None:
    found = []
    for seed in range(4):
        problem = replace(PROBLEM, budget=2000, seed=seed)
        searcher = make(name, problem)
        search(searcher, problem, noise=0.25)
        found.append(share_found(searcher.recommend()))  # type: ignore[attr-defined]
    assert np.mean(found) > least


@pytest.mark.parametrize("name", NAMES)
def test_a_reduction_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match="needs vectors of length 30, but a reduction to 4 was chosen"):
        make(name, replace(PROBLEM, dim=4))
    assert not load_plugins().searcher(name)[0].reducible


def test_umda_asks_from_one_distribution_until_a_generation_is_told() -> None:
    searcher = umda.UMDA(replace(PROBLEM, budget=800))  # generations of 40
    before = searcher._probabilities.copy()
    for step in range(4):
        assert np.array_equal(searcher._probabilities, before)
        labels = searcher.ask(10)
        searcher.tell(labels, np.arange(10.0) + step)
    assert not np.array_equal(searcher._probabilities, before)


def test_cga_moves_towards_winners_and_away_from_losers() -> None:
    searcher = cga.SlidingWindowCGA(PROBLEM)
    winner, loser = np.zeros((2, 30))
    winner[:6], loser[3:9] = 1, 1
    before = searcher._probabilities.copy()
    searcher.tell(np.array([winner, loser]), np.array([0.1, 0.9]))
    moved = searcher._probabilities - before
    step = cga.MOVES / (cga.WINDOW * PROBLEM.budget)
    assert np.allclose(moved, step * (winner - loser))


def test_resampling_spends_half_of_its_evaluations_on_what_it_knows() -> None:
    asks = search(make("swap-annealing:resample", PROBLEM), PROBLEM, noise=0.25)
    known: set[bytes] = set()
    again = 0
    for labels in asks:
        again += sum(row.tobytes() in known for row in labels)
        known.update(row.tobytes() for row in labels)
    assert 0.4 * PROBLEM.budget < again < 0.75 * PROBLEM.budget


def test_plain_annealing_does_not_ask_for_its_state_again() -> None:
    searcher = swap_annealing.SwapAnnealing(PROBLEM)
    rng = np.random.default_rng(0)
    searcher.tell(searcher.ask(10), rng.random(10))
    for _ in range(30):
        labels = searcher.ask(10)
        assert (np.abs(labels - searcher._state.labels).sum(axis=1) == 2).all()
        searcher.tell(labels, rng.random(10))


def test_resampling_recommends_what_it_has_evaluated_often() -> None:
    searcher = make("swap-annealing:resample", PROBLEM)
    asks = np.concatenate(search(searcher, PROBLEM, noise=0.25))
    recommended = searcher.recommend()  # type: ignore[attr-defined]
    assert (asks == recommended).all(axis=1).sum() >= swap_annealing.TRUSTED


def test_annealing_exchanges_one_image_at_a_time() -> None:
    asks = search(make("swap-annealing", PROBLEM), PROBLEM, noise=0.25)
    for one, next_one in itertools.pairwise(asks[1:]):
        state_or_neighbours = np.abs(one[:, None] - next_one[None]).sum(axis=-1)
        assert state_or_neighbours.max() <= 6  # neighbours of neighbouring states


@given(data=st.data(), n=st.integers(2, 40))
@settings(max_examples=80, deadline=None)
def test_samples_have_exactly_p_ones_and_the_margins_hold(data: st.DataObject, n: int) -> None:
    p = data.draw(st.integers(1, n - 1))
    low, high = _subsets.margins(n, p)
    assert 0 < low < p / n < high < 1
    raw = data.draw(st.lists(st.floats(-1, 2), min_size=n, max_size=n))
    moved = np.array(raw) - np.mean(raw) + p / n  # they sum to P, and may lie anywhere
    probabilities = _subsets.within(moved, low, high)
    assert probabilities.sum() == pytest.approx(p, abs=1e-9)
    assert probabilities.min() >= low and probabilities.max() <= high
    assert (np.diff(probabilities[np.argsort(moved, kind="stable")]) >= 0).all()
    labels = _subsets.sample(np.random.default_rng(0), probabilities, 5)
    assert np.isin(labels, [0, 1]).all()
    assert (labels.sum(axis=1) == p).all()


def test_samples_hold_each_image_with_its_probability() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(12))
    probabilities = _subsets.within(probabilities * 4, *_subsets.margins(12, 4))
    labels = _subsets.sample(rng, probabilities, 20_000)
    error = np.sqrt(probabilities * (1 - probabilities) / len(labels))
    assert (np.abs(labels.mean(axis=0) - probabilities) < 4.5 * error).all()


def test_a_settled_distribution_still_exchanges_one_image_a_sample() -> None:
    low, high = _subsets.margins(50, 10)
    settled = np.where(np.arange(50) < 10, high, low)
    labels = _subsets.sample(np.random.default_rng(0), settled, 4000)
    assert labels[:, 10:].sum(axis=1).mean() == pytest.approx(1, abs=0.05)
