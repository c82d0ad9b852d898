"""`cga`: the sliding-window compact genetic algorithm, made for noise, over subsets of exactly P images.

The compact genetic algorithm (Harik, Lobo & Goldberg, *The compact genetic algorithm*, IEEE Trans. Evolutionary
Computation 3(4), 1999) keeps a probability for each bit. Of two samples compared, the winner's ones gain 1 / K and the
loser's lose 1 / K where the two differ, K being the size of a population that it stands for. Lucas, Liu &
Perez-Liebana, *Efficient noisy optimisation with the sliding window compact genetic algorithm* (arXiv:1708.02068,
2017), compare each new sample with all of the last W, so that each evaluation is used 2 W times instead of once, and
none is repeated.

Settings, and why:

- **Exactly P positives** in each sample, each image with exactly its probability (`_subsets.sample`). Winner and loser
  have equally many ones, so an update keeps the sum of the probabilities at P.
- **Window** W = `WINDOW` samples.
- **Virtual population** K = W x budget / `MOVES`: a bit that won and lost every comparison of a run would move by
  `MOVES` in all. A fixed K would either settle on luck or not settle at all, depending on the budget.
- **Batches**: all n samples of an ask come from one distribution. They are compared in the order asked, each with the W
  before it, and the probabilities move once after all of them.
- **Ties** move nothing.
- **Margins** 1 / (N - P) and 1 - 1 / P on the probabilities, so that no image dies out (`_subsets.margins`).
- **Recommendation**: the P images with the highest probabilities.

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

WINDOW = 50  # samples (W in Lucas et al.); chosen by hand
MOVES = 24.0  # in all, of a bit that wins every comparison of a run; chosen by hand


class SlidingWindowCGA:
    """compact genetic algorithm with a sliding window over subsets of exactly P images"""

    def __init__(self, problem: Problem) -> None:
        refuse_reduction("cga", problem)
        self._rng = np.random.default_rng(problem.seed)
        self._n_positives = problem.n_positives
        self._margins = margins(problem.n_images, problem.n_positives)
        self._step = MOVES / (WINDOW * problem.budget)  # 1 / K
        self._probabilities = np.full(problem.n_images, problem.n_positives / problem.n_images)
        self._scores = np.zeros((0, problem.n_images))
        self._losses = np.zeros(0)

    def ask(self, n: int) -> NDArray[np.float64]:
        """(n, dim) vectors of zeros and P ones from the current distribution."""
        return sample(self._rng, self._probabilities, n)

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """(n,) losses of the (n, dim) vectors just asked: each is compared with the window before it."""
        before = len(self._losses)
        samples, losses = np.concatenate([self._scores, scores]), np.concatenate([self._losses, finite(loss)])
        move = np.zeros(samples.shape[1])
        for new in range(before, len(losses)):
            window = slice(max(0, new - WINDOW), new)
            won = np.sign(losses[window] - losses[new])  # 1 where the new one is better, -1 where it is worse
            move += won @ (samples[new] - samples[window])
        self._probabilities = within(self._probabilities + self._step * move, *self._margins)
        self._scores, self._losses = samples[-WINDOW:], losses[-WINDOW:]

    def recommend(self) -> NDArray[np.float64]:
        """(dim,) zeros, and ones at the P highest probabilities."""
        labels: NDArray[np.float64] = decode(self._probabilities[None], self._n_positives)[0].astype(np.float64)
        return labels


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("cga", SlidingWindowCGA, reducible=False)
