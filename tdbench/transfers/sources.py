"""Which tasks are sources, and which are targets on images that no source has seen."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.base.rng import MAX_SEED, Stream, permutation, random_labelings
from tdbench.engine.protocol import TrainingProtocol
from tdbench.space.image_set import ImageSet, standardize
from tdbench.space.sources import Source
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import tag_of
from tdbench.store.curves import RememberedTrainings
from tdbench.store.library import TaskLibrary
from tdbench.tasks.extend import extend
from tdbench.transfers.settings import TransferSettings

FOUND, VOTES, ALL, CLASS, PIXEL, RANDOM = "found", "votes", "all at once", "class", "pixel", "random"
OWN, SCALED, NOTHING = "own class", "scaled", "nothing"
KINDS = (FOUND, VOTES, ALL, CLASS, PIXEL, RANDOM, OWN, SCALED, NOTHING)
STATISTICS = ("brightest", "most contrast", "reddest minus bluest", "bright top")  # those that are taken first
VOTERS = 16  # networks that vote on images outside of the set

Labels = NDArray[np.uint8]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SourceTask:
    """What a network is trained on before it meets a target.

    Attributes:
        name, kind: as results have them; the kind is one of `KINDS`.
        images: the image set, with the protocol of the pretraining.
        labels: (K, N) one labeling, or K that one network learns at once.
        confirmed: confirmed taskness of the labeling, NaN where it is not known.
        only: the target set and the target that it is for; None for all.
        scaled: only the norms of its pretrained layers are used.
    """

    name: str
    kind: str
    images: ImageSet
    labels: Labels
    confirmed: float = math.nan
    only: tuple[int, str] | None = None
    scaled: bool = False

    def serves(self, number: int, targets: TargetSet, target: str) -> bool:
        """Whether the pair is measured: a class is no source where it is among the classes of the target's set."""
        if self.only is not None:
            return self.only == (number, target)
        return not (self.kind == CLASS and self.name in targets.space.classes)


@dataclass(frozen=True, eq=False)
class TargetSet:
    """Target tasks of one image set: their names and (T, N) labels."""

    space: TaskSpace
    names: tuple[str, ...]
    labels: Labels


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        source_set: the number of the image set that the sources are of.
        one_set: all pairs count for the source set; if False, each counts for its target set.
    """

    sources: tuple[SourceTask, ...]
    targets: tuple[TargetSet, ...]
    source_set: int = 0
    one_set: bool = False


@dataclass
class Pool:
    """Images of a source that no set has taken yet."""

    source: Source
    free: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.free = np.ones(len(self.source.images), dtype=np.bool_)

    def take(self, index: NDArray[np.int64]) -> None:
        self.free[index] = False

    def without_classes(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Which free images are of none of these classes."""
        return self.free & ~np.isin(self.source.labels, [self.source.label_names.index(name) for name in names])

    def draw(self, allowed: NDArray[np.bool_], protocol: TrainingProtocol, **given: Any) -> tuple[TaskSpace, Indices]:
        """An image set of allowed images, and where these are in the source; `given` is for `TaskSpace`."""
        kept = np.flatnonzero(allowed)
        part = replace(self.source, images=self.source.images[kept], labels=self.source.labels[kept])
        space = TaskSpace(part, **asdict(protocol), **given)
        return space, kept[space.source_index]


