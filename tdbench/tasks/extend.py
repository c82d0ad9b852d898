"""Extend tasks to images outside of their set: the networks that confirm a labeling vote on all others of the source.

Definitions, section 10, Beyond the set. This is how a person sees what a task is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base import stats
from tdbench.base.arguments import whole
from tdbench.base.errors import UserError, echo, wrong_shape
from tdbench.base.files import read_npz
from tdbench.base.stats import Estimate
from tdbench.engine.networks import logits
from tdbench.space.executor import Request, train_weights
from tdbench.space.image_set import standardize
from tdbench.space.seal import Key
from tdbench.space.sources import Source
from tdbench.space.task_space import MOST, TaskSpace
from tdbench.store import csv_file, library_file
from tdbench.store.confirmations import tag_of
from tdbench.store.library import TaskLibrary
from tdbench.tasks.scoring import check_space

EXTENDED = ".extended.npz"  # how the file of an extension ends
ENDS = 12  # unseen images that are shown at each end
_CHUNK = 2048  # images in memory at a time as networks see them: 25 MB
FORMAT, VERSION = "tdbench extended tasks", 1
_ARRAYS = ("labels", "unseen", "class_of", "share", "margin", "agreement")
_KEYS = ("format", "version", "space", "engine", "networks", "label_names", *_ARRAYS)
COLUMNS = (
    *("task", "agreement", "agreement_low", "agreement_high", "positive_share"),
    *("most_positive", "least_positive", "classes_most", "classes_least"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Extension:
    """What the confirming networks of m labelings say of the M images of the source that are not in their set.

    Attributes:
        labels: (m, N) the labelings, in the order of their library.
        space: the identity of their space.
        engine: what trained the networks, and the seal where the confirmation was sealed.
        networks: R, networks for each labeling.
        unseen: (M,) where each unseen image is in the source.
        class_of: (M,) index of its class in `label_names`.
        label_names: the classes of the source.
        share: (m, M) share of the R networks that call the image positive, 0 to 1.
        margin: (m, M) mean over networks of the positive logit minus the negative one.
        agreement: (m, 3) mean Cohen's kappa over pairs of networks on the unseen images, and the ends of its 95 %
            interval; NaN where there are too few networks for one.
    """

    labels: NDArray[np.uint8]
    space: str
    engine: str
    networks: int
    unseen: NDArray[np.int64]
    class_of: NDArray[np.int64]
    label_names: tuple[str, ...]
    share: NDArray[np.float32]
    margin: NDArray[np.float32]
    agreement: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, task: int) -> NDArray[np.int64]:
        """(M,) positions of the unseen images, the most positive first; ties in votes go by the mean margin."""
        return np.lexsort((-self.margin[task], -self.share[task]))

    def most_positive(self, task: int, count: int = ENDS) -> NDArray[np.int64]:
        """Where the most positive unseen images are in the source, the most positive first."""
        return self.unseen[self.order(task)[:count]]

    def least_positive(self, task: int, count: int = ENDS) -> NDArray[np.int64]:
        """Where the least positive unseen images are in the source, the least positive first."""
        return self.unseen[self.order(task)[::-1][:count]]

    def composition(self, task: int, count: int = ENDS) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """The classes of the most and of the least positive images, each with its number, the commonest first."""
        order = self.order(task)
        ends = (order[:count], order[::-1][:count])
        most, least = (Counter(self.label_names[c] for c in self.class_of[end]).most_common() for end in ends)
        return most, least

    def records(self) -> list[dict[str, Any]]:
        """For each task its agreement and both ends, as plain values; images are indices in the source."""
        found = []
        for task, (value, low, high) in enumerate(self.agreement.tolist()):
            most, least = self.composition(task)
            values = (
                *(task + 1, value, low, high, float(self.share[task].mean())),
                *(self.most_positive(task).tolist(), self.least_positive(task).tolist()),
                *(dict(end) for end in (most, least)),
            )
            found.append(dict(zip(COLUMNS, values, strict=True)))
        return found

    def save(self, path: Path) -> Path:
        """Write an `.npz`, and a CSV file of the same name that people can read. Raises UserError if it cannot."""
        library_file.check_path(path, COLUMNS)
        arrays = {name: getattr(self, name) for name in _KEYS if name not in ("format", "version", "label_names")}
        arrays |= {"format": FORMAT, "version": VERSION, "label_names": np.array(self.label_names, dtype=np.str_)}
        lines = [COLUMNS, *([_cell(record[column]) for column in COLUMNS] for record in self.records())]
        packed = {name: np.asarray(array) for name, array in arrays.items()}
        library_file.write_both(path, packed, csv_file.text_of(lines))
        return path

    @classmethod
    def load(cls, path: Path) -> Extension:
        """What `save` wrote. Raises UserError where the file cannot be read or is of another kind."""
        arrays = read_npz(path, _KEYS, "; expected what tdbench tasks extend writes")
        if arrays.keys() != set(_KEYS) or str(arrays["format"]) != FORMAT:
            raise UserError(f"{path} holds no extended tasks (tdbench tasks extend writes them)")
        if arrays["version"].tolist() != VERSION:
            raise UserError(f"{path} has version {echo(arrays['version'].tolist())}, this tdbench reads {VERSION}")
        m, size = (arrays[name].shape[:1] for name in ("labels", "unseen"))
        expected: dict[str, tuple[int | str, ...]] = {"labels": (*m, "N"), "unseen": size or ("M",), "class_of": size}
        expected |= {"share": (*m, *size), "margin": (*m, *size), "agreement": (*m, 3), "networks": ()}
        for name, shape in expected.items():
            array = arrays[name]
            known = tuple(b if isinstance(a, str) else a for a, b in zip(shape, array.shape, strict=False))
            if len(shape) != array.ndim or known != array.shape or array.dtype.kind not in "iuf":
                raise UserError(f"{path}: {wrong_shape(name, shape, array.shape)}")
        names, of = arrays["label_names"], arrays["class_of"]
        if names.ndim != 1 or of.dtype.kind not in "iu" or (of.size and not 0 <= of.min() <= of.max() < len(names)):
            raise UserError(f"{path}: expected classes of images that label_names has")
        return cls(
            **{name: arrays[name] for name in _ARRAYS},
            space=str(arrays["space"]),
            engine=str(arrays["engine"]),
            networks=int(arrays["networks"]),
            label_names=tuple(map(str, names.tolist())),
        )


def extension_path(library: Path) -> Path:
    """Where the extension of the library in that file is kept: ``NAME.extended.npz`` beside ``NAME.npz``."""
    return library.with_name(library.stem + EXTENDED)


def known_extension(path: Path, library: TaskLibrary) -> Extension | None:
    """The extension beside the library in that file; None where there is none, or one of other labelings."""
    beside = extension_path(path)
    if not beside.is_file():
        return None
    extension = Extension.load(beside)
    same = extension.space == library.space and np.array_equal(extension.labels, library.labels)
    return extension if same else None


def extend(
    library: TaskLibrary,
    space: TaskSpace,
    source: Source,
    *,
    networks: int | None = None,
    images: NDArray[np.int64] | None = None,
    key: Key | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Extension:
    """Let the confirming networks of each member vote on the images of the source that are not in the set.

    Memory holds the networks of one task at a time (245 KB each), and 2,048 images as they see them.

    Args:
        space: the library's space, with the engine that trains.
        source: what the space was drawn from.
        networks: the first so many of the confirmation's replicates; those of the library by default.
        images: where the images are that they vote on; all of the source that are not in the set by default.
        key: of the sealed confirmation, where the library's was sealed.
        advance: is called with 1 whenever a task is done.

    Raises:
        UserError: the library is of another space or sealed with another key, or the source has no other images.
    """
    check_space(library, space)
    seal = "" if key is None else key.seal
    if not seal and " sealed " in library.engine:
        raise UserError(f"the library was confirmed by {library.engine!r}; give the key of its seal with --sealed")
    if seal and not library.engine.endswith(f" sealed {seal}"):
        raise UserError(f"the library was confirmed by {library.engine!r}, not with the key of seal {seal}")
    images = np.arange(len(source.images)) if images is None else images
    unseen = np.setdiff1d(images, space.source_index)
    if not len(unseen):
        raise UserError(f"{source.name} has no images beside the {space.n} of the set; extend needs others")
    networks = library.confirm if networks is None else whole("networks", networks, 2, MOST)
    seeds = space.confirm_seeds(1, networks, key)
    share = np.empty((len(library), len(unseen)), dtype=np.float32)
    margin, agreement = np.empty_like(share), np.empty((len(library), 3))
    for task, labels in enumerate(library.labels):
        weights = train_weights(Request(space, labels[None], seeds), space.engine).weights
        margins = _margins(weights, source, unseen, space)
        votes = margins > 0
        share[task], margin[task] = votes.mean(axis=0), margins.mean(axis=0)
        estimate = agreement_of(votes)
        agreement[task] = estimate.value, estimate.low, estimate.high
        advance(1)
    return Extension(
        labels=library.labels,
        space=space.identity,
        engine=tag_of(space.engine, seal),
        networks=networks,
        unseen=unseen,
        class_of=source.labels[unseen],
        label_names=source.label_names,
        share=share,
        margin=margin,
        agreement=agreement,
    )


def agreement_of(votes: NDArray[np.bool_]) -> Estimate:
    """Mean Cohen's kappa over pairs of networks, from (R, M) votes, with its 95 % interval over networks.

    Atanov et al. (2022), "Task Discovery: Finding the Tasks that Neural Networks Generalize on", corrected for chance.
    A network that votes alike on all images has kappa 0 with every other. The interval resamples networks; a pair of
    the same network twice is left out, since its kappa of 1 says nothing.
    """
    pairs = _kappas(votes)
    networks = len(votes)

    def mean_of_pairs(drawn: NDArray[Any], axis: int = -1) -> Any:
        places = drawn.reshape(-1, drawn.shape[-1]).astype(np.int64)
        counts = np.zeros((len(places), networks))
        np.add.at(counts, (np.arange(len(places))[:, None], places), 1)
        weight = counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)  # ordered pairs of different networks
        total = ((counts @ pairs) * counts).sum(axis=1)
        mean = np.where(weight > 0, total / np.maximum(weight, 1), overall)
        return mean.reshape(drawn.shape[:-1])

    overall = pairs.sum() / max(networks * (networks - 1), 1)
    return stats.interval(np.arange(networks), mean_of_pairs)


def _kappas(votes: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(R, R) Cohen's kappa of each pair of networks; 0 on the diagonal, and where a network is constant."""
    yes = votes.astype(np.float64)
    share, both = yes.mean(axis=1), yes @ yes.T / votes.shape[1]
    agreed = 1 - share[:, None] - share[None] + 2 * both
    by_chance = share[:, None] * share[None] + (1 - share[:, None]) * (1 - share[None])
    varies = (share > 0) & (share < 1)
    defined = varies[:, None] & varies[None] & ~np.eye(len(votes), dtype=np.bool_)
    return np.where(defined, (agreed - by_chance) / np.where(defined, 1 - by_chance, 1), 0.0)


def _margins(
    weights: NDArray[np.float32], source: Source, unseen: NDArray[np.int64], space: TaskSpace
) -> NDArray[np.float32]:
    """(R, M) positive minus negative logit of R networks, on images standardized as those of the set are."""
    margins = np.empty((len(weights), len(unseen)), dtype=np.float32)
    for i in range(0, len(unseen), _CHUNK):
        images = standardize(source.images[unseen[i : i + _CHUNK]], space.pixels)
        outputs = logits(weights, images)
        margins[:, i : i + _CHUNK] = outputs[..., 1] - outputs[..., 0]
    return margins


def _cell(value: Any) -> str:
    return library_file.cell([f"{name} {count}" for name, count in value.items()] if isinstance(value, dict) else value)
