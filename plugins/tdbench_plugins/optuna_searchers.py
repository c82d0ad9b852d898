"""`tpe` and `optuna:NAME`: Optuna's samplers through a study's ask and tell, one float parameter per score.

Settings, and why:

- **tpe** is `TPESampler` at Optuna's defaults: multivariate and constant liar (both since Optuna 5; asked for by
  name, so that Optuna 4 runs the same algorithm), 24 candidates, 10 random trials to start with. Constant liar keeps
  the vectors of one batch apart: the ones asked and not yet told count as bad.
- **Cost.** Every TPE ask fits densities to the whole history. `_tpe_sampler` replaces two of Optuna's private steps
  by ones that compute the same densities from a numpy history, and the likelihoods by matrix products; a test checks
  that the same vectors are asked. Where an Optuna version has no such steps, Optuna's own are used, only slower.
- **optuna:NAME** is every sampler of `optuna.samplers` that works on float parameters, is built without arguments
  and whose package is installed, at its defaults (NSGA-II's population is 50, whatever the batch).
- The study is in memory. Non-finite losses are told as the worst (`_library.finite`), since Optuna would drop them.
- No recommendation of its own: the best told labeling, which is also what a study's ``best_trial`` is.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, Searcher, UserError, hookimpl
from tdbench.hookspecs import RegisterSearcher

from ._library import BorrowedRandomState, finite, quiet

LOGGER = "optuna"
_LEFT_OUT = {"BruteForceSampler"}  # needs parameters with finitely many values
_NEEDS = {"CmaEsSampler": "cmaes", "GPSampler": "torch", "QMCSampler": "scipy"}


class OptunaSearcher:
    """One Optuna study."""

    def __init__(self, problem: Problem, sampler: Any) -> None:
        with quiet(LOGGER):
            import optuna

            self._study = optuna.create_study(sampler=sampler)
            width = len(str(problem.dim - 1))  # samplers sort parameters by name: names sort as their numbers do
            self._space: dict[str, Any] = {
                f"x{i:0{width}}": optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(problem.dim)
            }
        self._history: list[NDArray[np.float64]] | None = getattr(sampler, "history", None)
        self._random_state = BorrowedRandomState(problem.seed)
        self._asked: list[Any] = []

    def ask(self, n: int) -> NDArray[np.float64]:
        """(n, dim) vectors in [0, 1]."""
        self._asked = []
        vectors: list[NDArray[np.float64]] = []
        with quiet(LOGGER), self._random_state:
            for _ in range(n):
                trial = self._study.ask(self._space)
                params = trial.params
                vector = np.array([params[name] for name in self._space])
                if self._history is not None:
                    self._history.append(vector)
                self._asked.append(trial)
                vectors.append(vector)
        return np.array(vectors)

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """(n,) losses of the (n, dim) vectors just asked, in the same order."""
        with quiet(LOGGER), self._random_state:
            for trial, value in zip(self._asked, finite(loss).tolist(), strict=True):
                self._study.tell(trial, value)


def _tpe_sampler(seed: int) -> Any:
    """Optuna's TPESampler; with the quicker steps where this Optuna has the ones they replace."""
    with quiet(LOGGER):
        from optuna.samplers import TPESampler

        settings: dict[str, Any] = {"seed": seed, "multivariate": True, "constant_liar": True}
        try:
            from ._quick_tpe import QuickTPESampler
        except ImportError:
            return TPESampler(**settings)
        return QuickTPESampler(**settings)


def tpe(problem: Problem) -> Searcher:
    """Optuna TPE, multivariate with constant liar"""
    return OptunaSearcher(problem, _tpe_sampler(problem.seed))


def optuna_sampler(problem: Problem, name: str) -> Searcher:
    """any Optuna sampler for float parameters, as optuna:NAME"""
    samplers = _samplers()
    if name not in samplers:
        raise UserError(f"Optuna has no sampler {name!r} for float parameters; there are {', '.join(samplers)}")
    sampler_class = samplers[name]
    settings: dict[str, Any] = {"seed": problem.seed}
    if "warn_asynchronous_seeding" in inspect.signature(sampler_class).parameters:
        settings["scramble"] = True  # an unscrambled sequence is the same for every seed
    with quiet(LOGGER):
        return OptunaSearcher(problem, sampler_class(**settings))


def sampler_names() -> Sequence[str]:
    """Names of the Optuna samplers that work here, sorted."""
    return sorted(_samplers())


def _samplers() -> dict[str, Any]:
    import optuna

    return {
        name: sampler
        for name, sampler in vars(optuna.samplers).items()
        if inspect.isclass(sampler)
        and issubclass(sampler, optuna.samplers.BaseSampler)
        and not inspect.isabstract(sampler)
        and name not in _LEFT_OUT
        and _is_built_from_a_seed(sampler)
        and (name not in _NEEDS or importlib.util.find_spec(_NEEDS[name]) is not None)
    }


def _is_built_from_a_seed(sampler: Any) -> bool:
    parameters = inspect.signature(sampler).parameters
    return "seed" in parameters and all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()
    )


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("tpe", tpe)
    register("optuna", optuna_sampler, variants=sampler_names)
