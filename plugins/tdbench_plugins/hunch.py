"""`hunch`: begins with the images that the untrained network treats alike, and corrects that by what it is told.

The hunch: labelings of low leave-one-out error under the tangent kernel (see `ntk_loo`) tend to generalize, at every
ridge. Each of these errors is a quadratic form z'Mz of the centred labels z = y - P/N, so the whole searcher works with
quadratic forms. The mean loss of a labeling is modelled as

    constant + sum of weight_r z'M_r z over several ridges r + z'Qz,   Q = U W U'

with U the leading eigenvectors of the centred kernel. Constant, weights and W are Gaussian a priori and learned from
all evaluations by Bayesian linear regression. Three parts of the budget:

1. **Opening** (`OPENING`, at most `MOST_OPENING` evaluations): the minima of the M_r, lowest first.
2. **Learning**. A part of it (`AGAIN`) asks labelings once more that may be the best: the lowest of a draw from what is
   known of each. The rest are new: a form is drawn from the posterior (Thompson 1933; Russo et al., *A tutorial on
   Thompson sampling*, 2018), and descent over exchanges of a positive with a negative, from the `LEADERS` leading
   labelings, finds a low one that was never asked. Without a fixed part for each, the draws soon agree on few
   labelings and ask them a hundred times.
3. **Final** (`FINAL`): sequential halving among the leading labelings.

Leading, and recommended, are those of the lowest posterior mean plus `CAUTION` deviations, where a labeling's own
evaluations are combined with what the model expects of it, with a variance of `UNEXPLAINED`.

Settings, and why:

- **The model**: on 600 single evaluations each of two image sets (labelings up to four exchanges from such minima), the
  ridges alone predicted a left-out fifth with a correlation of 0.45 and 0.46, free forms alone 0.42 and 0.40, both 0.47
  and 0.47; a Gaussian process with a squared-exponential kernel beside the ridges 0.48 and 0.47, not worth its cost.
- **Prior variances** are those that the same evaluations made most likely, of a grid by factors of three.
- **`BOLDNESS`, `AGAIN`** and the other shares were tried on simulated losses drawn from that Gaussian process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, hookimpl
from tdbench.hookspecs import RegisterSearcher
from tdbench.toolkit import descend, draw_labelings, form_values, leave_one_out_form, minima, neighbours

from ._evidence import Array, Evidence, Labelings, final_field, least_seen
from ._joint_hunch import JointHunch
from ._quadratic_model import UNEXPLAINED, QuadraticModel
from ._subsets import refuse_reduction
from ._tangent import RIDGES, descent_starts, kernel_of

# "Simulated" means tried on simulated losses (the last of the settings above), where neighbouring values did as well.
OPENING = 0.2  # share of the budget; simulated
MOST_OPENING = 160  # evaluations; chosen by hand
FINAL = 0.25  # share of the budget; simulated
AGAIN = 0.7  # share of the learning's evaluations; simulated
LEADERS = 6  # chosen by hand
NEIGHBOURS = 64  # of a labeling that descent reached, examined where all that it reached are known; chosen by hand
CAUTION = 1.0  # deviations added to the mean; chosen by hand


class Hunch:
    """starts from the tangent kernel's leave-one-out error and learns a quadratic model of the loss from there"""

    def __init__(self, problem: Problem) -> None:
        refuse_reduction("hunch", problem)
        kernel = kernel_of("hunch", problem)
        self._problem = problem
        self._rng = np.random.default_rng(problem.seed)
        forms = [leave_one_out_form(kernel, ridge) for ridge in RIDGES]
        starts = descent_starts(self._rng, problem)
        opening = max(1, min(MOST_OPENING, round(OPENING * problem.budget)))
        self._opening = minima(forms, starts, opening)
        self._final = round(FINAL * problem.budget)
        self._model = QuadraticModel(kernel, forms, self._opening, self._rng)
        self._evidence = Evidence(problem.n_images)
        self._asked = np.empty((0, problem.n_images), dtype=np.bool_)
        self._spent = 0

    def ask(self, n: int) -> Array:
        """(n, N) labelings as vectors of zeros and P ones."""
        opening = self._opening[self._spent : self._spent + n]
        rest = n - len(opening)
        left = self._problem.budget - self._spent
        parts = [opening]
        if rest and len(self._evidence) == 0:
            parts.append(draw_labelings(self._rng, rest, self._problem.n_images, self._problem.n_positives))
        elif rest:
            parts.append(self._finalists(rest, left) if left <= self._final else self._learning(rest))
        self._asked = np.concatenate(parts)
        self._spent += n
        return self._asked.astype(np.float64)

    def tell(self, scores: Array, loss: Array) -> None:
        """(n,) losses of the labelings just asked."""
        self._evidence.add(self._asked, loss)
        self._model.fit(self._evidence)

    def recommend(self) -> Array:
        """(N,) the leading labeling."""
        best: Labelings = self._leading(1)[0] if len(self._evidence) else self._opening[0]
        return best.astype(np.float64)

    def _leading(self, count: int) -> Labelings:
        return self._evidence.labels[self._ranking()[:count]]

    def _ranking(self) -> NDArray[np.intp]:
        mean, deviation = self._evidence.posterior(self._model.expected, UNEXPLAINED)
        order: NDArray[np.intp] = np.argsort(mean + CAUTION * deviation, kind="stable")
        return order

    def _finalists(self, n: int, left: int) -> Labelings:
        field = self._ranking()[: final_field(max(left, 0), self._final)]
        return self._evidence.labels[field[least_seen(self._evidence.counts[field], n)]]

    def _learning(self, n: int) -> Labelings:
        """Some labelings once more, the rest for the first time."""
        again = self._rng.binomial(n, AGAIN)
        mean, deviation = self._evidence.posterior(self._model.expected, UNEXPLAINED)
        draws = mean + deviation * self._rng.standard_normal((again, len(mean)))
        new = np.empty((0, self._problem.n_images), dtype=np.bool_)
        for loss in self._model.draw(n - again):
            new = np.concatenate([new, self._new(loss.form, {row.tobytes() for row in new})[None]])
        return np.concatenate([self._evidence.labels[draws.argmin(axis=1)], new])

    def _new(self, form: Array, taken: set[bytes]) -> Labelings:
        """The lowest labeling under the form that was not told yet, among what descent reaches and its neighbours."""
        reached = np.unique(descend(form, self._leading(LEADERS)), axis=0)
        lowest = reached[[form_values(form, reached).argmin()]]
        for exchanges in range(1, self._problem.n_positives + 2):
            around = neighbours(np.repeat(lowest, NEIGHBOURS, axis=0), exchanges, self._rng)
            candidates = np.concatenate([reached, around])
            for row in candidates[np.argsort(form_values(form, candidates), kind="stable")]:
                if not self._evidence.knows(row) and row.tobytes() not in taken:
                    fresh: Labelings = row
                    return fresh
        known: Labelings = lowest[0]  # all there are, or nearly, were told
        return known


def hunch(problem: Problem) -> Hunch | JointHunch:
    """starts from the tangent kernel's leave-one-out error and learns a quadratic model of the loss from there"""
    alone = problem.tasks == 1 and (problem.avoid is None or not len(problem.avoid))
    return Hunch(problem) if alone else JointHunch(problem)


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("hunch", hunch, sees_images=True, reducible=False)
