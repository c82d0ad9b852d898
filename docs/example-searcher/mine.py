"""The searcher mine for tdbench.

How often is each image a positive in the labelings that generalize?
"""

import numpy as np
from numpy.typing import NDArray
from tdbench import Problem, RegisterSearcher, hookimpl

NOISE_DEVIATION = 0.3  # of the noise on the scores, which explores
LEARNING_RATE = 0.2  # share by which a batch moves the scores
ELITE_SHARE = 0.25  # of a batch, that counts as good


class Mine:
    """keeps a score per image and moves it towards the best quarter of each batch"""

    def __init__(self, problem: Problem) -> None:
        self.rng = np.random.default_rng(problem.seed)
        self.scores = np.full(problem.dim, 0.5)

    def ask(self, n: int) -> NDArray[np.float64]:
        """(n, dim) scores in [0, 1]; the highest of a row become its positives."""
        noise = NOISE_DEVIATION * self.rng.standard_normal((n, len(self.scores)))
        return np.clip(self.scores + noise, 0, 1)

    def tell(self, scores: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
        """The (n, dim) scores just asked and their (n,) losses: lower is better."""
        elite_size = max(1, round(ELITE_SHARE * len(loss)))
        elite = np.argsort(loss)[:elite_size]  # NaN sorts last
        rate = LEARNING_RATE * len(loss) / (len(loss) + 4)  # small batches say less
        self.scores = (1 - rate) * self.scores + rate * scores[elite].mean(axis=0)

    def recommend(self) -> NDArray[np.float64]:
        """(dim,) scores to confirm on fresh trainings: what leaderboards rank."""
        return self.scores.copy()


@hookimpl
def register_searchers(register: RegisterSearcher) -> None:
    register("mine", Mine)
