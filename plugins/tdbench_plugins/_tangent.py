"""What searchers that start from the tangent kernel share: the kernel of their images, and where to descend from."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from tdbench import Problem, UserError
from tdbench.toolkit import draw_labelings

from ._evidence import Labelings

# With 32 networks the evaluations of two image sets were likelier by factors of exp(9) and exp(8) than with 8; 16 are a
# compromise with the time: 18 s for 500 images.
ADAM_INITIALIZATIONS = 16
INITIALIZATIONS = 8  # networks, the default of `tangent_kernel`; chosen by hand
# At a mean diagonal of the kernel of 1. On image sets of CIFAR-10 and CIFAR-100 no single ridge had the labeling that
# confirmed best, and which had it differed from set to set.
RIDGES = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
STARTS = (20, 200)  # fewest, most; chosen by hand
SWAPS = 1_000_000  # in a step of descent from all starts: 500 images with 250 positives take seconds, not minutes


def kernel_of(name: str, problem: Problem, adam: bool = False) -> NDArray[np.float64]:
    """(N, N) tangent kernel of the images, the same whatever the problem's seed; with `adam` as Adam sees it.

    Raises:
        UserError: the searcher of that name was not given the images.
    """
    if problem.images is None:
        raise UserError(f"{name} looks at the images: register it with sees_images=True, so that problem.images is set")
    images = np.ascontiguousarray(problem.images, dtype=np.float32)
    return _kernel(images.tobytes(), images.shape, adam).copy()


def descent_starts(rng: np.random.Generator, problem: Problem) -> Labelings:
    """(B, N) random labelings to descend from: 200, fewer where a labeling has thousands of exchanges."""
    n, positives = problem.n_images, problem.n_positives
    fewest, most = STARTS
    count = min(most, max(fewest, SWAPS // max(1, positives * (n - positives))))
    return draw_labelings(rng, count, n, positives)


@functools.lru_cache(maxsize=4)
def _kernel(images: bytes, shape: tuple[int, ...], adam: bool) -> NDArray[np.float64]:
    from tdbench.toolkit import adam_kernel, tangent_kernel  # bring torch, which is slow to import

    pixels = np.frombuffer(images, dtype=np.float32).reshape(shape)
    if adam:
        return adam_kernel(pixels, ADAM_INITIALIZATIONS, threads=1)
    return tangent_kernel(pixels, INITIALIZATIONS, threads=1)
