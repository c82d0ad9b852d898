from __future__ import annotations

from tdbench import TaskSpace
from tdbench.problems import OptunaProblem


class Problem(OptunaProblem):
    """Find a labeling of N images on which a small network generalizes.

    Args:
        data: ``digits``, ``cifar10``, ``cifar100``, or the path of an ``.npz`` file with images and labels.
        n: number of images N, divisible by ratio + 1.
        ratio: negatives per positive.
        space_seed: draws the images.
        replicates: trainings for each evaluation.
        noise: ``fresh`` for new initializations and splits in each evaluation, ``frozen`` for the same ones.
        seed: draws the initializations and splits of ``fresh``.
    """

    def __init__(
        self,
        data: str = "digits",
        n: int = 50,
        ratio: int = 4,
        space_seed: int = 0,
        replicates: int = 1,
        noise: str = "fresh",
        seed: int = 0,
    ) -> None:
        space = TaskSpace(data, n=n, ratio=ratio, seed=space_seed)
        super().__init__(space.objective(replicates=replicates, noise=noise, seed=seed))
