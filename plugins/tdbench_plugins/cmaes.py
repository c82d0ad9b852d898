"""`cmaes`: CMA-ES through pycma, in the box [0, 1]^dim.

Settings, and why:

- **Population** = max(4 + floor(3 ln dim), batch size): pycma's default, or one generation per batch where a batch
  is larger. A larger population than the default makes CMA-ES slower but more robust to noise, which there is here.
  Any ask size works: vectors come from the current distribution, and it is updated once a population is told.
  What was asked beyond it counts for the next generation.
- **Start**: mean 0.5, deviation 0.3, pycma's advice for a box (about a third of its width).
- **Restarts**: where pycma's `stop()` fires, a fresh start from a uniform point with twice the population
  (IPOP, Auger & Hansen, CEC 2005).
- **Recommendation**: the distribution's mean, which under noise is better than the luckiest vector told. Of several
  restarts, the mean of the one whose last generation had the lowest average loss.
- **Dimension 1** is not supported by pycma, so a second coordinate without effect is added.
- **Randomness**: `randn=` is an own generator, and ``seed=nan`` keeps pycma from seeding numpy's global one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, hookimpl
from tdbench.hookspecs import RegisterSearcher

from ._library import finite, quiet

SIGMA0 = 0.3  # pycma's advice for a box: about a third of its width


class CMAES:
    """CMA-ES in the unit box with a population of at least one batch; recommends the mean"""

    def __init__(self, problem: Problem) -> None:
        self._dim = problem.dim
        self._es_dim = max(2, problem.dim)
        self._rng = np.random.default_rng(problem.seed)
        self._popsize = max(4 + int(3 * math.log(self._es_dim)), problem.batch_size)
        self._strategy = self._start(np.full(self._es_dim, 0.5))
        self._asked: list[NDArray[np.float64]] = []
        self._told: list[tuple[NDArray[np.float64], float]] = []
        self._finished: tuple[float, NDArray[np.float64]] | None = None  # best (average loss, mean) of earlier starts
        self._current: tuple[float, NDArray[np.float64]] | None = None  # the same of the running one

    def ask(self, n: int) -> NDArray[np.float64]:
        """(n, dim) vectors in [0, 1] from the current distribution."""
        with quiet():
            self._asked = self._strategy.ask(number=n)
        return self._in_box(np.array(self._asked))

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """(n,) losses of the (n, dim) vectors just asked; each full population updates the distribution."""
        self._told += zip(self._asked, finite(loss).tolist(), strict=True)
        while len(self._told) >= self._popsize:
            generation, self._told = self._told[: self._popsize], self._told[self._popsize :]
            losses = [value for _, value in generation]
            with quiet():
                if self._strategy.number_of_solutions_asked == 0:
                    self._strategy.ask(number=1)  # pycma wants an ask before every tell
                self._strategy.tell([vector for vector, _ in generation], losses)
                self._current = (float(np.mean(losses)), np.array(self._strategy.result.xfavorite))
                stopped = bool(self._strategy.stop())
            if stopped:
                self._restart()

    def recommend(self) -> NDArray[np.float64]:
        """(dim,) the mean of the distribution, clipped to the box."""
        means = [mean for mean in (self._finished, self._current) if mean is not None]
        return self._in_box(min(means, key=lambda pair: pair[0])[1] if means else np.full(self._es_dim, 0.5))

    def _restart(self) -> None:
        if self._current and (self._finished is None or self._current[0] < self._finished[0]):
            self._finished = self._current
        self._current, self._told = None, []
        self._popsize *= 2
        self._strategy = self._start(self._rng.random(self._es_dim))

    def _start(self, mean: NDArray[np.float64]) -> Any:
        with quiet():
            import cma

            options = {
                "bounds": [0.0, 1.0],
                "popsize": self._popsize,
                "randn": lambda *shape: self._rng.standard_normal(shape),
                "seed": math.nan,
                "verbose": -9,
                "verb_log": 0,
                "signals_filename": "",  # by default a file in the working directory can change options
            }
            return cma.CMAEvolutionStrategy(mean, SIGMA0, options)

    def _in_box(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(vectors[..., : self._dim], 0.0, 1.0)


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("cmaes", CMAES)
