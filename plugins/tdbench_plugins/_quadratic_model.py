"""The loss of a labeling as a quadratic form of its labels, learned from evaluations: the model of `hunch`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tdbench.toolkit import centred, form_values, neighbours

from ._evidence import Array, Evidence, Labelings

DIRECTIONS = 30  # eigenvectors of the kernel; chosen by hand
# Prior variances of the loss over the labelings of the opening and their neighbours, by part of the model: the most
# likely of a grid by factors of three, on the evaluations of the settings above.
PRIOR_CONSTANT = 1.0  # wide: losses lie between 0 and 2
PRIOR_RIDGES = 0.03
PRIOR_FREE = 0.01
UNEXPLAINED = 0.02  # variance of the mean loss that the model leaves; chosen by hand
BOLDNESS = 0.7  # how far draws of forms go from the posterior mean, in posterior deviations; simulated


class DrawnLoss(NamedTuple):
    """The loss constant + z'Mz of a labeling with centred labels z; M is the (N, N) form."""

    form: Array
    constant: float

    def of(self, labels: Labelings) -> Array:
        """(B,) losses of (B, N) labelings."""
        return self.constant + form_values(self.form, labels)


class QuadraticModel:
    """Bayesian linear regression of the loss on quadratic forms of the labels."""

    def __init__(
        self,
        kernel: Array,
        forms: list[Array],
        typical: Labelings,
        rng: np.random.Generator,
        unexplained: float = UNEXPLAINED,
    ) -> None:
        """The prior variances are those over `typical` labelings and their neighbours.

        `unexplained` is the variance of a labeling's mean loss around the quadratic form.
        """
        self._rng, self._unexplained = rng, unexplained
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
        weight = 1 / (evidence.noise(expected) / evidence.counts + self._unexplained)
        precision = np.diag(1 / self._prior) + (self._rows * weight[:, None]).T @ self._rows
        self._root = np.linalg.cholesky(precision)
        prior_mean = np.zeros(len(self._prior))
        prior_mean[0] = 0.5
        right = self._rows.T @ (weight * evidence.means) + prior_mean / self._prior
        self._mean = np.linalg.solve(precision, right)
        self.expected = self._rows @ self._mean

    def draw(self, count: int, boldness: float = BOLDNESS) -> list[DrawnLoss]:
        """`count` losses from the posterior."""
        noise = np.linalg.solve(self._root.T, self._rng.standard_normal((len(self._mean), count)))
        return [self._loss(self._mean + boldness * column) for column in noise.T]

    def _loss(self, weights: Array) -> DrawnLoss:
        form = self._form(weights)
        # The features of the ridges are centred, so that the form's values are too high by a constant.
        constant = weights[0] - (weights[1 : 1 + len(self._forms)] * self._offset / self._scale).sum()
        return DrawnLoss(form, constant)

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
