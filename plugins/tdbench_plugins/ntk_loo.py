"""`ntk-loo`: labelings that kernel regression with the network's own tangent kernel predicts, each image from the rest.

K is the empirical tangent kernel of one logit difference at initialization (`tdbench.toolkit.tangent_kernel`). A wide
network trained by gradient descent is kernel regression with it (Jacot, Gabriel & Hongler, NeurIPS 2018; Arora et al.,
*On exact computation with an infinitely wide neural net*, NeurIPS 2019), whose leave-one-out error has a closed form
(Bachmann, Hofmann & Lucchi, *Generalization through the lens of leave-one-out error*, ICLR 2022): with
A = (K + ridge I)^-1 and M = A diag(A)^-2 A, the summed squared error of labels y - P/N is the quadratic form
(y - P/N)' M (y - P/N). No training is needed to minimize it. Three parts of the budget:

1. **Proposals** (`PROPOSING`): distinct minima of the form, by descent over exchanges of a positive with a negative
   from up to 200 random labelings; the lowest of each of `RIDGES` first, then the second lowest, and so on.
2. **Doubt** (until `FINAL` is left): half of the evaluations go once more to the labelings that may be the best (mean
   less deviation), half to neighbours of the `LEADERS` best, one exchange away.
3. **Final** (`FINAL`): sequential halving among the best, of which one is recommended: the lowest mean plus deviation.

Settings, and why:

- **Ridges** from 0.001 to 10, at a mean diagonal of K of 1: on image sets of CIFAR-10 and CIFAR-100 no single one
  had the labeling that confirmed best, and which had it differed from set to set.
- **Means** are shrunk towards the mean of all labelings told, whose own variance is taken as `SPREAD`.

Where labelings are to be avoided (`problem.avoid`), what is too similar to them is left out. Where many are wanted,
`recommend_many` takes the best that stand apart.

The vectors asked are labelings of the images, so nothing may stand between: dim must equal n_images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, hookimpl
from tdbench.hookspecs import RegisterSearcher
from tdbench.toolkit import leave_one_out_form, minima, neighbours

from ._apart import Apart
from ._evidence import Array, Evidence, Labelings, final_field, least_seen
from ._subsets import refuse_reduction
from ._tangent import RIDGES, descent_starts, kernel_of

PROPOSING = 0.25  # share of the budget; chosen by hand
FINAL = 0.25  # share of the budget; chosen by hand
LEADERS = 8  # chosen by hand
SPREAD = 0.03  # variance of the mean loss over proposals; chosen by hand


class NTKLeaveOneOut:
    """minima of the tangent kernel's leave-one-out error, then more evaluations of the best and their neighbours"""

    def __init__(self, problem: Problem) -> None:
        refuse_reduction("ntk-loo", problem)
        kernel = kernel_of("ntk-loo", problem)
        self._budget, self._tasks = problem.budget, problem.tasks
        self._apart, self._avoid = Apart.of(problem), Apart.members(problem)
        self._rng = np.random.default_rng(problem.seed)
        starts = descent_starts(self._rng, problem)
        forms = [leave_one_out_form(kernel, ridge) for ridge in RIDGES]
        found = minima(forms, starts, len(forms) * len(starts))
        found = found[self._apart.allowed(found, self._avoid)]
        self._minima = found if len(found) else self._apart.draw(self._rng, 1, problem.n_positives, self._avoid)
        self._proposals = self._minima[: max(1, round(PROPOSING * problem.budget))]
        self._final = round(FINAL * problem.budget)
        self._evidence = Evidence(problem.n_images)
        self._asked = self._proposals[:0]
        self._spent = 0

    def ask(self, n: int) -> Array:
        """(n, N) labelings as vectors of zeros and P ones."""
        proposals = self._proposals[self._spent : self._spent + n]
        rest, left = n - len(proposals), self._budget - self._spent
        if not len(self._evidence):  # fewer minima than a batch
            others = self._proposals[np.arange(rest) % len(self._proposals)]
        else:
            others = self._finalists(rest, left) if left <= self._final else self._doubted(rest)
        self._asked = np.concatenate([proposals, others])
        self._spent += n
        return self._asked.astype(np.float64)

    def tell(self, scores: Array, loss: Array) -> None:
        """(n,) losses of the (n, N) labelings just asked."""
        self._evidence.add(self._asked, loss)

    def recommend(self) -> Array:
        """(N,) the labeling with the lowest mean plus deviation; the lowest proposal before anything was told."""
        best: Labelings = self._evidence.labels[self._ranking(1.0)[0]] if len(self._evidence) else self._proposals[0]
        return best.astype(np.float64)

    def recommend_many(self, k: int) -> Array:
        """(at most k, N) labelings apart from each other: the best told first, then minima that were not told.

        Where fewer were told than there are places, the minima in their own order.
        """
        told = self._evidence.labels[self._ranking(1.0)] if len(self._evidence) >= self._tasks else self._minima[:0]
        return self._apart.first(np.concatenate([told, self._minima]), k, self._avoid).astype(np.float64)

    def _ranking(self, caution: float) -> NDArray[np.intp]:
        """Rows of the evidence by shrunk mean plus that many deviations, the best first."""
        prior = np.full(len(self._evidence), self._evidence.means.mean())
        mean, deviation = self._evidence.posterior(prior, SPREAD)
        order: NDArray[np.intp] = np.argsort(mean + caution * deviation, kind="stable")
        return order

    def _doubted(self, n: int) -> Labelings:
        again = self._evidence.labels[self._ranking(-1.0)[: self._rng.binomial(n, 0.5)]]
        leaders = self._evidence.labels[self._ranking(0.0)[:LEADERS]]
        around = leaders[self._rng.integers(len(leaders), size=n - len(again))]
        near = neighbours(around, 1, self._rng)
        return np.concatenate([again, np.where(self._apart.allowed(near, self._avoid)[:, None], near, around)])

    def _finalists(self, n: int, left: int) -> Labelings:
        field = self._ranking(0.0)[: final_field(left, self._final)]
        return self._evidence.labels[field[least_seen(self._evidence.counts[field], n)]]


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("ntk-loo", NTKLeaveOneOut, sees_images=True, reducible=False)
