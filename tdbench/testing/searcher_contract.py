"""The contract that every searcher holds, and the searcher under test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import truth
from tdbench.base.errors import UserError
from tdbench.searchers.registry import Plugins, Registration
from tdbench.searchers.searcher import Done, Problem, Searcher
from tdbench.space.labelings import decode
from tdbench.testing.checks import (
    CheckResult,
    expect,
    expect_all,
    expect_numbers,
    global_random_state_left_alone,
    global_random_state_of_another_process,
)
from tdbench.testing.contract import Contract, Subject

Array = NDArray[np.float64]
SMALL = Problem(dim=20, n_images=20, n_positives=4, batch_size=8, budget=48, seed=1)


@dataclass(frozen=True)
class SearcherSubject(Subject):
    """A searcher under test: how to make one, and what it claims to be."""

    baseline: bool = False
    deterministic: bool = False
    reducible: bool = True
    takes_start: bool = False

    def make(self, problem: Problem) -> Searcher:
        made: Searcher = self._made(replace(problem, images=self._images(problem.n_images)), "ask", "tell")
        return made

    def run(
        self,
        problem: Problem,
        *,
        sizes: Sequence[int] | None = None,
        losses: Callable[[Array, np.random.Generator], Array] = lambda scores, rng: rng.random(len(scores)),
        spoil: bool = False,
        recommend: bool = False,
    ) -> list[Array]:
        """Ask and tell through a whole budget, checking every answer, and return copies of the asks.

        Args:
            sizes: of the asks; whole batches and a smaller last one by default.
            losses: ``losses(scores, rng)``, (n,) losses of (n, dim) scores.
            spoil: overwrite what was asked and told after every step.
            recommend: ask for a recommendation, if there is one, before the first ask and after every tell.
        """
        searcher = self.make(problem)
        rng = np.random.default_rng(12345)
        asks: list[Array] = []
        if recommend:
            _check_recommendation(searcher, problem)
        for n in sizes if sizes is not None else _whole_batches(problem):
            asked = _asked(searcher, n, problem, bool(asks))
            if asked is None:
                break
            asks.append(np.array(asked, dtype=np.float64))
            scores, loss = asks[-1].copy(), losses(asks[-1], rng)
            told = scores.copy(), loss.copy()
            if spoil:
                _overwrite(asked)
            _tell(searcher, problem, *told)
            expect(np.array_equal(told[0], scores), "tell() changed the scores it was told")
            expect(np.array_equal(told[1], loss, equal_nan=True), "tell() changed the losses it was told")
            if spoil:
                _overwrite(told[0])
                _overwrite(told[1])
            if recommend:
                _check_recommendation(searcher, problem)
        return asks


class SearcherContract(Contract[SearcherSubject, Registration]):
    """What a searcher's author subclasses in a pytest file, giving `name`, or `factory`.

    Attributes:
        name: the searcher's registered name.
        plugins: plugin files or modules to load beside the installed ones.
        factory: instead of a name, ``staticmethod(factory)`` of a searcher that is registered nowhere.
        baseline: with `factory`, that it does not learn. A registered searcher has said so itself.
        sees_images: with `factory`, that it is given the images.
        deterministic: nothing in it is random.
        reducible: with `factory`, that it runs in any number of dimensions.
        takes_start: with `factory`, that it is given labelings to begin from.
    """

    what = "searcher"
    baseline: bool = False
    deterministic: bool = False
    reducible: bool = True
    takes_start: bool = False

    def test_asks_are_well_formed(self) -> None:
        """ask(n) gives (n, dim) numbers in [0, 1], whatever it was told."""
        self.subject().run(SMALL)

    def test_same_seed_asks_the_same(self) -> None:
        """Two searchers with one seed, told the same, ask the same: that is how a run is resumed."""
        run = self.subject().run
        first = run(SMALL)
        with global_random_state_of_another_process():
            second = run(SMALL)
        _expect_same(
            first, second, "made twice with the same seed and told the same losses, it asked different vectors"
        )

    def test_other_seed_asks_otherwise(self) -> None:
        """Another seed leads to other vectors, or repeated runs would not be repeats."""
        subject = self.subject()
        if subject.deterministic:
            return
        one, other = subject.run(SMALL), subject.run(replace(SMALL, seed=SMALL.seed + 1))
        same = len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        expect(
            not same,
            f"seeds {SMALL.seed} and {SMALL.seed + 1} led to the same asks: draw everything random from problem.seed "
            "(or set deterministic = True in the contract, if there is nothing random in it)",
        )

    def test_any_ask_size_works(self) -> None:
        """Any 1 <= n <= batch_size works, and may vary from ask to ask."""
        self.subject().run(SMALL, sizes=[1, 8, 3, 5, 8, 7, 2, 1, 6, 7])

    def test_batch_size_one_works(self) -> None:
        """A batch size of 1 works."""
        self.subject().run(replace(SMALL, batch_size=1, budget=24))

    def test_budget_need_not_be_a_multiple_of_the_batch(self) -> None:
        """The last batch of a run may be smaller."""
        self.subject().run(replace(SMALL, budget=37))

    def test_large_and_small_dimensions_work(self) -> None:
        """2 images, 500 images, and fewer dimensions than images (not with reducible=False)."""
        subject = self.subject()
        subject.run(replace(SMALL, dim=2, n_images=2, n_positives=1, budget=16))
        subject.run(replace(SMALL, dim=500, n_images=500, n_positives=50, budget=24))
        for dim in (1, 3) if subject.reducible else ():
            subject.run(replace(SMALL, dim=dim, budget=24))

    def test_ties_are_survived(self) -> None:
        """Losses that are all equal, or equal in part, are no reason to fail."""
        run = self.subject().run
        run(SMALL, losses=lambda scores, rng: np.ones(len(scores)))
        run(SMALL, losses=lambda scores, rng: rng.integers(2, size=len(scores)).astype(np.float64))

    def test_nan_and_inf_are_survived(self) -> None:
        """NaN and infinite losses, some or all, are no reason to fail."""
        run = self.subject().run

        def some(scores: Array, rng: np.random.Generator) -> Array:
            return np.where(
                rng.random(len(scores)) < 0.4, rng.choice([np.nan, np.inf], len(scores)), rng.random(len(scores))
            )

        run(SMALL, losses=some)
        run(SMALL, losses=lambda scores, rng: np.full(len(scores), np.nan))

    def test_arrays_are_left_alone(self) -> None:
        """What is told is not changed, and neither it nor what was asked is kept: the caller may reuse both."""
        run = self.subject().run
        _expect_same(
            run(SMALL),
            run(SMALL, spoil=True),
            "it asked otherwise after the caller overwrote arrays that had been asked or told: keep copies of them",
        )

    def test_global_random_state_is_left_alone(self) -> None:
        """Neither Python's, nor numpy's, nor torch's global generator is touched."""
        run = self.subject().run
        with global_random_state_left_alone():
            run(SMALL, recommend=True)

    def test_recommendation_is_well_formed(self) -> None:
        """recommend(), where there is one, gives (dim,) scores in [0, 1], at any time, and changes nothing."""
        run = self.subject().run
        _expect_same(
            run(SMALL),
            run(SMALL, recommend=True),
            "it asked otherwise when recommend() was called in between: a recommendation must change nothing",
        )

    def test_several_tasks_can_be_wanted(self) -> None:
        """Where several labelings are wanted, recommend_many(k), if there is one, gives (j, dim) scores in [0, 1]."""
        subject = self.subject()
        problem = replace(SMALL, tasks=3, max_overlap=1)
        searcher = subject.make(problem)
        rng = np.random.default_rng(12345)
        told = False
        for n in _whole_batches(problem):
            found = _asked(searcher, n, problem, told)
            if found is None:
                break
            asked, told = np.array(found, dtype=np.float64), True
            _tell(searcher, problem, asked, rng.random(n))
        recommend_many = getattr(searcher, "recommend_many", None)
        if recommend_many is not None:
            found = recommend_many(problem.tasks)
            expect(isinstance(found, np.ndarray) and found.ndim == 2, "recommend_many() must return a (j, dim) array")
            expect(len(found) <= 64 * problem.tasks, f"recommend_many({problem.tasks}) gave {len(found)} vectors")
            if len(found):
                _check_scores(found, (len(found), problem.dim), f"recommend_many({problem.tasks})")

    def test_labelings_can_be_avoided(self) -> None:
        """It works where earlier labelings are to be avoided, and those too similar to them are told a loss above 1."""
        avoid = np.zeros((2, SMALL.n_images), dtype=np.uint8)
        avoid[0, :4] = avoid[1, 4:8] = 1
        avoid.flags.writeable = False
        self.subject().run(replace(SMALL, avoid=avoid, max_overlap=1), losses=lambda s, rng: 2 * rng.random(len(s)))

    def test_several_replicates_and_a_start_work(self) -> None:
        """Evaluations of several trainings, frozen noise, and labelings to begin from (with takes_start=True) work."""
        subject = self.subject()
        start = np.zeros((2, SMALL.n_images), dtype=np.uint8)
        start[0, :4] = start[1, 4:8] = 1
        start.flags.writeable = False
        problem = replace(SMALL, replicates=3, noise="frozen", start=start if subject.takes_start else None)
        _expect_same(
            subject.run(problem),
            subject.run(problem),
            "made twice with the same seed, told the same losses of replicates, it asked different vectors",
        )

    def test_better_than_random(self) -> None:
        """On a cheap noisy objective it finds more than random search (a baseline: not less).

        The loss is 1 - (share of a hidden labeling's positives that are found) + Gaussian noise. Measured without
        noise and averaged over the seeds: that share in the recommended labeling, against many runs of random search,
        and in the last quarter of the labelings asked, against its expectation under random labelings, P/N. A searcher
        passes with either clearly above (by two and by five of random search's standard errors); a baseline passes
        with the first not clearly below (by three).
        """
        subject = self.subject()
        problem = replace(SMALL, dim=30, n_images=30, n_positives=6, batch_size=10, budget=300)
        seeds = range(6)
        found = np.array([_shares_found(subject, replace(problem, seed=seed)) for seed in seeds])
        random_search = SearcherSubject("random", _Uniform)
        by_random = np.array([_shares_found(random_search, replace(problem, seed=seed)) for seed in range(1000, 1150)])
        recommended, late = found.mean(axis=0)
        expected, expected_late = by_random[:, 0].mean(), problem.n_positives / problem.n_images
        error, error_late = by_random.std(axis=0) / np.sqrt(len(seeds))
        what = (
            f"after {problem.budget} evaluations its recommendation held {recommended:.2f} of a hidden labeling "
            f"(random search's: {expected:.2f}) and its last asks {late:.2f} (random labelings: {expected_late:.2f}), "
            f"means over {len(seeds)} seeds; "
        )
        if subject.baseline:
            bar = expected - 3 * error
            expect(recommended > bar, f"{what}a recommendation above {bar:.2f} was expected of a baseline")
        else:
            bar, bar_late = expected + 2 * error, expected_late + 5 * error_late
            expect(
                recommended > bar or late > bar_late,
                f"{what}more than {bar:.2f} or {bar_late:.2f} was expected (if it is not meant to learn, register it "
                "with baseline=True)",
            )

    def _named(self, found: Plugins, name: str) -> SearcherSubject:
        return self._registered(*found.searcher(name))

    def _registered(self, registration: Registration, variant: str | None = None) -> SearcherSubject:
        name = registration.name
        if registration.variants is not None:
            if variant is None:
                raise UserError(f"{name!r} is a family: check one of it by its name, {name}:NAME")
            name = f"{name}:{variant}"
        return self._claimed(name, lambda problem: registration.make(problem, variant), registration)

    def _claimed(self, name: str, factory: Callable[[Any], Any], claims: Any) -> SearcherSubject:
        return SearcherSubject(
            name,
            factory,
            sees_images=claims.sees_images,
            baseline=claims.baseline,
            deterministic=self.deterministic,
            reducible=claims.reducible,
            takes_start=claims.takes_start,
        )


