"""`pca:D`, `features:D`, `ntk:D`, `clusters:D`: D numbers that say what the images look like (definitions, section 8).

Settings, and why:

- **Directions** (all but `clusters`) are the D leading eigenvectors of an (N, N) kernel of the images, centred as in
  kernel PCA (Schoelkopf, Smola & Mueller, Neural Computation 1998, appendix B), since only the order of scores counts.
  Each has length 1, so that a step of a searcher moves as far along the last direction as along the first. Of its two
  signs an eigenvector has the one in which its largest entry is positive.
- **Scores** are the directions weighted by the vector's distance from the middle of its box: U (v - 1/2). They are
  summed direction by direction, so that a vector's scores do not depend, to the bit, on what else is in its batch.
- **Features** are the first convolution (6 filters of 5x5) and ReLU of `NETWORKS` untrained networks, averaged over
  `POOL` x `POOL` places: 4x4 places times 384 filters. The networks are those of the replicate seeds 0, 1, ...
- **Clusters**: scikit-learn's KMeans on the standardized pixels, the best of `STARTS` k-means++ starts from a fixed
  seed; clusters are numbered by their first image. Where there are fewer different images than clusters, the last
  numbers of a vector have no effect.
- One thread: sums must not depend on how many there are, or a run could not be resumed on another setting. Seeds are
  fixed: a reduction is a function of the images.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tdbench import hookimpl
from tdbench.hookspecs import RegisterReduction
from tdbench.reduction import ReductionProblem

from ._library import quiet

# Part of what the reductions are (definitions, section 8); all chosen by hand.
NETWORKS = 64
POOL = 7  # places; divides the 28 that the convolution leaves
STARTS = 10
INITIALIZATIONS = 8
IMAGE_SETS_KEPT = 64  # of each kernel: 1.3 MB at N = 50, 128 MB at N = 500

Array = NDArray[np.float64]
Images = NDArray[np.float32]


class Directions:
    """Scores from (N, D) directions: U (v - 1/2)."""

    def __init__(self, directions: Array) -> None:
        self.dim = directions.shape[1]
        self._directions = directions

    def scores(self, vectors: Array) -> Array:
        """(n, N) scores of (n, D) vectors in [0, 1]."""
        scores = np.zeros((len(vectors), len(self._directions)))
        for weights, direction in zip((vectors - 0.5).T, self._directions.T, strict=True):
            scores += weights[:, None] * direction
        return scores


class Clusters:
    """One score per cluster, which all its images have; images of a cluster are told apart by their order only."""

    def __init__(self, problem: ReductionProblem) -> None:
        self.dim = problem.dim
        self._cluster_of = _clusters(_seen(problem), problem.dim)

    def scores(self, vectors: Array) -> Array:
        """(n, N) scores of (n, D) vectors in [0, 1]."""
        return vectors[:, self._cluster_of]


def pca(problem: ReductionProblem) -> Directions:
    """the D leading principal components of the pixels"""
    return Directions(_pixel_directions(_seen(problem))[:, : problem.dim])


def features(problem: ReductionProblem) -> Directions:
    """the D leading principal components of random convolutional features"""
    return Directions(_feature_directions(_seen(problem))[:, : problem.dim])


def ntk(problem: ReductionProblem) -> Directions:
    """the D leading eigenvectors of the network's tangent kernel, before any training"""
    return Directions(_tangent_directions(_seen(problem))[:, : problem.dim])


def clusters(problem: ReductionProblem) -> Clusters:
    """one score for each of D k-means clusters of the images"""
    return Clusters(problem)


def _seen(problem: ReductionProblem) -> Images:
    assert problem.images is not None  # registered with sees_images=True
    return problem.images


def _once_per_image_set(directions: Callable[[Images], Array]) -> Callable[[Images], Array]:
    """Remembers the (N, N) result of the last image sets: ntk:5 and ntk:20 share a kernel, and so do runs."""
    known: dict[bytes, Array] = {}

    @functools.wraps(directions)
    def remembered(images: Images) -> Array:
        key = hashlib.sha256(images.tobytes()).digest()
        if key not in known:
            if len(known) == IMAGE_SETS_KEPT:
                del known[next(iter(known))]
            known[key] = directions(images)
        return known[key]

    return remembered


@_once_per_image_set
def _pixel_directions(images: Images) -> Array:
    return _eigenvectors(_linear_kernel(images.reshape(len(images), -1)))


@_once_per_image_set
def _feature_directions(images: Images) -> Array:
    return _eigenvectors(_linear_kernel(random_features(images)))


@_once_per_image_set
def _tangent_directions(images: Images) -> Array:
    from tdbench.toolkit import tangent_kernel

    return _eigenvectors(tangent_kernel(images, initializations=INITIALIZATIONS, threads=1))


def random_features(images: Images) -> NDArray[np.float32]:
    """(N, 6144) features of (N, 3, 32, 32) images: untrained convolutions, ReLU, means over 7x7 places."""
    import torch
    from torch.nn import functional as F

    from tdbench.toolkit import network, torch_threads

    with torch_threads(1), torch.inference_mode():
        x = torch.tensor(images)
        pooled = [F.avg_pool2d(F.relu(network(seed).conv1(x)), POOL).flatten(1) for seed in range(NETWORKS)]
        result: NDArray[np.float32] = torch.cat(pooled, dim=1).numpy()
    return result


def _linear_kernel(values: NDArray[np.float32]) -> Array:
    from threadpoolctl import threadpool_limits

    exact = values.astype(np.float64)
    with threadpool_limits(limits=1):
        kernel: Array = exact @ exact.T
    return kernel


def _eigenvectors(kernel: Array) -> Array:
    """(N, N) eigenvectors of the centred kernel as columns, largest eigenvalue first, each of length 1."""
    from threadpoolctl import threadpool_limits

    mean = kernel.mean(axis=0)
    centred = kernel - mean - mean[:, None] + mean.mean()
    with threadpool_limits(limits=1):
        _, vectors = np.linalg.eigh((centred + centred.T) / 2)
    vectors = vectors[:, ::-1]
    largest = np.argmax(np.abs(vectors).round(9), axis=0)  # rounded: two equally large ones must not change places
    signs: Array = vectors * np.where(vectors[largest, np.arange(len(vectors))] < 0, -1.0, 1.0)
    return signs


def _clusters(images: Images, count: int) -> NDArray[np.int64]:
    with quiet():  # fewer different images than clusters is a fact about a set, not a mistake
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        kmeans = KMeans(count, n_init=STARTS, random_state=0)
        with threadpool_limits(limits=1):
            found = kmeans.fit(images.reshape(len(images), -1).astype(np.float64)).labels_
    _, first, cluster_of = np.unique(found, return_index=True, return_inverse=True)
    number_of = np.empty(len(first), dtype=np.int64)
    number_of[np.argsort(first)] = np.arange(len(first))
    return number_of[cluster_of]


@hookimpl
def register_reductions(register: RegisterReduction) -> None:
    for factory in (pca, features, ntk, clusters):
        register(factory.__name__, factory, sees_images=True)
