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
from tdbench.toolkit import centred, descend, draw_labelings, form_values, leave_one_out_form, minima, neighbours

from ._evidence import Array, Evidence, Labelings, final_field, least_seen
from ._subsets import refuse_reduction
from ._tangent import RIDGES, descent_starts, kernel_of

# "Simulated" means tried on simulated losses (the last of the settings above), where neighbouring values did as well.
OPENING = 0.2  # share of the budget; simulated
MOST_OPENING = 160  # evaluations; chosen by hand
FINAL = 0.25  # share of the budget; simulated
DIRECTIONS = 30  # eigenvectors of the kernel; chosen by hand
# Prior variances of the loss over the labelings of the opening and their neighbours, by part of the model: the most
# likely of a grid by factors of three, on the evaluations of the settings above.
PRIOR_CONSTANT = 1.0  # wide: losses lie between 0 and 2
PRIOR_RIDGES = 0.03
PRIOR_FREE = 0.01
UNEXPLAINED = 0.02  # variance of the mean loss that the model leaves; chosen by hand
BOLDNESS = 0.7  # how far draws of forms go from the posterior mean, in posterior deviations; simulated
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
        for form in self._model.draw(n - again):
            new = np.concatenate([new, self._new(form, {row.tobytes() for row in new})[None]])
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


class QuadraticModel:
    """Bayesian linear regression of the loss on quadratic forms of the labels."""

    def __init__(self, kernel: Array, forms: list[Array], typical: Labelings, rng: np.random.Generator) -> None:
        """The prior variances are those over `typical` labelings and their neighbours."""
        self._rng = rng
        n = len(kernel)
        projection = np.eye(n) - 1 / n
        eigenvalues, vectors = np.linalg.eigh(projection @ kernel @ projection)
        kept = min(DIRECTIONS, max(1, n - 1))
        eigenvalues, vectors = eigenvalues[::-1][:kept].clip(0), vectors[:, ::-1][:, :kept]
        # Square roots: between trusting only what the kernel sees best and treating all directions alike.
        share = np.sqrt(eigenvalues / eigenvalues[0]) if eigenvalues[0] > 0 else np.ones(kept)
        self._directions = vectors * np.sqrt(share)
        self._pairs = np.triu_indices(kept)
        self._forms = np.array(forms)
        self._offset, self._scale = np.zeros(len(forms)), np.ones(len(forms))
        self._free_scale = 1.0
        exchanged = max(1, round(0.2 * int(typical[0].sum())))
        around = np.concatenate([typical, neighbours(typical, exchanged, rng)])
        raw = np.array([form_values(form, around) for form in forms]).T
        self._offset, deviation = raw.mean(axis=0), raw.std(axis=0)
        self._scale = np.where(deviation > 1e-12, deviation, 1.0)
        norm = np.sqrt((self._features(around)[:, 1 + len(forms) :] ** 2).sum(axis=1).mean())
        self._free_scale = norm if norm > 1e-12 else 1.0
        self._prior = np.concatenate(
            [
                [PRIOR_CONSTANT],
                np.full(len(forms), PRIOR_RIDGES / len(forms)),
                np.full(len(self._pairs[0]), PRIOR_FREE),
            ]
        )
        self._rows = np.empty((0, len(self._prior)))
        self._mean = np.zeros(len(self._prior))
        self._root = np.diag(1 / np.sqrt(self._prior))
        self.expected: Array = np.empty(0)

    def fit(self, evidence: Evidence) -> None:
        """Learn from the means of all labelings, the well known ones more than those seen once."""
        known = len(self._rows)
        if len(evidence) > known:
            self._rows = np.concatenate([self._rows, self._features(evidence.labels[known:])])
        expected = np.full(len(evidence), 0.5)
        expected[:known] = self.expected
        weight = 1 / (evidence.noise(expected) / evidence.counts + UNEXPLAINED)
        precision = np.diag(1 / self._prior) + (self._rows * weight[:, None]).T @ self._rows
        self._root = np.linalg.cholesky(precision)
        prior_mean = np.zeros(len(self._prior))
        prior_mean[0] = 0.5
        right = self._rows.T @ (weight * evidence.means) + prior_mean / self._prior
        self._mean = np.linalg.solve(precision, right)
        self.expected = self._rows @ self._mean

    def draw(self, count: int) -> list[Array]:
        """`count` forms from the posterior, up to a constant."""
        noise = np.linalg.solve(self._root.T, self._rng.standard_normal((len(self._mean), count)))
        return [self._form(self._mean + BOLDNESS * column) for column in noise.T]

    def _features(self, labels: Labelings) -> Array:
        ridges = (np.array([form_values(form, labels) for form in self._forms]).T - self._offset) / self._scale
        along = centred(labels) @ self._directions
        free = along[:, self._pairs[0]] * along[:, self._pairs[1]]
        free *= np.where(self._pairs[0] == self._pairs[1], 1, np.sqrt(2)) / self._free_scale
        return np.hstack([np.ones((len(labels), 1)), ridges, free])

    def _form(self, weights: Array) -> Array:
        ridges = weights[1 : 1 + len(self._forms)] / self._scale
        free = np.zeros((self._directions.shape[1],) * 2)
        free[self._pairs] = weights[1 + len(self._forms) :] / self._free_scale
        free = (free + free.T) / 2 * np.where(np.eye(len(free)) == 1, 1, np.sqrt(2))
        form: Array = np.tensordot(ridges, self._forms, 1) + self._directions @ free @ self._directions.T
        return form


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("hunch", Hunch, sees_images=True, reducible=False)
