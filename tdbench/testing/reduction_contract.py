"""The contract that every reduction holds; `tdbench.testing.searcher_contract` is where it is imported from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.searchers.reduction import Reduction, ReductionFactory, ReductionProblem
from tdbench.searchers.registry import ReductionRegistration, load_plugins
from tdbench.testing.checks import (
    CheckResult,
    expect,
    global_random_state_left_alone,
    global_random_state_of_another_process,
    result_of,
)

Array = NDArray[np.float64]
N, DIM = 20, 5


@dataclass(frozen=True)
class ReductionSubject:
    """A reduction under test: how to make one, and what it claims to be."""

    name: str
    factory: ReductionFactory
    sees_images: bool = False
    takes_dim: bool = True

    def make(self, n: int = N, dim: int = DIM, alike: bool = False) -> Reduction:
        """It on n random images, or on n that are all alike."""
        images = np.zeros((n, 3, 32, 32), dtype=np.float32)
        if not alike:
            images[...] = np.random.default_rng(0).standard_normal(images.shape, dtype=np.float32)
        images.flags.writeable = False
        problem = ReductionProblem(
            dim if self.takes_dim else n, n, max(1, n // 5), images if self.sees_images else None
        )
        reduction = self.factory(problem)
        expect(callable(getattr(reduction, "scores", None)), f"the factory made {reduction!r}, which has no scores()")
        made: object = getattr(reduction, "dim", None)
        expect(
            isinstance(made, int | np.integer) and int(made) > 0,
            f"dim must be a whole number from 1, but it was {made!r}",
        )
        expect(not self.takes_dim or bool(made == dim), f"dim must be {dim}, as was asked for, but it was {made!r}")
        return reduction


def scores_are_well_formed(subject: ReductionSubject) -> None:
    """scores(vectors) gives (n, N) finite numbers, for any vectors in [0, 1]."""
    reduction = subject.make()
    for n in (1, 2, 33):
        _scores(reduction, _vectors(reduction, n), N)
    for value in (0.0, 0.5, 1.0):
        _scores(reduction, np.full((3, reduction.dim), value), N)


def any_number_of_dimensions_works(subject: ReductionSubject) -> None:
    """Every D from 1 to N works."""
    for dim in (1, 2, N - 1, N):
        reduction = subject.make(dim=dim)
        _scores(reduction, _vectors(reduction, 4), N)


def any_number_of_images_works(subject: ReductionSubject) -> None:
    """Small and larger image sets work."""
    for n in (4, 60):
        reduction = subject.make(n, dim=3)
        _scores(reduction, _vectors(reduction, 4), n)


def images_that_are_all_alike_are_survived(subject: ReductionSubject) -> None:
    """Images without any difference, all zero, are no reason to fail."""
    reduction = subject.make(alike=True)
    _scores(reduction, _vectors(reduction, 4), N)


def made_again_scores_the_same(subject: ReductionSubject) -> None:
    """Made twice on the same images it gives the same scores, to the bit: that is how a run is resumed."""
    first = subject.make()
    vectors = _vectors(first, 8)
    with global_random_state_of_another_process():
        second = subject.make()
        again = _scores(second, vectors, N)
    expect(np.array_equal(_scores(first, vectors, N), again), "made twice on the same images, it gave other scores")


def a_vector_scores_the_same_in_any_company(subject: ReductionSubject) -> None:
    """The scores of a vector depend neither on what else is in its batch nor on what came before, but for rounding."""
    reduction = subject.make()
    vectors = _vectors(reduction, 8)
    together = _scores(reduction, vectors, N)
    alone = np.concatenate([_scores(reduction, row[None], N) for row in vectors[::-1]])[::-1]
    expect(
        np.allclose(together, alone, rtol=1e-9, atol=1e-12),
        "a vector's scores were others alone than among others: nothing may be kept from call to call",
    )


def vectors_make_a_difference(subject: ReductionSubject) -> None:
    """Different vectors lead to different labelings."""
    reduction = subject.make()
    highest = np.argsort(-_scores(reduction, _vectors(reduction, 100), N), axis=1, kind="stable")[:, : N // 5]
    labelings = {frozenset(row) for row in highest.tolist()}
    expect(len(labelings) > 1, "100 random vectors all led to the same labeling")


def arrays_are_left_alone(subject: ReductionSubject) -> None:
    """Vectors are not changed, and neither they nor what was returned is kept: the caller may reuse both."""
    reduction = subject.make()
    vectors = _vectors(reduction, 8)
    given = vectors.copy()
    scores = reduction.scores(given)
    expect(np.array_equal(given, vectors), "scores() changed the vectors it was given")
    expected = scores.copy()
    given[...] = 0
    expect(np.array_equal(scores, expected), "overwriting the vectors changed the scores: return an array of its own")
    if scores.flags.writeable:
        scores[...] = 0
    expect(
        np.array_equal(reduction.scores(vectors), expected),
        "overwriting the scores it had returned changed the next ones: return a copy",
    )


def global_random_state_is_left_alone(subject: ReductionSubject) -> None:
    """Neither Python's, nor numpy's, nor torch's global generator is touched."""
    with global_random_state_left_alone():
        reduction = subject.make()
        reduction.scores(_vectors(reduction, 8))


