"""The contract that every reduction holds, and the reduction under test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.searchers.reduction import Reduction, ReductionProblem
from tdbench.searchers.registry import Plugins, ReductionRegistration
from tdbench.testing.checks import (
    CheckResult,
    expect,
    expect_numbers,
    global_random_state_left_alone,
    global_random_state_of_another_process,
)
from tdbench.testing.contract import Contract, Subject

Array = NDArray[np.float64]
N, DIM = 20, 5


@dataclass(frozen=True)
class ReductionSubject(Subject):
    """A reduction under test: how to make one, and what it claims to be."""

    takes_dim: bool = True

    def make(self, n: int = N, dim: int = DIM, blank: bool = False) -> Reduction:
        """It on n random images, or on n that are all zero."""
        problem = ReductionProblem(dim if self.takes_dim else n, n, max(1, n // 5), self._images(n, blank))
        reduction: Reduction = self._made(problem, "scores")
        made: object = getattr(reduction, "dim", None)
        expect(
            isinstance(made, int | np.integer) and int(made) > 0,
            f"dim must be a whole number from 1, but it was {made!r}",
        )
        expect(not self.takes_dim or bool(made == dim), f"dim must be {dim}, as was asked for, but it was {made!r}")
        return reduction


class ReductionContract(Contract[ReductionSubject, ReductionRegistration]):
    """What a reduction's author subclasses in a pytest file, giving `name`, or `factory`.

    Attributes:
        name: the reduction's registered name, without a D.
        plugins: plugin files or modules to load beside the installed ones.
        factory: instead of a name, ``staticmethod(factory)`` of a reduction that is registered nowhere.
        sees_images, takes_dim: with `factory`, what its registration would say.
    """

    what = "reduction"
    takes_dim: bool = True

    def test_scores_are_well_formed(self) -> None:
        """scores(vectors) gives (n, N) finite numbers, for any vectors in [0, 1]."""
        reduction = self.subject().make()
        for n in (1, 2, 33):
            _scores(reduction, _vectors(reduction, n), N)
        for value in (0.0, 0.5, 1.0):
            _scores(reduction, np.full((3, reduction.dim), value), N)

    def test_any_number_of_dimensions_works(self) -> None:
        """Every D from 1 to N works."""
        for dim in (1, 2, N - 1, N):
            reduction = self.subject().make(dim=dim)
            _scores(reduction, _vectors(reduction, 4), N)

    def test_any_number_of_images_works(self) -> None:
        """Small and larger image sets work."""
        for n in (4, 60):
            reduction = self.subject().make(n, dim=3)
            _scores(reduction, _vectors(reduction, 4), n)

    def test_images_that_are_all_alike_are_survived(self) -> None:
        """Identical images, all zero, are no reason to fail."""
        reduction = self.subject().make(blank=True)
        _scores(reduction, _vectors(reduction, 4), N)

    def test_made_again_scores_the_same(self) -> None:
        """Made twice on the same images it gives the same scores, to the bit: that is how a run is resumed."""
        first = self.subject().make()
        vectors = _vectors(first, 8)
        with global_random_state_of_another_process():
            second = self.subject().make()
            again = _scores(second, vectors, N)
        expect(np.array_equal(_scores(first, vectors, N), again), "made twice on the same images, it gave other scores")

    def test_a_vector_scores_the_same_in_any_company(self) -> None:
        """The scores of a vector depend, up to rounding, neither on the others of its batch nor on earlier calls."""
        reduction = self.subject().make()
        vectors = _vectors(reduction, 8)
        together = _scores(reduction, vectors, N)
        alone = np.concatenate([_scores(reduction, row[None], N) for row in vectors[::-1]])[::-1]
        expect(
            np.allclose(together, alone, rtol=1e-9, atol=1e-12),
            "a vector had other scores alone than in a batch: nothing may be kept from call to call",
        )

    def test_vectors_make_a_difference(self) -> None:
        """Different vectors lead to different labelings."""
        reduction = self.subject().make()
        highest = np.argsort(-_scores(reduction, _vectors(reduction, 100), N), axis=1, kind="stable")[:, : N // 5]
        labelings = {frozenset(row) for row in highest.tolist()}
        expect(len(labelings) > 1, "100 random vectors all led to the same labeling")

    def test_arrays_are_left_alone(self) -> None:
        """Vectors are not changed, and neither they nor what was returned is kept: the caller may reuse both."""
        reduction = self.subject().make()
        vectors = _vectors(reduction, 8)
        given = vectors.copy()
        scores = reduction.scores(given)
        expect(np.array_equal(given, vectors), "scores() changed the vectors it was given")
        expected = scores.copy()
        given[...] = 0
        expect(
            np.array_equal(scores, expected), "overwriting the vectors changed the scores: return an array of its own"
        )
        if scores.flags.writeable:
            scores[...] = 0
        expect(
            np.array_equal(reduction.scores(vectors), expected),
            "overwriting the scores it had returned changed the next ones: return a copy",
        )

    def test_global_random_state_is_left_alone(self) -> None:
        """Neither Python's, nor numpy's, nor torch's global generator is touched."""
        subject = self.subject()
        with global_random_state_left_alone():
            reduction = subject.make()
            reduction.scores(_vectors(reduction, 8))

    def _named(self, found: Plugins, name: str) -> ReductionSubject:
        """The contract chooses D, so a name without one is enough."""
        return self._registered(found.reductions[name] if name in found.reductions else found.reduction(name)[0])

    def _registered(self, registration: ReductionRegistration) -> ReductionSubject:
        return self._claimed(registration.name, registration.make, registration)

    def _claimed(self, name: str, factory: Callable[[Any], Any], claims: Any) -> ReductionSubject:
        return ReductionSubject(name, factory, sees_images=claims.sees_images, takes_dim=claims.takes_dim)


def check_reduction(
    reduction: str | ReductionRegistration,
    plugins: Sequence[str | os.PathLike[str]] = (),
    *,
    checks: Sequence[str] | None = None,
) -> Iterator[CheckResult]:
    """Run the contract, one result at a time (``list(...)`` for all), without pytest.

    Args:
        reduction: its name, without a D (the contract chooses its own), or its registration.
        plugins: plugin files or modules to load beside the installed ones.
        checks: names of the checks to run, all of `ReductionContract.checks()` by default.

    Raises:
        UserError: there is no such reduction.
    """
    return ReductionContract().of(reduction, plugins).results(checks)


def _vectors(reduction: Reduction, n: int) -> Array:
    return np.random.default_rng(1).random((n, reduction.dim))


def _scores(reduction: Reduction, vectors: Array, n_images: int) -> Array:
    """A copy of the checked scores of (n, dim) vectors."""
    scores: Any = reduction.scores(vectors.copy())
    expect_numbers(scores, (len(vectors), n_images), "scores()")
    return np.array(scores, dtype=np.float64)