def check_searcher(
    searcher: str | Registration,
    plugins: Sequence[str | os.PathLike[str]] = (),
    *,
    deterministic: bool = False,
    checks: Sequence[str] | None = None,
) -> Iterator[CheckResult]:
    """Run the contract, one result at a time (``list(...)`` for all), without pytest.

    Args:
        searcher: its name (``family:VARIANT`` too), or its registration.
        plugins: plugin files or modules to load beside the installed ones.
        deterministic: nothing in it is random, so every seed may lead to the same asks.
        checks: names of the checks to run, all of `SearcherContract.checks()` by default.

    Raises:
        UserError: there is no such searcher.
    """
    contract = SearcherContract()
    contract.deterministic = truth("deterministic", deterministic)
    return contract.of(searcher, plugins).results(checks)


def _check_scores(scores: Any, shape: tuple[int, ...], source: str) -> None:
    """Raises ContractError unless `scores` is a numpy array of that shape with finite numbers in [0, 1]."""
    expect_numbers(scores, shape, source)
    low, high = float(scores.min()), float(scores.max())
    message = f"{source} must return numbers in [0, 1], but they were from {low:g} to {high:g}"
    expect_all((scores >= 0) & (scores <= 1), scores, message)


class _Uniform:
    def __init__(self, problem: Problem) -> None:
        self._dim, self._rng = problem.dim, np.random.default_rng(problem.seed)

    def ask(self, n: int) -> Array:
        return self._rng.random((n, self._dim))

    def tell(self, scores: Array, loss: Array) -> None:
        pass


