"""A reduction for tdbench: which of the coarsest waves in an image make it a positive?"""

import numpy as np
from scipy.fft import dctn

from tdbench import hookimpl


class Waves:
    """the D lowest spatial frequencies of the images"""

    def __init__(self, problem):
        self.dim = problem.dim
        n = problem.n_images
        waves = dctn(problem.images.astype(np.float64), axes=(2, 3), norm="ortho")  # (N, 3, 32, 32)
        coarseness = np.add.outer(np.arange(32), np.arange(32))  # (32, 32), 0 for the mean of a channel
        lowest_first = np.argsort(np.tile(coarseness.ravel(), 3), kind="stable")
        chosen = waves.reshape(n, -1)[:, lowest_first[: self.dim]]
        spread = chosen.std(axis=0)
        self.basis = (chosen - chosen.mean(axis=0)) / np.where(spread == 0, 1, spread)  # (N, D)

    def scores(self, vectors):
        return (vectors - 0.5) @ self.basis.T  # (n, D) in [0, 1] to (n, N)


@hookimpl
def register_reductions(register):
    register("waves", Waves, sees_images=True)
