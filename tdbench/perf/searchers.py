"""`tdbench perf --searchers`: milliseconds of ask and tell per evaluation, and what our adapters add to them.

Losses are random numbers; nothing is trained. If a library can be asked directly, its own loop runs beside the
adapter's, batch by batch, so that both have the same history and the same load on the machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.searchers.loading import load_sources
from tdbench.searchers.registry import Registration, plugin_sources
from tdbench.searchers.searcher import Problem, Searcher
from tdbench.space.task_space import TaskSpace

BUDGET, N_IMAGES, N_POSITIVES, BATCH = 4000, 50, 10, 32
SHARES = (1 / 16, 1 / 4, 1)  # of the budget; each is measured as a budget
SECONDS = 120.0  # limit for one searcher, or a library's own loop beside it, at one budget
WARM_UP_BUDGET = 2 * BATCH
FIRST_PARTY = "tdbench"  # the distribution whose searchers are measured


@dataclass(frozen=True)
class Cost:
    """One searcher at one budget; times are milliseconds per evaluation unless another unit is given.

    Attributes:
        start_s: seconds to make the searcher; `clustered-random` does all its work then.
        ask_tell: mean over all evaluations.
        last: mean over the last tenth of them, when the history is longest.
        library: the library's own loop over the batches that it finished in time; None without such a loop.
        adapter: median over those batches of the time that our adapter takes beyond it; below 0 if ours is faster.
        evaluations, library_evaluations: how many were asked and told; fewer than the budget if the time was up.
    """

    searcher: str
    budget: int
    start_s: float
    ask_tell: float
    last: float
    library: float | None
    adapter: float | None
    evaluations: int
    library_evaluations: int


def to_json(costs: Sequence[Cost]) -> str:
    """``{"searchers": [{"searcher", "budget", "ask_tell", ...}, ...]}``."""
    return json.dumps({"searchers": [dataclasses.asdict(cost) for cost in costs]}, indent=1) + "\n"


def measure_searchers(
    budget: int = BUDGET, seconds: float = SECONDS, tell: Callable[[str], None] = lambda _: None
) -> list[Cost]:
    """The costs of each searcher that comes with tdbench, at a few budgets up to that one.

    Raises:
        UserError: the budget is below 1.
    """
    if budget < 1:
        raise UserError(f"budget must be at least 1, got {budget}")
    from threadpoolctl import threadpool_limits

    own = [source for source in plugin_sources() if source.origin == FIRST_PARTY]
    found = [r for r in load_sources(own).searchers.values() if r.variants is None]
    budgets = sorted({max(1, round(share * budget)) for share in SHARES})
    costs = []
    # One thread, as in the process of a searcher in a run.
    with threadpool_limits(limits=1), _quiet():
        for registration in found:
            _cost(registration, WARM_UP_BUDGET, seconds)  # imports, and work that a library does only once
            for each in budgets:
                tell(f"{registration.name}, budget {each}")
                costs.append(_cost(registration, each, seconds))
    return costs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, and only errors from Optuna's log, as in the adapters."""
    logger = logging.getLogger("optuna")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _cost(registration: Registration, budget: int, seconds: float) -> Cost:
    images = TaskSpace("digits", n=N_IMAGES).images if registration.sees_images else None
    problem = Problem(N_IMAGES, N_IMAGES, N_POSITIVES, BATCH, budget, seed=0, images=images)
    start = time.perf_counter()
    searcher = registration.make(problem)
    start_s = time.perf_counter() - start
    make_library = LIBRARIES.get(registration.name)
    library = make_library(problem) if make_library else None
    rng = np.random.default_rng(0)
    sizes: list[int] = []
    ours: list[float] = []
    theirs: list[float] = []
    while sum(sizes) < budget and sum(ours) < seconds:
        n = min(BATCH, budget - sum(sizes))
        loss = rng.random(n)
        turns = [(searcher, ours)]
        if library is not None and sum(theirs) < seconds:
            turns.append((library, theirs))
        for who, times in turns if len(sizes) % 2 else turns[::-1]:  # they take turns to go first
            times.append(_turn(who, n, loss))
        sizes.append(n)
    each = 1e3 * np.array(ours) / np.array(sizes)
    done = len(theirs)
    tail = max(1, len(sizes) // 10)
    return Cost(
        searcher=registration.name,
        budget=budget,
        start_s=start_s,
        ask_tell=1e3 * sum(ours) / sum(sizes),
        last=1e3 * sum(ours[-tail:]) / sum(sizes[-tail:]),
        library=1e3 * sum(theirs) / sum(sizes[:done]) if done else None,
        adapter=float(np.median(each[:done] - 1e3 * np.array(theirs) / np.array(sizes[:done]))) if done else None,
        evaluations=sum(sizes),
        library_evaluations=sum(sizes[:done]),
    )


def _turn(searcher: Searcher, n: int, loss: NDArray[np.float64]) -> float:
    start = time.perf_counter()
    searcher.tell(searcher.ask(n), loss)
    return time.perf_counter() - start


# ------------------------------------------------------ the libraries' own loops, as in their documentation


class _Nevergrad:
    def __init__(self, problem: Problem) -> None:
        import nevergrad

        array = nevergrad.p.Array(shape=(problem.dim,), lower=0.0, upper=1.0)
        array.random_state = np.random.RandomState(problem.seed)
        self._optimizer = nevergrad.optimizers.TwoPointsDE(array, budget=problem.budget, num_workers=problem.batch_size)

    def ask(self, n: int) -> Any:
        return [self._optimizer.ask() for _ in range(n)]

    def tell(self, asked: Any, loss: NDArray[np.float64]) -> None:
        for candidate, value in zip(asked, loss.tolist(), strict=True):
            self._optimizer.tell(candidate, value)


class _CMA:
    def __init__(self, problem: Problem) -> None:
        import cma

        options = {"bounds": [0, 1], "popsize": problem.batch_size, "seed": math.nan, "verbose": -9, "verb_log": 0}
        self._strategy = cma.CMAEvolutionStrategy([0.5] * problem.dim, 0.3, options)

    def ask(self, n: int) -> Any:
        return self._strategy.ask(n)

    def tell(self, asked: Any, loss: NDArray[np.float64]) -> None:
        if len(asked) == self._strategy.popsize:  # an incomplete last batch is not told
            self._strategy.tell(asked, loss.tolist())


class _Optuna:
    """Optuna's own TPE with the settings of `tpe`, without our two faster steps."""

    def __init__(self, problem: Problem) -> None:
        import optuna

        sampler = optuna.samplers.TPESampler(seed=problem.seed, multivariate=True, constant_liar=True)
        self._study = optuna.create_study(sampler=sampler)
        uniform = optuna.distributions.FloatDistribution(0.0, 1.0)
        self._space: dict[str, Any] = {f"x{i:02}": uniform for i in range(problem.dim)}

    def ask(self, n: int) -> Any:
        return [self._study.ask(self._space) for _ in range(n)]

    def tell(self, asked: Any, loss: NDArray[np.float64]) -> None:
        for trial, value in zip(asked, loss.tolist(), strict=True):
            self._study.tell(trial, value)


LIBRARIES: dict[str, Callable[[Problem], Any]] = {"twopointsde": _Nevergrad, "cmaes": _CMA, "tpe": _Optuna}
