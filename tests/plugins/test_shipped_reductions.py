"""What each first-party reduction promises beyond the contract."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import ROOT, environment
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from tdbench_plugins import reductions

from tdbench import TaskSpace
from tdbench.searchers.loading import load_plugins
from tdbench.searchers.reduction import ReductionProblem
from tdbench.toolkit.tangent import tangent_kernel

Array = NDArray[np.float64]
DIRECTIONS = ("pca", "features", "ntk")
SHIPPED = (*DIRECTIONS, "clusters")


@pytest.fixture(scope="module")
def space() -> TaskSpace:
    """Thirty real images where there are any, else digits."""
    path = ROOT.parent / "shared" / "data" / "cifar100-sample.npz"
    return TaskSpace(str(path) if path.is_file() else "digits", n=30, ratio=4, seed=100)


@pytest.fixture(scope="module")
def problem(space: TaskSpace) -> ReductionProblem:
    return ReductionProblem(6, space.n, space.n_positives, space.images)


def made(name: str, problem: ReductionProblem) -> Any:
    return load_plugins().reductions[name].make(problem)


def directions(reduction: Any) -> Array:
    """(N, D): how far each number of a vector moves each score, found by trying."""
    middle = np.full((1, reduction.dim), 0.5)
    return (reduction.scores(middle + 0.5 * np.eye(reduction.dim)) - reduction.scores(middle)).T * 2


def vectors(n: int, dim: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((n, dim))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_directions_are_orthogonal_of_length_one_and_sum_to_zero(name: str, problem: ReductionProblem) -> None:
    u = directions(made(name, problem))
    assert np.allclose(u.T @ u, np.eye(6), atol=1e-10)
    assert np.allclose(u.sum(axis=0), 0, atol=1e-8)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_scores_are_the_directions_weighted_by_the_distance_from_the_middle(
    name: str, problem: ReductionProblem
) -> None:
    reduction = made(name, problem)
    given = vectors(5, 6)
    assert np.allclose(reduction.scores(given), (given - 0.5) @ directions(reduction).T, atol=1e-12)
    assert np.array_equal(reduction.scores(np.full((1, 6), 0.5)), np.zeros((1, 30)))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_largest_entry_of_a_direction_is_positive(name: str, problem: ReductionProblem) -> None:
    u = directions(made(name, problem))
    assert (u[np.abs(u).argmax(axis=0), np.arange(6)] > 0).all()


@pytest.mark.parametrize("name", DIRECTIONS)
def test_fewer_dimensions_are_the_first_of_more(name: str, problem: ReductionProblem) -> None:
    six, two = (directions(made(name, replace(problem, dim=dim))) for dim in (6, 2))
    assert np.array_equal(six[:, :2], two)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_as_many_dimensions_as_images_reach_every_labeling(
    name: str, space: TaskSpace, problem: ReductionProblem
) -> None:
    reduction = made(name, replace(problem, dim=30))
    wanted = space.random_labelings(20, seed=1)
    asked = np.clip(0.5 + (wanted - wanted.mean()) @ directions(reduction) / 10, 0, 1)
    assert np.array_equal(space.decode(reduction.scores(asked)), wanted)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_vector_is_decoded_alike_to_the_bit_in_any_batch(name: str, problem: ReductionProblem) -> None:
    reduction = made(name, problem)
    given = vectors(40, 6)
    alone = np.concatenate([reduction.scores(row[None]) for row in given])
    assert np.array_equal(reduction.scores(given), alone)


def test_pca_agrees_with_scikit_learn(problem: ReductionProblem) -> None:
    assert problem.images is not None
    components = PCA(6, svd_solver="full").fit_transform(problem.images.reshape(30, -1).astype(np.float64))
    expected = components / np.linalg.norm(components, axis=0)
    u = directions(made("pca", problem))
    assert np.allclose(np.abs((u * expected).sum(axis=0)), 1, atol=1e-6)


def test_ntk_directions_are_eigenvectors_of_the_centred_tangent_kernel(problem: ReductionProblem) -> None:
    assert problem.images is not None
    centring = np.eye(30) - 1 / 30
    kernel = centring @ tangent_kernel(problem.images, initializations=8, seed=0) @ centring
    u = directions(made("ntk", problem))
    values = np.diag(u.T @ kernel @ u)
    assert np.allclose(kernel @ u, u * values, atol=1e-8)
    assert np.allclose(values, np.sort(np.linalg.eigvalsh(kernel))[::-1][:6])


def test_features_are_those_of_the_first_convolutions_of_untrained_networks(problem: ReductionProblem) -> None:
    import torch

    from tdbench.engine.reference import network

    assert problem.images is not None
    found = reductions.random_features(problem.images)
    assert found.shape == (30, 64 * 6 * 4 * 4)
    with torch.no_grad():
        second = torch.relu(network(1).conv1(torch.tensor(problem.images))).numpy()  # (30, 6, 28, 28)
    expected = second.reshape(30, 6, 4, 7, 4, 7).mean(axis=(3, 5)).reshape(30, -1)
    assert np.allclose(found[:, 96:192], expected, atol=1e-5)


def test_images_of_a_cluster_share_a_score_and_there_are_as_many_clusters_as_asked(problem: ReductionProblem) -> None:
    given = vectors(3, 6)
    scores = made("clusters", problem).scores(given)
    for row, vector in zip(scores, given, strict=True):
        assert set(row) == set(vector)
    assert len(np.unique(scores, axis=1).T) == 6


def test_clusters_hold_like_images_and_are_numbered_by_their_first(problem: ReductionProblem) -> None:
    rng = np.random.default_rng(0)
    kinds = np.array([0, 1, 0, 2, 1, 2, 2, 0, 1, 1])
    images = np.zeros((10, 3, 32, 32), dtype=np.float32)
    images += np.array([-1.0, 0.0, 1.0], dtype=np.float32)[kinds, None, None, None]
    images += 0.1 * rng.standard_normal(images.shape, dtype=np.float32)
    reduction = made("clusters", ReductionProblem(3, 10, 2, images))
    assert np.array_equal(reduction.scores(np.array([[0.0, 0.5, 1.0]])), [np.array([0.0, 0.5, 1.0])[kinds]])


def test_ties_within_a_cluster_go_to_the_lower_index(space: TaskSpace, problem: ReductionProblem) -> None:
    reduction = made("clusters", replace(problem, dim=1))
    assert np.array_equal(np.flatnonzero(space.decode(reduction.scores(np.array([[0.7]])))[0]), np.arange(6))


def test_a_kernel_is_computed_once_for_an_image_set(problem: ReductionProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    made("ntk", problem)
    monkeypatch.setattr("tdbench.toolkit.tangent.tangent_kernel", lambda *_, **__: pytest.fail("computed again"))
    made("ntk", replace(problem, dim=3))


def test_another_process_with_other_threads_gives_the_same_scores_to_the_bit() -> None:
    code = (
        "import sys, numpy as np; from tdbench import TaskSpace; from tdbench.searchers.loading import load_plugins;"
        "from tdbench.searchers.reduction import ReductionProblem;"
        "s = TaskSpace(n=20, seed=3); p = ReductionProblem(4, 20, 4, s.images); known = load_plugins().reductions;"
        "v = np.random.default_rng(0).random((9, 4));"
        f"print(*(known[name].make(p).scores(v).tobytes().hex() for name in {SHIPPED}))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={**environment(), "OMP_NUM_THREADS": n}
        ).stdout.split()
        for n in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0])) == 4
