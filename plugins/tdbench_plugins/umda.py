"""`umda`: the univariate marginal distribution algorithm over subsets of exactly P images.

Muehlenbein & Paass, *From recombination of genes to the estimation of distributions I*, PPSN IV (1996): sample a
generation, keep the better part of it (truncation selection), take the share of kept samples that have a one at i as
the probability of i, and begin again.

Settings, and why:

- **Exactly P positives** in each sample, each image with exactly its probability (`_subsets.sample`). Images the
  search does not decide on stay near P / N instead of drifting to P ones by accident.
- **Generation**: the budget divided by `GENERATIONS`, at least a batch. A generation of a fixed size would have
  settled on luck long before a large budget is used, and not yet begun with a small one. It ends with the tell that
  fills it, so any ask size works.
- **Selection**: the best `SELECTED` of a generation, Muehlenbein & Paass' truncation selection.
- **Margins** 1 / (N - P) and 1 - 1 / P on the probabilities, so that no image dies out (`_subsets.margins`).
- **Start** (`--start`): the mean of the given labelings and of P / N.
- **Recommendation**: the P images with the highest probabilities, a vote of all samples kept last, and not the
  luckiest sample.

Its probabilities are those of images, so nothing may stand between it and them: dim must equal n_images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, hookimpl
from tdbench.hookspecs import RegisterSearcher
from tdbench.toolkit import decode

from ._library import finite
from ._subsets import margins, refuse_reduction, sample, within

GENERATIONS = 20  # in a run; chosen by hand
SELECTED = 0.3  # share of a generation; chosen by hand


class UMDA:
    """estimation of distribution over subsets of exactly P images; recommends the most probable ones"""

    def __init__(self, problem: Problem) -> None:
        refuse_reduction("umda", problem)
        self._rng = np.random.default_rng(problem.seed)
        self._n_positives = problem.n_positives
        self._margins = margins(problem.n_images, problem.n_positives)
        self._generation = max(problem.batch_size, problem.budget // GENERATIONS, 2)
        self._probabilities = np.full(problem.n_images, problem.n_positives / problem.n_images)
        if problem.start is not None:  # half of what is known is that they were good, half that nothing is
            share = (problem.start.mean(axis=0) + self._probabilities) / 2
            self._probabilities = within(share, *self._margins)
        self._scores: list[NDArray[np.float64]] = []
        self._losses: list[NDArray[np.float64]] = []

    def ask(self, n: int) -> NDArray[np.float64]:
        """(n, dim) vectors of zeros and P ones from the current distribution."""
        return sample(self._rng, self._probabilities, n)

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """(n,) losses of the (n, dim) vectors just asked; a full generation makes the next distribution."""
        self._scores.append(scores.copy())
        self._losses.append(finite(loss))
        if sum(map(len, self._losses)) >= self._generation:
            told, losses = np.concatenate(self._scores), np.concatenate(self._losses)
            kept = np.argsort(losses, kind="stable")[: max(1, round(SELECTED * len(losses)))]
            self._probabilities = within(told[kept].mean(axis=0), *self._margins)
            self._scores, self._losses = [], []

    def recommend(self) -> NDArray[np.float64]:
        """(dim,) zeros, and ones at the P highest probabilities."""
        labels: NDArray[np.float64] = decode(self._probabilities[None], self._n_positives)[0].astype(np.float64)
        return labels


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("umda", UMDA, reducible=False, takes_start=True)
