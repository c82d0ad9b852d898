"""Shared by studies that train: settings, image sets and seeds, estimates over sets, and figures."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tdbench.base.errors import UserError, nearest
from tdbench.base.rng import Stream, permutation
from tdbench.base.stats import Estimate, interval, mean_interval
from tdbench.engine.protocol import TrainingProtocol
from tdbench.report.style import INK, style_axes
from tdbench.space.image_set import ImageSet, standardize
from tdbench.space.settings import check_seed
from tdbench.space.sources import Source


def setting(default: Any, text: str) -> Any:
    """A field of a study's `Settings`: its default, and its line in the help page."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of every study that trains.

    Raises:
        UserError: a setting that is out of range.
    """

    data: str = setting("digits", "digits, cifar10, cifar100 or the path of an .npz.")
    sets: int = setting(5, "Image sets, drawn independently. Intervals are over sets.")
    replicates: int = setting(32, "Trainings of each labeling of each set.")
    seed: int = setting(0, "Seed of the first image set; the others follow.")
    steps: int = setting(100, "Adam steps of a training.")
    lr: float = setting(1e-3, "Adam's learning rate.")

    def __post_init__(self) -> None:
        for name in ("sets", "replicates"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_seed("seed", self.seed)
        check_seed("seed + sets - 1", self.seed + self.sets - 1)
        _ = self.protocol  # raises for steps and lr

    @property
    def protocol(self) -> TrainingProtocol:
        return TrainingProtocol(self.steps, self.lr)

    @property
    def set_seeds(self) -> range:
        """The seed of each image set."""
        return range(self.seed, self.seed + self.sets)


def over_sets(values: Iterable[NDArray[np.floating]]) -> Estimate:
    """The mean over image sets of each set's mean, with its interval over sets (NaN for fewer than 4 sets).

    Args:
        values: for each image set its taskness values, any number of them.
    """
    return mean_interval([float(np.mean(v)) for v in values])


def over_resampled_sets(sets: int, statistic: Callable[[NDArray[np.int64]], float]) -> Estimate:
    """A statistic of all image sets together, with its bootstrap interval over sets (NaN for fewer than 4 sets).

    Args:
        statistic: gives the value for (sets,) rising indices of image sets; a set may occur several times.
    """

    @functools.cache  # with few sets, the same draw occurs often
    def known(drawn: tuple[int, ...]) -> float:
        return statistic(np.array(drawn))

    def of_each(samples: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.apply_along_axis(lambda drawn: known(tuple(sorted(drawn.astype(int)))), axis, samples)

    return interval(np.arange(sets), of_each)


def class_size(source: Source, name: str) -> int:
    """The number of images of a class. Raises UserError for an unknown class."""
    if name not in source.label_names:
        raise UserError(f"{source.name} has no class {name!r}{nearest(name, source.label_names)}")
    return int(np.count_nonzero(source.labels == source.label_names.index(name)))


def class_images(source: Source, name: str, count: int, seed: int) -> NDArray[np.int64]:
    """(count,) indices of random images of a class. A larger count adds images after the same first ones.

    Raises:
        UserError: the class is unknown or has fewer images.
    """
    held = class_size(source, name)
    if held < count:
        raise UserError(f"class {name!r} of {source.name} has {held} images, {count} are needed")
    label = source.label_names.index(name)
    members = np.flatnonzero(source.labels == label)
    order = permutation(len(members), Stream.IMAGES, (np.int64(seed), np.int64(label)))
    chosen: NDArray[np.int64] = members[order[:count]]
    return chosen


def one_against_rest(
    source: Source,
    positive: str,
    negatives: Sequence[str],
    n_positives: int,
    n_negatives: int,
    seed: int,
    protocol: TrainingProtocol,
) -> tuple[ImageSet, NDArray[np.uint8]]:
    """Images of one class against others: the image set, shuffled, and its (N,) labels.

    The negatives are spread as evenly as possible over the given classes; the remainder goes to the first of them.

    Raises:
        UserError: a class has too few images.
    """
    share, over = divmod(n_negatives, len(negatives))
    picked = [class_images(source, positive, n_positives, seed)]
    picked += [class_images(source, c, share + (i < over), seed) for i, c in enumerate(negatives)]
    index = np.concatenate(picked)
    labels = (np.arange(len(index)) < n_positives).astype(np.uint8)
    order = permutation(len(index), Stream.SHUFFLE, (np.int64(seed), np.int64(0)))
    return ImageSet(standardize(source.images[index[order]]), n_positives, protocol), labels[order]


def choose_classes(source: Source, wanted: int, preferred: Sequence[str], seed: int) -> list[str]:
    """The classes `preferred` if the source has all of them, else `wanted` random classes.

    Raises:
        UserError: the source has fewer classes.
    """
    if len(preferred) == wanted and all(name in source.label_names for name in preferred):
        return list(preferred)
    present = np.unique(source.labels)
    if len(present) < wanted:
        raise UserError(f"{source.name} has {len(present)} classes, {wanted} are needed")
    order = permutation(len(present), Stream.CLASSES, (np.int64(seed), np.int64(0)))
    return [source.label_names[c] for c in present[order[:wanted]]]


def panels(
    rows: int = 1, columns: int = 1, width: float = 7.0, height: float = 3.6, **shared: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure in the project's style, sizes in inches, and its (rows, columns) axes; `shared` is for `subplots`."""
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, **shared)
    for axes in grid.flat:
        style_axes(axes)
    return figure, grid


def label_axes(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Write labels on the axes, with their units, and a title in which nothing is read as markup."""
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)
    if title:
        axes.set_title(title, loc="left", fontsize=9.5, color=INK, parse_math=False)


def draw_estimates(
    axes: Axes, x: Sequence[float], points: Sequence[Estimate], colour: str, label: str, **style: Any
) -> None:
    """Draw a line of values, with their intervals as bars."""
    axes.plot(x, [p.value for p in points], color=colour, linewidth=1.8, marker="o", markersize=4, label=label, **style)
    axes.vlines(x, [p.low for p in points], [p.high for p in points], color=colour, linewidth=1.4, alpha=0.65)


def legend_below(axes: Axes) -> None:
    """Draw the legend in one row under the axes, so that it covers nothing."""
    entries = len(axes.get_legend_handles_labels()[1])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=entries, fontsize=8, frameon=False)


def shown(estimate: Estimate, digits: int = 2) -> str:
    """``0.43 [0.38, 0.49]``, or the value alone if it has no interval."""
    if not estimate.has_interval:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def interval_words(estimates: Iterable[Estimate]) -> str:
    """The words after "mean over sets" in a text: which intervals there are, or why there are none."""
    if all(e.has_interval for e in estimates):
        return ", with its 95 % bootstrap interval over sets"
    return "; an interval needs at least 4 sets that differ"
