"""What the searchers that start from the tangent kernel promise beyond the contract."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge
from tdbench_plugins import _evidence
from tdbench_plugins.hunch import Hunch
from tdbench_plugins.ntk_loo import NTKLeaveOneOut

from tdbench import Problem, UserError
from tdbench.searchers.loading import load_plugins
from tdbench.testing import SearcherContract
from tdbench.toolkit import quadratic

SEARCHERS = (NTKLeaveOneOut, Hunch)


class TestNTKLeaveOneOut(SearcherContract):
    name = "ntk-loo"


class TestHunch(SearcherContract):
    name = "hunch"


def problem(n: int = 10, n_positives: int = 2, blank: bool = False, **changes: Any) -> Problem:
    images = np.random.default_rng(0).standard_normal((n, 3, 32, 32), dtype=np.float32) * (not blank)
    images.flags.writeable = False
    return replace(Problem(n, n, n_positives, batch_size=8, budget=64, seed=1, images=images), **changes)


def some_kernel(n: int, seed: int = 0) -> NDArray[np.float64]:
    features = np.random.default_rng(seed).standard_normal((n, 3))
    kernel: NDArray[np.float64] = features @ features.T + 1
    return kernel / kernel.diagonal().mean()


def all_labelings(n: int, n_positives: int) -> NDArray[np.bool_]:
    ones = [np.isin(np.arange(n), chosen) for chosen in itertools.combinations(range(n), n_positives)]
    return np.array(ones)


def played(searcher: Any, setting: Problem, loss: Any) -> list[NDArray[np.float64]]:
    asks = []
    for start in range(0, setting.budget, setting.batch_size):
        asked = searcher.ask(min(setting.batch_size, setting.budget - start))
        asks.append(asked.copy())
        searcher.tell(asked, loss(asked))
    return asks


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_the_form_is_the_error_of_predicting_each_image_from_the_others(ridge: float) -> None:
    kernel, labels = some_kernel(8), all_labelings(8, 3)[:5]
    for row, value in zip(
        labels, quadratic.form_values(quadratic.leave_one_out_form(kernel, ridge), labels), strict=True
    ):
        target, error = row - 3 / 8, 0.0
        for i in range(8):
            rest = np.arange(8) != i
            model = KernelRidge(alpha=ridge, kernel="precomputed").fit(kernel[np.ix_(rest, rest)], target[rest])
            error += (target[i] - model.predict(kernel[i : i + 1, rest])[0]) ** 2
        assert value == pytest.approx(error)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))), st.integers(0, 999))
def test_descent_ends_where_no_exchange_is_better(sizes: tuple[int, int], seed: int) -> None:
    n, positives = sizes
    form = np.random.default_rng(seed).standard_normal((n, n))
    form += form.T
    labelings = all_labelings(n, positives)
    reached = quadratic.descend(form, labelings)
    assert (reached.sum(axis=1) == positives).all()
    value = dict(zip(map(bytes, labelings), quadratic.form_values(form, labelings), strict=True))
    for labels in np.unique(reached, axis=0):
        neighbours = labelings[(labelings != labels).sum(axis=1) == 2]
        assert value[bytes(labels)] <= min((value[bytes(other)] for other in neighbours), default=np.inf) + 1e-6


def test_many_starts_find_the_lowest_of_all_labelings() -> None:
    form = quadratic.leave_one_out_form(some_kernel(12), 0.1)
    starts = quadratic.draw_labelings(np.random.default_rng(0), 50, 12, 3)
    found = quadratic.minima([form, 2 * form], starts, 5)
    assert len(np.unique(found, axis=0)) == len(found) <= 5
    everything = all_labelings(12, 3)
    assert np.array_equal(found[0], everything[quadratic.form_values(form, everything).argmin()])


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_what_is_asked_is_labelings_from_the_lowest_minima_on(searcher: Any) -> None:
    setting = problem(20, 4)
    asks = np.concatenate(played(searcher(setting), setting, lambda asked: np.ones(len(asked))))
    assert asks.shape == (64, 20)
    assert set(np.unique(asks)) == {0.0, 1.0}
    assert (asks.sum(axis=1) == 4).all()
    assert len(np.unique(asks[:8], axis=0)) == 8


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_lucky_labeling_is_looked_at_again_and_not_recommended(searcher: Any) -> None:
    setting = problem(20, 4, budget=200)
    made = searcher(setting)
    lucky, good = made.ask(8)[:2].astype(bool)
    rng, first = np.random.default_rng(0), [0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    first[0], first[1] = 0.0, 0.15
    made.tell(np.zeros((8, 20)), np.array(first))
    for _ in range(24):
        asked = made.ask(8)
        is_good = (asked == good).all(axis=1)
        made.tell(asked, np.clip(np.where(is_good, 0.15, 0.85) + 0.1 * rng.standard_normal(8), 0, 1))
    assert not np.array_equal(made.recommend(), lucky)
    assert np.array_equal(made.recommend(), good)


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize(
    "setting",
    [
        problem(10, 2, budget=8),
        problem(10, 2, budget=9),
        problem(4, 2, budget=20),
        problem(12, 6, blank=True),
        problem(10, 2, batch_size=64),
        problem(10, 2, batch_size=1, budget=12),
    ],
    ids=["one batch", "one more", "tiny", "blank", "batch above proposals", "one by one"],
)
def test_every_valid_problem_is_searched(searcher: Any, setting: Problem) -> None:
    made = searcher(setting)
    assert made.recommend().sum() == setting.n_positives
    for asked in played(made, setting, lambda asked: asked[:, 0]):
        assert (asked.sum(axis=1) == setting.n_positives).all()
    assert made.recommend().sum() == setting.n_positives


def test_hunch_finds_a_labeling_that_the_kernel_does_not_suggest() -> None:
    setting = problem(20, 4, budget=400)
    hidden = np.arange(20) < 4
    made = Hunch(setting)
    assert made.recommend()[hidden].sum() < 4
    rng = np.random.default_rng(3)
    played(made, setting, lambda asked: 1 - asked[:, hidden].sum(axis=1) / 4 + 0.1 * rng.standard_normal(len(asked)))
    assert made.recommend()[hidden].sum() == 4


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_reductions_and_missing_images_are_refused(searcher: Any) -> None:
    with pytest.raises(UserError, match="needs vectors of length 10, but a reduction to 4 was chosen"):
        searcher(problem(dim=4))
    with pytest.raises(UserError, match="looks at the images"):
        searcher(problem(images=None))


@pytest.mark.parametrize("name", ["ntk-loo", "hunch"])
def test_they_are_registered_as_what_they_are(name: str) -> None:
    registration, _ = load_plugins().searcher(name)
    assert registration.sees_images
    assert not registration.reducible
    assert not registration.baseline


def test_evidence_keeps_means_by_labeling() -> None:
    evidence = _evidence.Evidence(3)
    a, b = np.array([True, False, False]), np.array([False, True, False])
    evidence.add(np.array([a, b, a]), np.array([0.2, 0.9, 0.4]))
    evidence.add(np.array([b]), np.array([np.nan]))
    assert evidence.labels.tolist() == [a.tolist(), b.tolist()]
    assert evidence.counts.tolist() == [2, 2]
    assert evidence.means.tolist() == pytest.approx([0.3, (0.9 + 2) / 2])
    assert evidence.knows(a)
    assert not evidence.knows(~a)


def test_more_evaluations_mean_more_certainty_and_less_of_the_prior() -> None:
    evidence = _evidence.Evidence(2)
    a, b = np.array([[True, False]]), np.array([[False, True]])
    evidence.add(a, np.array([0.2]))
    evidence.add(np.repeat(b, 50, axis=0), np.tile([0.1, 0.3], 25))
    mean, deviation = evidence.posterior(np.array([0.8, 0.8]), 0.03)
    assert 0.2 < mean[1] < mean[0] < 0.8
    assert deviation[1] < deviation[0]


@pytest.mark.parametrize(("budget", "sizes"), [(1000, [32, 16, 8, 4, 2]), (80, [8, 4, 2]), (8, [2]), (1, [2])])
def test_a_final_halves_its_field_in_equal_rounds(budget: int, sizes: list[int]) -> None:
    fields = [_evidence.final_field(left, budget) for left in range(budget, 0, -1)]
    assert list(dict.fromkeys(fields)) == sizes
    lengths = [fields.count(size) for size in sizes]
    assert max(lengths) - min(lengths) <= 1


def test_the_least_seen_are_next() -> None:
    assert _evidence.least_seen(np.array([3, 1, 2]), 4).tolist() == [1, 1, 2, 0]