def _whole_batches(problem: Problem) -> list[int]:
    starts = range(0, problem.budget, problem.batch_size)
    return [min(problem.batch_size, problem.budget - start) for start in starts]


def _check_recommendation(searcher: Searcher, problem: Problem) -> None:
    recommend = getattr(searcher, "recommend", None)
    if recommend is not None:
        _check_scores(recommend(), (problem.dim,), "recommend()")


def _overwrite(array: Array) -> None:
    if array.flags.writeable:
        array[...] = 0


def _asked(searcher: Searcher, n: int, problem: Problem, told: bool) -> Any:
    """What the searcher asks for, checked; None where it is done, which it may be once it was told something."""
    try:
        asked = searcher.ask(n)
    except Done:
        expect(told, f"ask({n}) raised tdbench.Done before the searcher was told anything")
        _check_recommendation(searcher, problem)
        return None
    _check_scores(asked, (n, problem.dim), f"ask({n})")
    return asked


def _tell(searcher: Any, problem: Problem, scores: Array, loss: Array) -> None:
    """Tell the (n,) losses, as those of single replicates where the searcher wants these."""
    if hasattr(searcher, "tell_replicates"):
        searcher.tell_replicates(scores, _spread(loss, problem.replicates))
    else:
        searcher.tell(scores, loss)