CHECKS: tuple[Callable[[ReductionSubject], None], ...] = (
    scores_are_well_formed,
    any_number_of_dimensions_works,
    any_number_of_images_works,
    images_that_are_all_alike_are_survived,
    made_again_scores_the_same,
    a_vector_scores_the_same_in_any_company,
    vectors_make_a_difference,
    arrays_are_left_alone,
    global_random_state_is_left_alone,
)


def check_reduction(
    reduction: str | ReductionRegistration,
    plugins: Sequence[str] = (),
    *,
    checks: Sequence[Callable[[ReductionSubject], None]] = CHECKS,
) -> Iterator[CheckResult]:
    """Run the contract, one result at a time (``list(...)`` for all), without pytest.

    Args:
        reduction: its name, without a D (the contract chooses its own), or its registration.
        plugins: plugin files or modules to load beside the installed ones.
        checks: which checks.

    Raises:
        UserError: there is no such reduction.
    """
    subject = _subject(reduction, plugins)
    return (result_of(check, subject) for check in checks)


class ReductionContract:
    """What a plugin's author subclasses in a pytest file, giving `name`, or `factory`.

    Attributes:
        name: the reduction's registered name, without a D.
        plugins: plugin files or modules to load beside the installed ones.
        factory: instead of a name, ``staticmethod(factory)`` of a reduction that is registered nowhere.
        sees_images, takes_dim: with `factory`, what its registration would say.
    """

    name: str = ""
    plugins: tuple[str, ...] = ()
    factory: ReductionFactory | None = None
    sees_images: bool = False
    takes_dim: bool = True

    def subject(self) -> ReductionSubject:
        """The reduction under test.

        Raises:
            UserError: there is no such reduction, or neither `name` nor `factory` was given.
        """
        if self.factory is not None:
            return ReductionSubject(self.name or "factory", self.factory, self.sees_images, self.takes_dim)
        if not self.name:
            raise UserError(
                f"{type(self).__name__} needs a name = '...' (or a factory) to say which reduction it tests"
            )
        return _subject(self.name, self.plugins)

    def test_scores_are_well_formed(self) -> None:
        scores_are_well_formed(self.subject())

    def test_any_number_of_dimensions_works(self) -> None:
        any_number_of_dimensions_works(self.subject())

    def test_any_number_of_images_works(self) -> None:
        any_number_of_images_works(self.subject())

    def test_images_that_are_all_alike_are_survived(self) -> None:
        images_that_are_all_alike_are_survived(self.subject())

    def test_made_again_scores_the_same(self) -> None:
        made_again_scores_the_same(self.subject())

    def test_a_vector_scores_the_same_in_any_company(self) -> None:
        a_vector_scores_the_same_in_any_company(self.subject())

    def test_vectors_make_a_difference(self) -> None:
        vectors_make_a_difference(self.subject())

    def test_arrays_are_left_alone(self) -> None:
        arrays_are_left_alone(self.subject())

    def test_global_random_state_is_left_alone(self) -> None:
        global_random_state_is_left_alone(self.subject())


def _subject(reduction: str | ReductionRegistration, plugins: Sequence[str]) -> ReductionSubject:
    if isinstance(reduction, str):
        found = load_plugins(plugins)
        named = found.reductions.get(reduction)
        reduction = found.reduction(reduction)[0] if named is None else named
    return ReductionSubject(reduction.name, reduction.make, reduction.sees_images, reduction.takes_dim)


def _vectors(reduction: Reduction, n: int) -> Array:
    return np.random.default_rng(1).random((n, reduction.dim))


def _scores(reduction: Reduction, vectors: Array, n_images: int) -> Array:
    """A copy of the checked scores of (n, dim) vectors."""
    scores: Any = reduction.scores(vectors.copy())
    shape = (len(vectors), n_images)
    expect(isinstance(scores, np.ndarray), f"scores() must return a numpy array, not {type(scores).__name__}")
    expect(scores.shape == shape, f"scores() must return an array of shape {shape}, but it had shape {scores.shape}")
    expect(scores.dtype.kind in "fiub", f"scores() must return numbers, but they were of type {scores.dtype}")
    expect(bool(np.isfinite(scores).all()), "scores() must return finite numbers, but there were NaN or inf")
    return np.array(scores, dtype=np.float64)
