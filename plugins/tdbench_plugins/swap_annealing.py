"""`swap-annealing`: simulated annealing over subsets of exactly P images, many neighbours at a time.

Kirkpatrick, Gelatt & Vecchi, *Optimization by simulated annealing*, Science 220 (1983). The state is one subset, a
neighbour exchanges one positive for one negative. One chain; an ask holds n different neighbours of its state, told
together. The next state is drawn from the state and its neighbours with probability proportional to exp(-loss / T), the
heat bath, of which a batch is the parallel form: single chains of one neighbour per tell, as many as a batch, would
each be too short.

`swap-annealing:resample` evaluates once more what it decides between (Gutjahr & Pflug, *Simulated annealing for noisy
cost functions*, J. Global Optimization 8, 1996; Branke, Meisel & Schmidt, *Simulated annealing in the presence of
noise*, J. Heuristics 14, 2008). Half of the evaluations (`RESAMPLED`) go to the state and its `LEADERS` best neighbours
so far, the least evaluated first, so that luck averages out; only subsets with `TRUSTED` evaluations or more can be the
next state. Losses are means over all evaluations of a subset. Without resampling, a state that was lucky once is hardly
ever left again, which is how plain annealing fails under noise.

Settings, and why:

- **Temperature**: the standard deviation of all losses told so far (White, *Concepts of scale in simulated annealing*,
  1984) at the start, so that it has the objective's own scale, noise included; then falling geometrically to 1 /
  `COOLING` of it at the end of the budget.
- **Start**: a uniform subset, or the first labeling of `--start`; it is the first that is asked. With a
  batch of 1 the first ask is it and nothing else.
- **Recommendation**: of all subsets with enough evaluations (one; `TRUSTED` when resampling), the one with the lowest
  mean loss plus its standard error, so that ten middling evaluations count for more than a lucky one. Noise is not
  known to a searcher; the deviation of all losses stands for it.

It exchanges images, so nothing may stand between it and them: dim must equal n_images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, hookimpl
from tdbench.hookspecs import RegisterSearcher

from ._library import finite
from ._subsets import refuse_reduction, sample

RESAMPLED = 0.5  # share of the evaluations; chosen by hand
LEADERS = 4  # neighbours; chosen by hand
TRUSTED = 4  # evaluations: they halve the standard error of one; chosen by hand
COOLING = 1000.0  # first temperature over last; chosen by hand


@dataclass
class Known:
    """All that was told of one subset."""

    labels: NDArray[np.uint8]  # (N,)
    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        return self.total / self.count


class SwapAnnealing:
    """simulated annealing by exchanging one positive for one negative, a batch of neighbours at a time"""

    resampled = 0.0  # share of the evaluations that goes to subsets known already
    trusted = 1  # evaluations that make a subset eligible

    def __init__(self, problem: Problem) -> None:
        refuse_reduction("swap-annealing", problem)
        self._rng = np.random.default_rng(problem.seed)
        self._budget = problem.budget
        share = np.full(problem.n_images, problem.n_positives / problem.n_images)
        drawn = sample(self._rng, share, 1)[0].astype(np.uint8)
        self._state = Known(drawn if problem.start is None else problem.start[0].copy())
        self._known = {self._state.labels.tobytes(): self._state}
        self._near = dict(self._known)  # the state and its neighbours told since it was reached
        self._owed = 0.0  # evaluations that resampling has yet to get
        self._told, self._mean, self._squares = 0, 0.0, 0.0  # count, mean and squared deviations of all losses

    def ask(self, n: int) -> NDArray[np.float64]:
        """(n, dim) vectors of zeros and P ones: neighbours of the state, and subsets to be evaluated again."""
        self._owed += self.resampled * n
        again = max(int(self._owed), 1 if self._state.count == 0 else 0)
        self._owed -= again
        return np.array([*self._least_known(again), *self._neighbours(n - again)], dtype=np.float64)

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """(n,) losses of the (n, dim) vectors just asked; draws the next state."""
        for labels, value in zip(scores.astype(np.uint8), finite(loss).tolist(), strict=True):
            known = self._known.setdefault(labels.tobytes(), Known(labels.copy()))
            known.total += value
            known.count += 1
            self._near[labels.tobytes()] = known
            self._told += 1
            change = value - self._mean
            self._mean += change / self._told
            self._squares += change * (value - self._mean)
        if self._state.count >= self.trusted:
            self._move()
        if not self.resampled:
            self._near = {self._state.labels.tobytes(): self._state}

    def recommend(self) -> NDArray[np.float64]:
        """(dim,) zeros, and ones at the positives of the subset with the lowest mean loss plus standard error."""
        noise = self._deviation()
        trusted = [known for known in self._known.values() if known.count >= self.trusted]
        best = min(trusted, key=lambda known: known.mean + noise / math.sqrt(known.count), default=self._state)
        return best.labels.astype(np.float64)

    def _move(self) -> None:
        candidates = [known for known in self._near.values() if known.count >= self.trusted]
        temperature = max(self._deviation(), 1e-12) * COOLING ** -(self._told / self._budget)
        means = np.array([known.mean for known in candidates])
        weights = np.exp(-(means - means.min()) / temperature)
        state = candidates[self._rng.choice(len(candidates), p=weights / weights.sum())]
        if state is not self._state:
            self._state = state
            self._near = {
                key: known for key, known in self._near.items() if np.count_nonzero(known.labels != state.labels) <= 2
            }

    def _deviation(self) -> float:
        return math.sqrt(self._squares / self._told) if self._told else 0.0

    def _least_known(self, count: int) -> list[NDArray[np.uint8]]:
        """`count` of the state and its best neighbours, each time the one with the fewest evaluations."""
        others = sorted((known for known in self._near.values() if known is not self._state), key=lambda k: k.mean)
        leading = [self._state, *others[:LEADERS]]
        counts = np.array([known.count for known in leading])
        chosen = []
        for _ in range(count):
            fewest = int(np.argmin(counts))
            counts[fewest] += 1
            chosen.append(leading[fewest].labels)
        return chosen

    def _neighbours(self, count: int) -> list[NDArray[np.uint8]]:
        """`count` different ones, as long as there are so many."""
        positives, negatives = np.flatnonzero(self._state.labels), np.flatnonzero(self._state.labels == 0)
        swaps = len(positives) * len(negatives)
        drawn = self._rng.choice(swaps, size=count, replace=count > swaps)
        neighbours = []
        for leaves, comes in zip(positives[drawn // len(negatives)], negatives[drawn % len(negatives)], strict=True):
            labels = self._state.labels.copy()
            labels[leaves], labels[comes] = 0, 1
            neighbours.append(labels)
        return neighbours


class ResamplingSwapAnnealing(SwapAnnealing):
    """swap-annealing that evaluates its state and the best neighbours again before it believes them"""

    resampled = RESAMPLED
    trusted = TRUSTED


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("swap-annealing", SwapAnnealing, reducible=False, takes_start=True)
    register("swap-annealing:resample", ResamplingSwapAnnealing, reducible=False, takes_start=True)
