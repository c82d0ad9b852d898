"""What each first-party searcher promises beyond the contract."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tdbench_plugins import _library, clustered_random, cmaes, nevergrad_searchers, optuna_searchers
from tdbench_plugins._quick_tpe import QuickTPESampler

from tdbench import Problem, Searcher, UserError
from tdbench.searchers.loading import load_plugins

Array = NDArray[np.float64]
PROBLEM = Problem(dim=12, n_images=12, n_positives=3, batch_size=8, budget=64, seed=3)


def asks(searcher: Searcher, batches: int, size: int = 8) -> Array:
    """(batches x size, dim) asks, told the noisy sum of their first three scores."""
    rng = np.random.default_rng(1)
    all_asks = []
    for _ in range(batches):
        scores = searcher.ask(size)
        all_asks.append(scores)
        searcher.tell(scores, scores[:, :3].sum(axis=1) + 0.1 * rng.standard_normal(size))
    return np.concatenate(all_asks)


def test_listing_imports_no_library() -> None:
    code = (
        "import sys; from tdbench.searchers.loading import load_plugins;"
        "found = load_plugins(); assert not found.failures;"
        "print([m for m in ('nevergrad', 'cma', 'optuna', 'sklearn', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "library"),
    [("twopointsde", "nevergrad"), ("cmaes", "cma"), ("tpe", "optuna"), ("clustered-random", "sklearn.cluster")],
)
def test_a_missing_library_fails_its_own_searcher_only(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    found = load_plugins()
    assert found.failures == {}
    with pytest.raises(ImportError, match=library):
        found.searcher(name)[0].make(PROBLEM)


def test_random_labels_every_image_equally_often() -> None:
    scores = load_plugins().searcher("random")[0].make(PROBLEM).ask(4000)
    positives = np.argsort(-scores, axis=1)[:, : PROBLEM.n_positives]
    share = np.bincount(positives.ravel(), minlength=PROBLEM.dim) / len(scores)
    assert np.abs(share - PROBLEM.n_positives / PROBLEM.dim).max() < 5 * np.sqrt(0.25 * 0.75 / 4000)


def test_twopointsde_has_a_population_of_at_least_thirty_and_at_least_a_batch() -> None:
    sizes = {8: 30, 32: 32, 64: 64}
    for batch, population in sizes.items():
        searcher: Any = nevergrad_searchers.twopointsde(replace(PROBLEM, batch_size=batch))
        assert searcher._optimizer.llambda == population
        assert searcher._optimizer.num_workers == batch


def test_twopointsde_starts_gaussian_around_the_middle() -> None:
    first = nevergrad_searchers.twopointsde(replace(PROBLEM, dim=500, batch_size=30)).ask(30)
    assert abs(first.mean() - 0.5) < 0.01
    assert abs(first.std() - 1 / 6) < 0.01


def test_twopointsde_leaves_the_recommendation_to_the_best_told() -> None:
    assert not hasattr(nevergrad_searchers.twopointsde(PROBLEM), "recommend")


def test_nevergrad_optimizers_recommend_only_where_they_have_a_rule_of_their_own() -> None:
    assert hasattr(nevergrad_searchers.nevergrad_optimizer(PROBLEM, "TBPSA"), "recommend")
    assert not hasattr(nevergrad_searchers.nevergrad_optimizer(PROBLEM, "OnePlusOne"), "recommend")


def test_nevergrad_names_are_its_whole_registry() -> None:
    names = nevergrad_searchers.optimizer_names()
    assert {"TwoPointsDE", "OnePlusOne", "CMA", "NGOpt"} <= set(names)
    assert len(names) > 100


def test_a_sequential_nevergrad_optimizer_asks_for_batch_size_one() -> None:
    import nevergrad as ng

    sequential = next(name for name, made in ng.optimizers.registry.items() if made.no_parallelization)
    with pytest.raises(UserError, match="use batch size 1, not 8"):
        nevergrad_searchers.nevergrad_optimizer(PROBLEM, sequential)


def test_cmaes_takes_whole_batches_as_generations() -> None:
    searcher = cmaes.CMAES(replace(PROBLEM, batch_size=32))
    asks(searcher, batches=5, size=32)
    assert searcher._strategy.countiter == 5


def test_cmaes_updates_once_a_population_is_told_whatever_the_ask_sizes() -> None:
    searcher = cmaes.CMAES(replace(PROBLEM, dim=20, batch_size=8))  # default population 12
    told = 0
    for size in itertools.islice(itertools.cycle([1, 8, 3, 7, 5]), 40):
        scores = searcher.ask(size)
        searcher.tell(scores, scores.sum(axis=1))
        told += size
        assert searcher._strategy.countiter == told // 12


def test_cmaes_recommends_the_mean_and_finds_the_corner() -> None:
    searcher = cmaes.CMAES(replace(PROBLEM, batch_size=16))
    assert np.array_equal(searcher.recommend(), np.full(12, 0.5))
    asks(searcher, batches=60, size=16)
    assert searcher.recommend()[:3].max() < 0.2


def test_cmaes_restarts_with_twice_the_population_and_keeps_the_better_mean() -> None:
    searcher = cmaes.CMAES(replace(PROBLEM, dim=3, batch_size=8))
    population = searcher._popsize
    for _ in range(150):
        scores = searcher.ask(8)
        searcher.tell(scores, ((scores - 0.25) ** 2).sum(axis=1))
    assert searcher._popsize > population
    assert np.abs(searcher.recommend() - 0.25).max() < 1e-3


def test_cmaes_ignores_signal_files_in_the_working_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = asks(cmaes.CMAES(PROBLEM), batches=6)
    (tmp_path / "cma_signals.in").write_text("{'maxfevals': 1}")
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(asks(cmaes.CMAES(PROBLEM), batches=6), before)


def test_tpe_is_the_quick_one_here_and_asks_what_optunas_own_asks() -> None:
    import optuna

    problem = replace(PROBLEM, dim=15)
    quick: Any = optuna_searchers.tpe(problem)
    assert isinstance(quick._study.sampler, QuickTPESampler)
    own = optuna_searchers.OptunaSearcher(
        problem, optuna.samplers.TPESampler(seed=problem.seed, multivariate=True, constant_liar=True)
    )
    assert np.allclose(asks(quick, batches=15), asks(own, batches=15), rtol=0, atol=1e-12)


def test_tpe_falls_back_to_optunas_own_where_its_inner_steps_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tdbench_plugins._quick_tpe", None)
    searcher: Any = optuna_searchers.tpe(PROBLEM)
    assert type(searcher._study.sampler).__name__ == "TPESampler"
    assert asks(searcher, batches=3).shape == (24, 12)


@pytest.mark.parametrize("name", optuna_searchers.sampler_names())
def test_every_listed_optuna_sampler_works_and_repeats(name: str) -> None:
    batches = 2 if name == "GPSampler" else 8
    first, second = (asks(optuna_searchers.optuna_sampler(PROBLEM, name), batches) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.min() >= 0
    assert first.max() <= 1


def test_optuna_samplers_that_cannot_work_here_are_not_listed() -> None:
    listed = set(optuna_searchers.sampler_names())
    assert {"TPESampler", "RandomSampler", "QMCSampler", "NSGAIISampler"} <= listed
    assert not {"BaseSampler", "BaseGASampler", "BruteForceSampler", "GridSampler", "PartialFixedSampler"} & listed


def test_clustered_random_evaluates_distinct_label_vectors() -> None:
    problem = replace(PROBLEM, dim=30, n_images=30, n_positives=6, budget=200)
    labels = clustered_random.ClusteredRandom(problem).ask(200)
    assert set(np.unique(labels)) == {0.0, 1.0}
    assert (labels.sum(axis=1) == 6).all()
    assert len(np.unique(labels, axis=0)) == 200


def test_clustered_random_spreads_wider_than_random_label_vectors() -> None:
    problem = replace(PROBLEM, dim=20, n_images=20, n_positives=4, budget=150)
    everything = np.array([np.bincount(c, minlength=20) for c in itertools.combinations(range(20), 4)], dtype=float)
    labels = clustered_random.ClusteredRandom(problem).ask(150)
    rng = np.random.default_rng(0)
    uniform = everything[rng.choice(len(everything), 150, replace=False)]

    def distance_to_nearest(representatives: Array) -> float:
        return float(1 - (everything @ representatives.T).max(axis=1).mean() / 4)

    assert distance_to_nearest(labels) < distance_to_nearest(uniform) - 0.01


def test_clustered_random_copes_with_more_clusters_than_labelings() -> None:
    labels = clustered_random.ClusteredRandom(replace(PROBLEM, dim=5, n_images=5, n_positives=1, budget=64)).ask(64)
    assert (labels.sum(axis=1) == 1).all()


def test_clustered_random_refuses_a_reduction() -> None:
    with pytest.raises(UserError, match="needs vectors of length 12, but a reduction to 4 was chosen"):
        clustered_random.ClusteredRandom(replace(PROBLEM, dim=4))


def test_non_finite_losses_are_as_bad_as_the_worst() -> None:
    told = np.array([0.5, np.nan, 7.0, np.inf, -np.inf])
    assert _library.finite(told).tolist() == [0.5, 7.0, 7.0, 7.0, 7.0]
    assert _library.finite(np.array([np.nan, 0.1])).tolist() == [_library.WORST, 0.1]
    assert np.isnan(told[1])