def _spread(loss: Array, replicates: int) -> Array:
    """(n, k) losses whose mean over k is the (n,) `loss`."""
    return np.asarray(loss[:, None] + (np.linspace(-0.1, 0.1, replicates) if replicates > 1 else 0.0))


def _expect_same(first: list[Array], second: list[Array], message: str) -> None:
    expect(len(first) == len(second), f"{message} (it was done after {len(first)} asks, and then after {len(second)})")
    for step, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        expect(np.array_equal(one, other), f"{message} (first in ask number {step})")


def _shares_found(subject: SearcherSubject, problem: Problem) -> tuple[float, float]:
    rng = np.random.default_rng([problem.seed, 777])
    hidden = np.zeros(problem.dim)
    hidden[rng.permutation(problem.dim)[: problem.n_positives]] = 1 / problem.n_positives
    searcher = subject.make(problem)
    best, best_loss = np.zeros(problem.dim), np.inf
    shares: list[float] = []
    for n in _whole_batches(problem):
        asked = _asked(searcher, n, problem, bool(shares))
        if asked is None:
            break
        scores = np.array(asked, dtype=np.float64)
        found = _positives(scores, problem) @ hidden
        shares += found.tolist()
        loss = 1 - found + 0.1 * rng.standard_normal(n)
        if loss.min() < best_loss:
            best, best_loss = scores[loss.argmin()].copy(), loss.min()
        _tell(searcher, problem, scores, loss)
    recommend = getattr(searcher, "recommend", None)
    chosen = best if recommend is None else np.asarray(recommend(), dtype=np.float64)
    return float(_positives(chosen[None], problem)[0] @ hidden), float(np.mean(shares[-problem.budget // 4 :]))


def _positives(scores: Array, problem: Problem) -> Array:
    return decode(scores, problem.n_positives).astype(np.float64)
