"""The reduction waves for tdbench.

Which of the coarsest waves in an image make it a positive?
"""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from tdbench import ReductionProblem, RegisterReduction, UserError, hookimpl


class Waves:
    """the D lowest spatial frequencies of the images"""

    def __init__(self, problem: ReductionProblem) -> None:
        if problem.images is None:
            raise UserError("waves needs the images: register it with sees_images=True")
        self.dim = problem.dim
        pixels = problem.images.astype(np.float64)
        waves = dctn(pixels, axes=(2, 3), norm="ortho")  # (N, 3, 32, 32)
        coarseness = np.add.outer(np.arange(32), np.arange(32))  # 0 for a channel's mean
        lowest_first = np.argsort(np.tile(coarseness.ravel(), 3), kind="stable")
        chosen = waves.reshape(len(waves), -1)[:, lowest_first[: self.dim]]
        spread = chosen.std(axis=0)
        spread[spread == 0] = 1
        self.basis: NDArray[np.float64] = (chosen - chosen.mean(axis=0)) / spread  # (N, D)

    def scores(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, N) scores for (n, D) vectors in [0, 1]; the highest become the positives."""
        return (vectors - 0.5) @ self.basis.T


@hookimpl
def register_reductions(register: RegisterReduction) -> None:
    register("waves", Waves, sees_images=True)
