"""TaskSpace: an image set drawn from a source, its training protocol, and the taskness of its label vectors."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import number_array, path_text, strings, text, truth, whole
from tdbench.base.errors import UserError, echo, nearest, wrong_shape
from tdbench.base.rng import Stream, permutation, random_labelings, replicate_seeds
from tdbench.engine import Engine, check_engine, make_engine
from tdbench.engine.networks import NETWORK
from tdbench.engine.protocol import TrainingProtocol
from tdbench.space import references
from tdbench.space.evaluate import Evaluator
from tdbench.space.executor import LocalExecutor, Request
from tdbench.space.image_set import ImageSet, standardize
from tdbench.space.labelings import decode
from tdbench.space.objective import Objective
from tdbench.space.references import ReferenceTask
from tdbench.space.score import BLIND_SEEDS
from tdbench.space.seal import Key
from tdbench.space.settings import SpaceSettings, check_classes, check_seed, check_sizes
from tdbench.space.sources import Source, load_source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISE_MODES = ("fresh", "frozen")
DEFAULT_CONFIRM = 32
MOST = 10**6  # label vectors or replicates in one call; far above any use
MAX_EVALUATION = 2**32 - 1  # an evaluation's index is one word of a counter


class TaskSpace(ImageSet):
    """The search space of one image set: the label vectors in {0,1}^N with exactly P ones, and their taskness.

    >>> space = TaskSpace("digits", n=10, steps=5)
    >>> space
    TaskSpace(digits, n=10, ratio=4, seed=0, identity=6ca20b096adb)
    >>> labels = space.random_labelings(3)
    >>> labels.shape, labels.sum(axis=1).tolist()  # 3 label vectors with 2 positives each
    ((3, 10), [2, 2, 2])
    >>> space.taskness(labels).shape  # one training each
    (3,)
    >>> space.confirm(labels[0], replicates=4).shape
    (4,)

    Attributes:
        n, ratio, n_positives, seed: N, R, P and the space seed (definitions, section 2).
        source: name of the data source.
        classes: names of the R + 1 classes; class A first.
        pixels: (N, 32, 32, 3) uint8, read-only.
        images: (N, 3, 32, 32) float32, standardized per channel over the set, read-only.
        class_of: (N,) index into `classes` of each image.
        source_index: (N,) where each image is in the source.
        protocol: how networks are trained.
        identity: 12 hex digits that change if the pixels, the sizes or the protocol change.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | Source = "digits",
        *,
        n: int = 50,
        ratio: int = 4,
        seed: int = 0,
        classes: Sequence[str] | None = None,
        steps: int = 100,
        lr: float = 1e-3,
        split: str = "stratified",
        engine: str | Engine = "auto",
        device: str = "auto",
        data_dir: str | os.PathLike[str] | None = None,
        download: bool = False,
    ) -> None:
        """Draw an image set and fix the protocol.

        Args:
            data: ``digits``, ``cifar10``, ``cifar100``, the path of an `.npz`, or a `Source`.
            n: images, divisible by ratio + 1.
            ratio: negatives per positive.
            seed: draws the classes, the images and their order, 0 to 2**32 - 1.
            classes: names of the ratio + 1 classes instead of random ones.
            steps, lr, split: see `TrainingProtocol`.
            engine, device: see `tdbench.engine.make_engine`; an engine already made is used as it is.
            data_dir, download: see `tdbench.space.sources.load_source`.

        Raises:
            UserError: the sizes do not fit each other or the source, or the source cannot be read.
        """
        n, ratio, seed = whole("n", n), whole("ratio", ratio), check_seed("space seed", seed)
        check_sizes(n, ratio)
        if classes is not None:
            classes = strings("classes", classes)
        _check_engine(engine, device)
        data_dir = None if data_dir is None else path_text("data_dir", data_dir)
        download = truth("download", download)
        protocol = TrainingProtocol(steps, lr, split)
        self.ratio, self.seed = ratio, seed
        n_positives = n // (ratio + 1)
        source = data if isinstance(data, Source) else load_source(data, data_dir, download)
        self.source = source.name
        chosen = _choose_classes(source, n_positives, ratio, seed, classes)
        self.classes = tuple(source.label_names[c] for c in chosen)
        self.source_index = index = _choose_images(source, chosen, n_positives, seed)
        self.class_of: NDArray[np.int64] = np.array([chosen.index(c) for c in source.labels[index]], dtype=np.int64)
        self.pixels: NDArray[np.uint8] = source.images[index]
        super().__init__(standardize(self.pixels), n_positives, protocol)
        for array in (self.pixels, self.class_of, self.source_index):
            array.flags.writeable = False
        self._engine_choice = (engine, device)

    @classmethod
    def of(cls, settings: SpaceSettings, source: Source, engine: str | Engine = "auto") -> TaskSpace:
        """The space of these settings, from a source that is read already."""
        if not isinstance(settings, SpaceSettings):
            raise UserError(f"settings must be SpaceSettings, got {echo(settings)}")
        return cls(
            source,
            n=settings.n,
            ratio=settings.ratio,
            seed=settings.space_seed,
            classes=settings.classes,
            steps=settings.steps,
            lr=settings.lr,
            split=settings.split,
            engine=engine,
        )

    def on(self, engine: Engine) -> TaskSpace:
        """The same space, trained by another engine."""
        if isinstance(engine, str):
            raise UserError(f"engine must be one that is made already (tdbench.engine.make_engine), got {echo(engine)}")
        _check_engine(engine, "auto")
        other = copy.copy(self)
        for made in ("engine", "_evaluator"):
            other.__dict__.pop(made, None)
        other._engine_choice = (engine, engine.device)
        return other

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine that trains for this space, made when first needed."""
        engine, device = self._engine_choice
        return make_engine(engine, device) if isinstance(engine, str) else engine

    @functools.cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(LocalExecutor(self.engine))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the identity covers besides the pixels (definitions, section 2, Identity)."""
        return {
            "n": self.n,
            "ratio": self.ratio,
            "network": NETWORK.name,
            "optimizer": "adam",
            **asdict(self.protocol),
            "baseline": f"mean(informed, blind x{BLIND_SEEDS})",
        }

    @functools.cached_property
    def identity(self) -> str:
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        digest.update(self.pixels.tobytes())
        return digest.hexdigest()[:12]

    @property
    def columns(self) -> dict[str, Any]:
        """Identity and settings as columns of a leaderboard; `classes` are those that were drawn, joined by ``|``."""
        return {
            "space": self.identity,
            "data": self.source,
            "classes": "|".join(self.classes),
            "n": self.n,
            "ratio": self.ratio,
            "space_seed": self.seed,
            "split": self.protocol.split,
            "steps": self.protocol.steps,
            "lr": self.protocol.lr,
        }

    @property
    def name(self) -> str:
        """A readable name for files and tables. It contains the identity, so it is unique."""
        return f"{self.source}-n{self.n}-r{self.ratio}-s{self.seed}-{self.identity}"

    def __repr__(self) -> str:
        return f"TaskSpace({self.source}, n={self.n}, ratio={self.ratio}, seed={self.seed}, identity={self.identity})"

    def _repr_html_(self) -> str:
        from tdbench.report.notebook import space_html

        return space_html(self)

    def plot(self) -> Figure:
        """A matplotlib figure of the set: a row of images for each class."""
        from tdbench.report.notebook import space_figure

        return space_figure(self)

    def show(self, labels: NDArray[Any]) -> Figure:
        """A matplotlib figure of labelings.

        Args:
            labels: (N,) one label vector: its positives above its negatives; or (B, N): the positives of each.

        Raises:
            ValueError: a label vector is not (N,) of 0 and 1 with exactly P ones.
            UserError: more label vectors than a figure can show.
        """
        from tdbench.report.notebook import labelings_figure

        array = number_array("labels", labels)
        return labelings_figure(self, self.checked_labels(array[None] if array.ndim == 1 else array))

    def decode(self, scores: NDArray[np.floating]) -> NDArray[np.uint8]:
        """(B, N) label vectors for (B, N) scores: the P highest become 1, ties go to the lower index.

        Raises:
            ValueError: scores of another shape, or that are not finite numbers.
        """
        scores = number_array("scores", scores).astype(np.float64)  # with another sign, an unsigned number would wrap
        if scores.ndim != 2 or scores.shape[1] != self.n:
            raise ValueError(wrong_shape("scores", ("B", self.n), scores.shape))
        if not np.isfinite(scores).all():
            raise ValueError("scores must be finite, got NaN or infinite ones")
        return decode(scores, self.n_positives)

    def taskness(
        self,
        labels: NDArray[Any],
        *,
        replicates: int = 1,
        noise: str = "fresh",
        run_seed: int = 0,
        first_evaluation: int = 0,
    ) -> NDArray[np.float64]:
        """(B,) taskness of (B, N) label vectors, each the mean over `replicates` trainings, as a searcher is told it.

        Args:
            noise: ``fresh`` draws a new split and initialization for each evaluation; ``frozen`` takes the same
                replicates for every label vector.
            run_seed, first_evaluation: which run's fresh replicates to take, and of which evaluation first. For new
                replicates in each call of a loop, add the number of label vectors to `first_evaluation` each time.

        Raises:
            ValueError: a label vector is not (N,) of 0 and 1 with exactly P ones.
            UserError: another argument of a wrong type or out of range.
        """
        labels = self.checked_labels(labels)
        first = whole("first_evaluation", first_evaluation, 0, MAX_EVALUATION - len(labels) + 1)
        evaluations = first + np.arange(len(labels))
        seeds = self.told_seeds(evaluations, replicates, noise, run_seed)
        mean: NDArray[np.float64] = self._evaluator.evaluate([Request(self, labels, seeds)])[0].mean(axis=1)
        return mean

    def confirm(
        self,
        labels: NDArray[Any],
        replicates: int = DEFAULT_CONFIRM,
        key: Key | str | os.PathLike[str] | None = None,
    ) -> NDArray[np.float64]:
        """(B, replicates) taskness of (B, N) label vectors, or (replicates,) of one (N,), never told to a searcher.

        The replicates are those of the space's confirmation: the same for every labeling and searcher.

        Args:
            key: of a sealed confirmation, or its file (definitions, section 5): the replicates are those of the runs
                that were sealed with it.
        """
        array = number_array("labels", labels)
        checked = self.checked_labels(array[None] if array.ndim == 1 else array)
        key = key if key is None or isinstance(key, Key) else Key.read(path_text("key", key))
        request = Request(self, checked, self.confirm_seeds(len(checked), replicates, key))
        values = self._evaluator.evaluate([request])[0]
        return values[0] if array.ndim == 1 else values

    def objective(self, *, replicates: int = 1, noise: str = "fresh", seed: int = 0) -> Objective:
        """The loss of this space as a function of N real scores, for optimizers that are no plugins of tdbench.

        Args:
            replicates: trainings for each evaluation.
            noise: ``fresh`` or ``frozen``, see `taskness`.
            seed: which run's fresh replicates to take, 0 to 2**32 - 1.

        Raises:
            UserError: an argument of a wrong type or out of range.
        """
        return Objective(self, replicates, noise, seed)

    def told_seeds(self, evaluations: Any, replicates: int, noise: str, run_seed: int) -> NDArray[np.uint64]:
        """(n, replicates) replicate seeds of the evaluations with these indices (definitions, section 5)."""
        text("noise", noise, NOISE_MODES)
        replicates, run_seed = whole("replicates", replicates, 1, MOST), check_seed("run_seed", run_seed)
        evaluations = number_array("evaluations", evaluations)
        if evaluations.ndim != 1 or (evaluations.dtype.kind not in "iu" and len(evaluations)):
            raise ValueError(f"expected evaluations (n,) of whole numbers, got {echo(evaluations)}")
        if len(evaluations) and not 0 <= int(evaluations.min()) <= int(evaluations.max()) <= MAX_EVALUATION:
            raise ValueError(f"evaluations must be from 0 to {MAX_EVALUATION}, got {echo(evaluations)}")
        if noise == "fresh":
            return replicate_seeds(Stream.FRESH, self.seed, run_seed, evaluations, replicates)
        frozen = replicate_seeds(Stream.FROZEN, self.seed, 0, [0], replicates)
        return np.repeat(frozen, len(evaluations), axis=0)

    def confirm_seeds(self, count: int, replicates: int, key: Key | None = None) -> NDArray[np.uint64]:
        """(count, replicates) seeds of the confirmation, of the one that `key` seals where it is given; equal rows."""
        count, replicates = whole("count", count, 0, MOST), whole("replicates", replicates, 1, MOST)
        if key is None:
            return np.repeat(replicate_seeds(Stream.CONFIRM, self.seed, 0, [0], replicates), count, axis=0)
        if not isinstance(key, Key):
            raise UserError(f"key must be a Key (tdbench.space.seal), got {echo(key)}")
        return np.tile(key.replicate_seeds(self.identity, replicates), (count, 1))

    def random_labelings(self, count: int, seed: int = 0) -> NDArray[np.uint8]:
        """(count, N) uniformly random label vectors."""
        count = whole("count", count, 0, MOST)
        return random_labelings(count, self.n, self.n_positives, check_seed("seed", seed))

    @functools.cached_property
    def reference_tasks(self) -> tuple[ReferenceTask, ...]:
        """The class tasks and the pixel-statistic labelings of this set (definitions, section 2)."""
        return references.class_tasks(self.class_of, self.classes) + references.pixel_tasks(
            self.pixels, self.n_positives
        )