def plan(
    space: TaskSpace,
    source: Source,
    library: TaskLibrary | None,
    settings: TransferSettings,
    trainings: RememberedTrainings,
    target: tuple[TaskLibrary, TaskSpace] | None = None,
) -> Plan:
    """The sources of a space and its library with all controls, and the targets.

    Args:
        space, source: the image set of the sources, and what it was drawn from.
        library: found tasks of that space; without one there are only the controls.
        trainings: trains the networks that vote where tasks are to be extended, and remembers their votes.
        target: a library whose tasks are the targets, and its space. By default they are the class tasks of new image
            sets: of other classes than the space's where there are enough, and of other images in any case.

    Raises:
        UserError: a library without tasks, sets that share images, or too few images.
    """
    if library is not None and not len(library):
        raise UserError("the library of the sources has no tasks (K = 0); find some with tdbench discover")
    for one in (space, target[1]) if target else (space,):
        if one.protocol.split != "stratified":
            raise UserError(f"transfer needs stratified splits, but {one} has {one.protocol.split} ones")
    pool = Pool(source)
    pool.take(space.source_index)
    pretraining = replace(space.protocol, steps=settings.pretrain_steps or space.protocol.steps)
    if target is None:
        targets, apart = _class_targets(space, pool, settings)
        own = _own_classes(space, targets, pool, pretraining)
    else:
        targets, apart, own = [_library_target(space, pool, *target)], False, []
    images = ImageSet(space.images, space.n_positives, pretraining)
    sources = [] if library is None else _found(images, library, settings)
    if library is not None and settings.extend:
        avoided = {name for one in targets for name in one.space.classes} if apart else ()
        candidates = np.flatnonzero(pool.without_classes(avoided))
        sources += _votes(space, source, library, settings, trainings, candidates, pretraining)
    sources += _controls(space, images, settings)
    first = sources[0]
    sources += [*own, SourceTask(f"norms of {first.name}", SCALED, first.images, first.labels, scaled=True)]
    return Plan(tuple(sources), tuple(targets))


def name_of(rank: int) -> str:
    """The name of a library's member by its place, 0 for the best confirmed."""
    return f"found {rank + 1}"


def extended_name(name: str) -> str:
    """The name of a member that was extended by votes."""
    return f"{name} and votes"


def shared_images(a: TaskSpace, b: TaskSpace) -> int:
    """How many images of one set are in the other: by their place in the source, or by pixels if it is another one."""
    if a.source == b.source:
        return len(np.intersect1d(a.source_index, b.source_index))
    return len({image.tobytes() for image in a.pixels} & {image.tobytes() for image in b.pixels})


def _class_targets(space: TaskSpace, pool: Pool, settings: TransferSettings) -> tuple[list[TargetSet], bool]:
    """Class tasks of new image sets, and whether all their classes are other ones than the space's."""
    apart = _enough(pool, pool.without_classes(space.classes), settings)
    targets = []
    for number in range(settings.sets):
        allowed = pool.without_classes(space.classes) if apart else pool.free
        given = {"n": settings.target_n, "ratio": settings.target_ratio, "seed": settings.seed + number}
        try:
            drawn, index = pool.draw(allowed, space.protocol, **given)
        except UserError as error:
            raise UserError(
                f"target set {number + 1} of {settings.sets} needs {settings.target_n} images beside those of the "
                f"sources and of other target sets: {error}"
            ) from None
        pool.take(index)
        tasks = _class_tasks(drawn)
        targets.append(TargetSet(drawn, tuple(tasks), np.stack(list(tasks.values()))))
    return targets, apart


