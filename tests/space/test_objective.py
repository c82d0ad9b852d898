"""The loss of a space as a function of real vectors: values, counts, noise and errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tdbench import TaskSpace, UserError

X = np.random.default_rng(0).normal(size=(6, 10))


@pytest.fixture(scope="module")
def space() -> TaskSpace:
    return TaskSpace("digits", n=10, steps=5)


def test_losses_are_those_of_a_run_with_that_seed(space: TaskSpace) -> None:
    told = 1 - space.taskness(space.decode(X), run_seed=7, replicates=2)
    np.testing.assert_array_equal(space.objective(seed=7, replicates=2).batch(X), told)


def test_one_by_one_or_in_batches_gives_the_same_losses(space: TaskSpace) -> None:
    whole, mixed = space.objective(), space.objective()
    expected = whole.batch(X)
    np.testing.assert_array_equal([mixed(X[0]), *mixed.batch(X[1:4]), *map(mixed, X[4:].tolist())], expected)
    assert whole.evaluations == mixed.evaluations == len(X)


def test_fresh_noise_differs_between_evaluations_and_seeds(space: TaskSpace) -> None:
    f = space.objective()
    assert f(X[0]) != f(X[0])
    assert space.objective(seed=1)(X[0]) != space.objective(seed=2)(X[0])


def test_frozen_noise_is_a_function(space: TaskSpace) -> None:
    f = space.objective(noise="frozen")
    assert f(X[0]) == f(X[0]) == space.objective(noise="frozen", seed=5)(3 * X[0] + 1)  # only the order counts


def test_confirming_is_not_counted_and_is_what_the_space_confirms(space: TaskSpace) -> None:
    f = space.objective()
    labels = f.labels(X[0])
    np.testing.assert_array_equal(labels, space.decode(X[:1])[0])
    assert f.confirm(X[0]) == 1 - space.confirm(labels).mean()
    assert f.confirm(X[0], replicates=3) == 1 - space.confirm(labels, 3).mean()
    assert f.evaluations == 0


def test_no_scores_are_no_evaluations(space: TaskSpace) -> None:
    f = space.objective()
    assert f.batch(np.zeros((0, 10))).shape == (0,)
    assert f.evaluations == 0


def test_threads_share_one_count(space: TaskSpace) -> None:
    f = space.objective()
    with ThreadPoolExecutor(4) as threads:
        losses = list(threads.map(f, [X[0]] * 12))
    assert f.evaluations == 12
    assert sorted(losses) == sorted(space.objective().batch(np.tile(X[0], (12, 1))))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros(9), r"expected x with shape \(10,\), but it had shape \(9,\)"),
        (np.zeros((1, 10)), r"expected x with shape \(10,\)"),
        (np.full(10, np.nan), "finite"),
        ("scores", "array of numbers"),
    ],
)
def test_other_vectors_are_errors_and_no_evaluations(space: TaskSpace, x: object, said: str) -> None:
    f = space.objective()
    with pytest.raises(ValueError, match=said):
        f(x)  # type: ignore[arg-type]
    assert f.evaluations == 0


@pytest.mark.parametrize("settings", [{"replicates": 0}, {"noise": "none"}, {"seed": -1}])
def test_wrong_settings_are_refused_at_once(space: TaskSpace, settings: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        space.objective(**settings)  # type: ignore[arg-type]
