"""What the searchers that start from the tangent kernel promise where many tasks are wanted, or some to be avoided."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tdbench_plugins._apart import Apart, best_set
from tdbench_plugins._joint_hunch import JointHunch
from tdbench_plugins.ntk_loo import NTKLeaveOneOut

from tdbench import Problem
from tdbench.searchers.loading import load_plugins

NAMES = ("hunch", "ntk-loo")


def problem(n: int = 20, n_positives: int = 4, blank: bool = False, **changes: Any) -> Problem:
    images = np.random.default_rng(0).standard_normal((n, 3, 32, 32), dtype=np.float32) * (not blank)
    settings: dict[str, Any] = {"batch_size": 8, "budget": 64, "seed": 1, "tasks": 4, "max_overlap": 1}
    return Problem(n, n, n_positives, images=images, **{**settings, **changes})


def make(name: str, setting: Problem) -> Any:
    return load_plugins().searcher(name)[0].make(setting)


def played(searcher: Any, setting: Problem, loss: Any = lambda asked: 0.2 + asked[:, 0] / 2) -> NDArray[np.float64]:
    asks = []
    for start in range(0, setting.budget, setting.batch_size):
        asks.append(searcher.ask(min(setting.batch_size, setting.budget - start)).copy())
        searcher.tell(asks[-1], loss(asks[-1]))
    return np.concatenate(asks)


def expect_apart(found: NDArray[np.float64], setting: Problem, others: NDArray[Any] | None = None) -> None:
    assert (found.sum(axis=1) == setting.n_positives).all()
    assert setting.max_overlap is not None
    for a, b in itertools.combinations(found, 2):
        assert a @ b <= setting.max_overlap
        if 2 * setting.n_positives == setting.n_images:
            assert a @ (1 - b) <= setting.max_overlap
    if others is not None:
        assert (found @ others.T <= setting.max_overlap).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "setting",
    [
        problem(),
        problem(budget=4),
        problem(budget=1),
        problem(budget=37, batch_size=1),
        problem(12, 6, max_overlap=4),
        problem(12, 6, max_overlap=3, tasks=16),
        problem(10, 2, max_overlap=0, tasks=5, blank=True),
        problem(4, 1, max_overlap=0, budget=30),
        problem(30, 6, max_overlap=2, batch_size=64, budget=200),
    ],
    ids=["small", "as many as wanted", "one", "one by one", "half", "half, many", "disjoint", "tiny", "large batch"],
)
def test_what_is_recommended_may_stand_together(name: str, setting: Problem) -> None:
    searcher = make(name, setting)
    expect_apart(searcher.recommend_many(setting.tasks), setting)
    asks = played(searcher, setting)
    assert len(asks) == setting.budget
    assert (asks.sum(axis=1) == setting.n_positives).all()
    found = searcher.recommend_many(setting.tasks)
    assert 1 <= len(found) <= setting.tasks
    expect_apart(found, setting)
    assert searcher.recommend().sum() == setting.n_positives


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("half", [False, True])
def test_what_is_to_be_avoided_is_neither_asked_nor_recommended(name: str, half: bool) -> None:
    sizes = (16, 8) if half else (20, 4)
    most = 5 if half else 2
    alone = problem(*sizes, tasks=2, max_overlap=most)
    before = make(name, alone).recommend_many(2).astype(np.uint8)
    avoid = np.concatenate([before, 1 - before]) if half else before
    setting = problem(*sizes, tasks=1, max_overlap=most, avoid=avoid)
    searcher = make(name, setting)
    expect_apart(searcher.recommend()[None], setting, avoid)
    asks = played(searcher, setting)
    assert (asks @ avoid.T <= most).all()
    expect_apart(searcher.recommend()[None], setting, avoid)


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_is_allowed_it_still_answers(name: str) -> None:
    everything = np.eye(4, dtype=np.uint8)
    setting = problem(4, 1, tasks=1, max_overlap=0, avoid=everything, budget=20)
    searcher = make(name, setting)
    assert (played(searcher, setting).sum(axis=1) == 1).all()
    assert searcher.recommend().sum() == 1
    assert searcher.recommend_many(1).shape == (0, 4)


@pytest.mark.parametrize("name", NAMES)
def test_losses_without_any_task_are_survived(name: str) -> None:
    setting = problem()
    searcher = make(name, setting)
    played(searcher, setting, lambda asked: np.full(len(asked), 1.5))
    expect_apart(searcher.recommend_many(4), setting)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_finds_the_same_tasks(name: str) -> None:
    setting = problem(budget=100)
    one, other = make(name, setting), make(name, setting)
    assert np.array_equal(played(one, setting), played(other, setting))
    assert np.array_equal(one.recommend_many(4), other.recommend_many(4))


@pytest.mark.parametrize("searcher", [JointHunch, NTKLeaveOneOut])
def test_the_minima_are_opened_with_however_batches_are_cut(searcher: Any) -> None:
    asks = [searcher(problem(batch_size=size)).ask(size) for size in (2, 8)]
    assert np.array_equal(asks[0], asks[1][:2])


def test_minima_alone_are_a_library_in_their_own_order() -> None:
    setting = problem(tasks=4, budget=3, batch_size=3)
    searcher = make("ntk-loo", setting)
    before = searcher.recommend_many(4)
    played(searcher, setting, lambda asked: np.array([1.0, 0.5, 0.0]))
    assert np.array_equal(searcher.recommend_many(4), before)


def test_hunch_finds_several_hidden_tasks() -> None:
    setting = problem(tasks=3, max_overlap=1, budget=600, batch_size=16)
    hidden = np.repeat(np.eye(5), 4, axis=1)[:3]  # disjoint labelings of 4 positives
    rng = np.random.default_rng(2)

    def loss(asked: NDArray[np.float64]) -> Any:
        return 1 - (asked @ hidden.T).max(axis=1) / 4 + 0.1 * rng.standard_normal(len(asked))

    searcher = make("hunch", setting)
    played(searcher, setting, loss)
    found = searcher.recommend_many(3)
    assert ((found @ hidden.T).max(axis=0) == 4).all()


def test_a_set_is_nearly_as_good_as_the_best_of_all_sets() -> None:
    rng = np.random.default_rng(0)
    lost = []
    for _ in range(30):
        gains, conflicts = rng.random(12), rng.random((12, 12)) < 0.3
        conflicts |= conflicts.T
        np.fill_diagonal(conflicts, False)
        found = best_set(gains, conflicts, 4)
        assert not conflicts[np.ix_(found, found)].any()
        sets = (list(s) for size in range(1, 5) for s in itertools.combinations(range(12), size))
        best = max(gains[s].sum() for s in sets if not conflicts[np.ix_(s, s)].any())
        lost.append(1 - gains[found].sum() / best)
    assert np.mean(lost) < 0.02
    assert len(best_set(np.array([]), np.zeros((0, 0), dtype=np.bool_), 4)) == 0


def test_descent_keeps_its_distance_and_ends_where_no_allowed_exchange_is_better() -> None:
    rng = np.random.default_rng(1)
    form = rng.standard_normal((9, 9))
    form += form.T
    apart = Apart(most=1, mirrored=False)
    everything = np.array([np.isin(np.arange(9), chosen) for chosen in itertools.combinations(range(9), 3)])
    others = everything[[0, 83]]  # the first and the last three images
    starts = everything[apart.allowed(everything, others)]
    reached = apart.descend(form, starts, np.repeat(others[None], len(starts), axis=0))
    assert apart.allowed(reached, others).all()
    z = everything - 1 / 3
    values = ((z @ form) * z).sum(axis=1)
    for labels in np.unique(reached, axis=0):
        near = ((everything != labels).sum(axis=1) == 2) & apart.allowed(everything, others)
        own = values[(everything == labels).all(axis=1)][0]
        assert own <= values[near].min() + 1e-6