def _enough(pool: Pool, allowed: NDArray[np.bool_], settings: TransferSettings) -> bool:
    """Whether these images are enough for all target sets."""
    held = np.bincount(pool.source.labels[allowed], minlength=len(pool.source.label_names))
    group = settings.target_ratio + 1
    shares = np.minimum(held // (settings.target_n // group), settings.sets)  # a class gives a set one share at most
    return bool(shares.sum() >= settings.sets * group)


def _library_target(space: TaskSpace, pool: Pool, library: TaskLibrary, target: TaskSpace) -> TargetSet:
    if not len(library):
        raise UserError("the library of the targets has no tasks (K = 0); find some with tdbench discover")
    if shared := shared_images(space, target):
        raise UserError(
            f"the sources and the targets share {shared} of {target.n} images; a target needs images that no source "
            "has seen: use another space seed, or other classes"
        )
    if target.source == space.source:
        pool.take(target.source_index)
    return TargetSet(target, tuple(f"task {i + 1}" for i in range(len(library))), library.labels)


def _own_classes(
    space: TaskSpace, targets: Sequence[TargetSet], pool: Pool, pretraining: TrainingProtocol
) -> list[SourceTask]:
    """For each target its own class task on other images: what must help. As large as the space, or as images allow."""
    sources = []
    for number, target in enumerate(targets):
        classes = target.space.classes
        held = [int((pool.free & (pool.source.labels == pool.source.label_names.index(c))).sum()) for c in classes]
        share = min(*held, space.n // len(classes))
        if share < 2:
            continue
        given = {"n": share * len(classes), "ratio": len(classes) - 1, "seed": target.space.seed, "classes": classes}
        own, _ = pool.draw(pool.free, pretraining, **given)
        sources += [
            SourceTask(f"{name} (own)", OWN, own, labels[None], only=(number, name))
            for name, labels in _class_tasks(own).items()
        ]
    return sources


def _found(images: ImageSet, library: TaskLibrary, settings: TransferSettings) -> list[SourceTask]:
    """The best members of a library, each by itself, and all of the library at once."""
    best = library.best_first()
    sources = [
        SourceTask(name_of(i), FOUND, images, best.labels[i : i + 1], float(best.confirmed[i]))
        for i in range(min(len(best), settings.members or len(best)))
    ]
    together = f"all {len(best)} at once"
    return [*sources, SourceTask(together, ALL, images, best.labels)] if len(best) > 1 else sources


def _votes(
    space: TaskSpace,
    source: Source,
    library: TaskLibrary,
    settings: TransferSettings,
    trainings: RememberedTrainings,
    candidates: Indices,
    pretraining: TrainingProtocol,
) -> list[SourceTask]:
    """Found tasks on the set and further images, whose labels are the votes of networks: P of every N are positive."""
    if len(candidates) < settings.extend:
        raise UserError(
            f"{settings.extend} images were asked for to extend tasks to, but {source.name} has {len(candidates)} that "
            "are in no set of sources or targets and of no target class; lower --extend"
        )
    order = permutation(len(candidates), Stream.IMAGES, (np.int64(settings.seed), np.int64(MAX_SEED)))
    chosen = candidates[np.sort(order[: settings.extend])]
    most = min(settings.controls, settings.members or len(library))
    best = library.best_first().filter(np.arange(len(library)) < most)
    positives = round(settings.extend / (space.ratio + 1))

    def votes() -> NDArray[np.float64]:
        voting = replace(best, engine=tag_of(trainings.engine))  # no seal: any networks of a task can vote
        extended = extend(voting, space.on(trainings.engine), source, networks=VOTERS, images=chosen)
        labels = np.zeros((len(best), len(chosen)))
        for i, row in enumerate(labels):
            row[extended.order(i)[:positives]] = 1
        return labels

    content = hashlib.sha256(best.labels.tobytes() + source.images[chosen].tobytes()).hexdigest()
    key = f"votes {space.identity} {content} {VOTERS} {positives} {tag_of(trainings.engine)}"
    labels = np.concatenate([best.labels, trainings.remembered(key, votes).astype(np.uint8)], axis=1)
    pixels = source.images[np.concatenate([space.source_index, chosen])]
    images = ImageSet(standardize(pixels), space.n_positives + positives, pretraining)
    return [
        SourceTask(extended_name(name_of(i)), VOTES, images, labels[i : i + 1], float(confirmed))
        for i, confirmed in enumerate(best.confirmed)
    ]


def _controls(space: TaskSpace, images: ImageSet, settings: TransferSettings) -> list[SourceTask]:
    """Class tasks, pixel statistics and random labelings of the sources' images."""
    pixel = {task.name: task.labels for task in space.reference_tasks if task.kind == "pixel"}
    pixel = {name: pixel[name] for name in sorted(pixel, key=lambda name: name not in STATISTICS)}
    random = random_labelings(settings.controls, space.n, space.n_positives, space.seed, lane=2)
    kinds = {CLASS: _class_tasks(space), PIXEL: pixel, RANDOM: {f"random {i + 1}": y for i, y in enumerate(random)}}
    return [
        SourceTask(name, kind, images, labels[None])
        for kind, tasks in kinds.items()
        for name, labels in list(tasks.items())[: settings.controls]
    ]


def _class_tasks(space: TaskSpace) -> dict[str, Labels]:
    return {task.name: task.labels for task in space.reference_tasks if task.kind == "class"}
