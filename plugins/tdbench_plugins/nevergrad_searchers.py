"""`twopointsde` and `nevergrad:NAME`: the optimizers of Nevergrad, asked and told one batch at a time.

Settings, and why:

- **Array and start.** ``Array(shape=(dim,), lower=0, upper=1)``, what Nevergrad's own documentation leads to. Its
  optimizers then start Gaussian around 0.5 (deviation 1/6) and bounce off the bounds. A labeling depends only on the
  order of the scores, so this start is as uniform over labelings as a uniform one, and it leaves room before the
  bounds, where scores would pile up as ties.
- **num_workers** = `problem.batch_size`: more untold asks than workers is unsupported. TwoPointsDE's population is
  therefore max(30, batch size), Nevergrad's default rule.
- **budget** = `problem.budget`; portfolio optimizers choose by it.
- **Recommendation.** `twopointsde` has none, so the best told labeling is recommended: Nevergrad's rule for it is
  the same labeling, but the told value is then kept beside the result. ``nevergrad:NAME`` uses
  ``provide_recommendation()`` where NAME brings a rule of its own (a mean, a model), for the same reason.
- **Non-finite losses** are told as the worst (`_library.finite`); Nevergrad would clip them at 5e20 with a warning.
- **Random state.** The parametrization gets a generator of its own; importing Nevergrad and some of its optimizers
  draw from numpy's global generator nevertheless, which `BorrowedRandomState` hides and makes reproducible.
  Optimizers that Nevergrad runs in a thread of their own (its ``recast`` ones) may still be not reproducible.
- **The registry** is listed whole. Of its 542 names in Nevergrad 1.0.12, 40 evaluations of 20 dimensions at batch 8:
  431 ran twice alike, 80 evaluate one at a time and say so, and most others fail inside Nevergrad (its meta-models
  with numpy 2.4, packages that are not installed) or took longer than 5 s. A run with one of those is a failed row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, Searcher, UserError, hookimpl
from tdbench.hookspecs import RegisterSearcher

from ._library import BorrowedRandomState, finite, quiet


class NevergradSearcher:
    """One Nevergrad optimizer."""

    def __init__(self, optimizer: Any, random_state: BorrowedRandomState) -> None:
        self._optimizer = optimizer
        self._random_state = random_state
        self._asked: list[Any] = []

    def ask(self, n: int) -> NDArray[np.float64]:
        """(n, dim) vectors in [0, 1]."""
        with quiet(), self._random_state:
            self._asked = [self._optimizer.ask() for _ in range(n)]
        return _in_box([candidate.value for candidate in self._asked])

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """(n,) losses of the (n, dim) vectors just asked, in the same order."""
        with quiet(), self._random_state:
            for candidate, value in zip(self._asked, finite(loss).tolist(), strict=True):
                self._optimizer.tell(candidate, value)


class RecommendingNevergradSearcher(NevergradSearcher):
    """One Nevergrad optimizer with a recommendation rule of its own."""

    _told = False

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        super().tell(scores, loss)
        self._told = True

    def recommend(self) -> NDArray[np.float64]:
        """(dim,) the optimizer's own recommendation; the middle of the box before anything was told."""
        if not self._told:
            return np.full(self._optimizer.dimension, 0.5)
        generator = self._optimizer.parametrization.random_state
        state = generator.get_state()
        try:  # some rules draw, which must not change what is asked next
            with quiet(), BorrowedRandomState(0):
                return _in_box(self._optimizer.provide_recommendation().value)
        finally:
            generator.set_state(state)


def _in_box(values: Any) -> NDArray[np.float64]:
    return np.clip(np.asarray(values, dtype=np.float64), 0.0, 1.0)  # bounds hold to rounding only


def _import(random_state: BorrowedRandomState) -> Any:
    with quiet(), random_state:
        import nevergrad

        return nevergrad


def _optimizer(problem: Problem, name: str) -> tuple[Any, BorrowedRandomState]:
    random_state = BorrowedRandomState(problem.seed)
    ng = _import(BorrowedRandomState(0))
    optimizer_class = ng.optimizers.registry[name]
    if getattr(optimizer_class, "no_parallelization", False) and problem.batch_size > 1:
        raise UserError(f"Nevergrad's {name} evaluates one at a time: use batch size 1, not {problem.batch_size}")
    with quiet(), random_state:
        parametrization = ng.p.Array(shape=(problem.dim,), lower=0.0, upper=1.0)
        parametrization.random_state = np.random.RandomState(problem.seed)
        return optimizer_class(parametrization, budget=problem.budget, num_workers=problem.batch_size), random_state


def twopointsde(problem: Problem) -> Searcher:
    """Nevergrad TwoPointsDE: differential evolution with two-point crossover"""
    return NevergradSearcher(*_optimizer(problem, "TwoPointsDE"))


def nevergrad_optimizer(problem: Problem, name: str) -> Searcher:
    """any optimizer of Nevergrad's registry, as nevergrad:NAME"""
    optimizer, random_state = _optimizer(problem, name)
    base = _import(BorrowedRandomState(0)).optimization.base.Optimizer
    rules = ("recommend", "_internal_provide_recommendation")
    own_rule = any(getattr(type(optimizer), rule, None) is not getattr(base, rule) for rule in rules)
    return (RecommendingNevergradSearcher if own_rule else NevergradSearcher)(optimizer, random_state)


def optimizer_names() -> Sequence[str]:
    """Names of Nevergrad's registry, sorted."""
    return sorted(_import(BorrowedRandomState(0)).optimizers.registry)


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("twopointsde", twopointsde)
    register("nevergrad", nevergrad_optimizer, variants=optimizer_names)
