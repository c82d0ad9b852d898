"""What every kind of plugin is told of the space; each kind adds what is its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpaceProblem:
    """The size of the space.

    Attributes:
        dim: length of the vectors that the plugin gives or takes.
        n_images: N, images in the space.
        n_positives: P, how many of them a labeling marks positive.
    """

    dim: int
    n_images: int
    n_positives: int
