"""The taxonomy against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tdbench.transfers.taxonomy import best_sources, taxonomy


def by_brute_force(affinity: np.ndarray, b: int) -> float:
    subsets = itertools.combinations(range(len(affinity)), min(b, len(affinity)))
    return max(affinity[list(subset)].max(axis=0).sum() for subset in subsets)


@pytest.mark.parametrize("seed", range(6))
def test_the_best_sources_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    sources, targets = rng.integers(1, 9), rng.integers(1, 8)
    affinity = rng.dirichlet(np.ones(sources), targets).T
    for b, choice in enumerate(taxonomy(affinity), start=1):
        assert choice.total == pytest.approx(by_brute_force(affinity, b))
        assert len(choice.sources) <= b
        assert set(choice.serves) == set(choice.sources)
        assert affinity[choice.serves, np.arange(targets)].sum() == pytest.approx(choice.total)


def test_as_many_sources_as_targets_serve_each_with_its_best():
    affinity = np.random.default_rng(1).random((12, 5))
    np.testing.assert_array_equal(best_sources(affinity, 12).serves, affinity.argmax(axis=0))
    assert len(taxonomy(affinity)) == 8


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(ValueError, match="at least one source"):
        best_sources(np.zeros((0, 3)), 1)