def _check_engine(engine: object, device: object) -> None:
    """Raises UserError for anything but an engine or its name, and the name of a device."""
    name = engine if isinstance(engine, str) else "auto"
    check_engine(name, device)  # type: ignore[arg-type]
    known = isinstance(engine, str)
    with contextlib.suppress(Exception):  # an object may raise anything
        known = known or callable(getattr(engine, "curves", None))
    if not known:
        raise UserError(f"engine must be a name or an engine, got {echo(engine)}")


def _choose_classes(source: Source, per_class: int, ratio: int, seed: int, classes: Sequence[str] | None) -> list[int]:
    counts = np.bincount(source.labels, minlength=len(source.label_names))
    wanted = ratio + 1
    if classes is not None:
        unknown = [name for name in classes if name not in source.label_names]
        if unknown:
            raise UserError(f"{source.name} has no class {echo(unknown[0])}{nearest(unknown[0], source.label_names)}")
        check_classes(tuple(classes), ratio)
        chosen = [source.label_names.index(name) for name in classes]
        for c in chosen:
            if counts[c] < per_class:
                raise UserError(
                    f"class {source.label_names[c]!r} of {source.name} has {counts[c]} images, "
                    f"{per_class} are needed; lower --n"
                )
        return chosen
    if wanted > len(source.label_names):
        raise UserError(
            f"1:{ratio} needs {wanted} classes, but {source.name} has {len(source.label_names)}; "
            f"the largest ratio here is {len(source.label_names) - 1}"
        )
    large_enough = np.flatnonzero(counts >= per_class)
    if len(large_enough) < wanted:
        largest = int(np.sort(counts)[-wanted])
        raise UserError(
            f"{wanted} classes of {per_class} images are needed, but {source.name} has {len(large_enough)} "
            f"with that many; the largest n at 1:{ratio} is {largest * wanted}"
        )
    order = permutation(len(large_enough), Stream.CLASSES, (np.int64(seed), np.int64(0)))
    return [int(c) for c in large_enough[order[:wanted]]]


def _choose_images(source: Source, classes: list[int], per_class: int, seed: int) -> NDArray[np.int64]:
    picked = []
    for c in classes:
        members = np.flatnonzero(source.labels == c)
        order = permutation(len(members), Stream.IMAGES, (np.int64(seed), np.int64(c)))
        picked.append(members[order[:per_class]])
    together = np.concatenate(picked)
    shuffled: NDArray[np.int64] = together[permutation(len(together), Stream.SHUFFLE, (np.int64(seed), np.int64(0)))]
    return shuffled
