"""Train on sources, then on targets: the protocol of transfer (definitions, section 11).

Weights are never stored. What is remembered is the generalization level of every training on a target, under a key that
names all it depends on; so a source is pretrained only where one of its targets is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tdbench.base.rng import Stream, permutation, replicate_seeds, split_key
from tdbench.engine.many_outputs import train_many
from tdbench.engine.networks import initial_weights, scaled_like, with_new_last_layer
from tdbench.engine.protocol import train_masks
from tdbench.space.executor import LocalExecutor, Request, results, train_weights
from tdbench.space.image_set import ImageSet
from tdbench.space.score import generalization_level, taskness
from tdbench.store.confirmations import tag_of
from tdbench.store.curves import RememberedTrainings
from tdbench.transfers.gain import Measured
from tdbench.transfers.settings import TransferSettings
from tdbench.transfers.sources import NOTHING, Plan, SourceTask, TargetSet

MOST_NETWORKS = 256  # whose weights are in memory at a time, pretrained and in training each: 63 MB

Weights = NDArray[np.float32]
Seeds = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Pair:
    """A source, or None for training from scratch, and one target in one mode with so many positives in training."""

    source: SourceTask | None
    number: int
    task: int
    mode: str
    shots: int


@dataclass(frozen=True, eq=False)
class Job:
    """One replicate of a pair, and its (61326,) weights after pretraining on the source."""

    pair: Pair
    replicate: int
    start: Weights


def measure(plan: Plan, settings: TransferSettings, trainings: RememberedTrainings) -> list[Measured]:
    """Every source on every target in every mode, on the same replicates as training from scratch.

    One seed for each replicate draws the initial weights (of pretraining, and from scratch), the last layer and the
    split of the target, so that a source and nothing differ by the pretraining alone.
    """
    lab = _Lab(plan, settings, trainings)
    pairs = list(_pairs(plan, settings))
    lab.train(pairs)
    scratch = {
        (pair.number, pair.task, pair.shots): lab.taskness(pair)
        for pair in pairs
        if pair.source is None and pair.mode == "fine-tune"
    }
    found = []
    for pair in pairs:
        if pair.source is None and pair.mode == "fine-tune":
            continue
        source = pair.source
        found.append(
            Measured(
                source_set=plan.source_set,
                set=plan.source_set if plan.one_set else pair.number,
                source=NOTHING if source is None else source.name,
                kind=NOTHING if source is None else source.kind,
                confirmed=float("nan") if source is None else source.confirmed,
                target=plan.targets[pair.number].names[pair.task],
                mode=pair.mode,
                shots=pair.shots,
                taskness=lab.taskness(pair),
                scratch=scratch[pair.number, pair.task, pair.shots],
            )
        )
    return found


def training_counts(labels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[int, int]:
    """(positives, negatives) on the training side of one split."""
    positives = int((labels[mask] == 1).sum())
    return positives, int(mask.sum()) - positives


def few_shots(labels: NDArray[np.uint8], seed: np.uint64, shots: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which images are left where only so many positives are in training, and which of them are trained on.

    The validation side stays. Of the training side the first positives in the split's own order stay, and of the
    negatives the same share, so that more shots are the same images and some more.
    """
    mask = train_masks(labels[None], np.array([seed]), "stratified")[0]
    positives, negatives = training_counts(labels, mask)
    order = permutation(len(labels), Stream.SPLIT, split_key(np.array([seed])))[0]
    order = order[mask[order]]
    kept = [order[labels[order] == 1][:shots], order[labels[order] == 0][: round(shots * negatives / positives)]]
    index = np.sort(np.concatenate([*kept, np.flatnonzero(~mask)]))
    return index, mask[index]


class _Lab:
    """Trains the pairs of one plan, and remembers their generalization levels."""

    def __init__(self, plan: Plan, settings: TransferSettings, trainings: RememberedTrainings) -> None:
        self.plan, self.settings, self.trainings = plan, settings, trainings
        self.seeds = replicate_seeds(Stream.TRANSFER, settings.seed, 0, [0], settings.replicates)[0]
        self._executor = LocalExecutor(trainings.engine)
        self._digests: dict[int, bytes] = {}
        self._known_keys: dict[Pair, list[bytes]] = {}

    def train(self, pairs: Sequence[Pair]) -> None:
        """Train what is not remembered, block by block of replicates and sources, so that memory is bounded."""
        for first in range(0, len(self.seeds), MOST_NETWORKS):
            self._train_block(pairs, range(first, min(first + MOST_NETWORKS, len(self.seeds))))

    def _train_block(self, pairs: Sequence[Pair], replicates: range) -> None:
        missing: dict[int, list[tuple[Pair, int]]] = {}
        sources: dict[int, SourceTask | None] = {}
        for pair in pairs:
            unknown = [j for j in replicates if not self.trainings.knows(self._keys(pair)[j])]
            if unknown:
                sources[id(pair.source)] = pair.source
                missing.setdefault(id(pair.source), []).extend((pair, j) for j in unknown)
        total = sum(map(len, missing.values())) + len(replicates) * len(missing)
        at_once = max(1, MOST_NETWORKS // len(replicates))
        seeds = self.seeds[replicates.start : replicates.stop]
        with self.trainings.counting("trainings", total) as advance:
            waiting = list(missing)
            while waiting:
                part, waiting = waiting[:at_once], waiting[at_once:]
                starts = self._starts([sources[key] for key in part], seeds)
                advance(len(replicates) * len(part))
                jobs = [
                    Job(pair, j, start[j - replicates.start])
                    for key, start in zip(part, starts, strict=True)
                    for pair, j in missing[key]
                ]
                self._train_jobs(jobs, advance)

    def taskness(self, pair: Pair) -> NDArray[np.float64]:
        """(R,) taskness of a trained pair; the baseline is that of training from scratch on all of the target set."""
        levels = np.array([self.trainings.known(key)[0] for key in self._keys(pair)])
        return taskness(levels, self.trainings.evaluator.baselines(self._full_request(pair, self.seeds)))

    def _starts(self, sources: Sequence[SourceTask | None], seeds: Seeds) -> list[Weights]:
        """(r, 61326) weights after pretraining with r seeds, for each source; those of one image set train together."""
        starts: list[Weights | None] = [None] * len(sources)
        groups: dict[int, list[int]] = {}
        for i, source in enumerate(sources):
            if source is None:
                starts[i] = initial_weights(seeds)
            elif len(source.labels) > 1:
                starts[i] = self._together(source, seeds)
            else:
                groups.setdefault(id(source.images), []).append(i)
        for members in groups.values():
            chosen = [source for i in members if (source := sources[i]) is not None]
            labels = np.concatenate([source.labels[:1] for source in chosen])
            trained = self._pretrained(chosen[0].images, labels, seeds).reshape(len(chosen), len(seeds), -1)
            for i, source, weights in zip(members, chosen, trained, strict=True):
                starts[i] = scaled_like(initial_weights(seeds), weights) if source.scaled else weights
        return [weights for weights in starts if weights is not None]

    def _pretrained(self, images: ImageSet, labels: NDArray[np.uint8], seeds: Seeds) -> Weights:
        """(K r, 61326) weights of K labelings after training on all images."""
        everything = np.ones((len(labels) * len(seeds), images.n), dtype=np.bool_)
        request = Request(images, labels, np.tile(seeds, (len(labels), 1)), everything)
        return train_weights(request, self.trainings.engine).weights

    def _together(self, source: SourceTask, seeds: Seeds) -> Weights:
        everything = np.ones((len(seeds), source.images.n), dtype=np.bool_)
        images = source.images
        engine = self.trainings.engine
        return train_many(images.images, source.labels, everything, seeds, images.protocol, engine).weights

    def _train_jobs(self, jobs: list[Job], advance: Callable[[int], None]) -> None:
        """Train so many at a time that memory is bounded; those on the same images are neighbours."""
        jobs = sorted(
            jobs, key=lambda job: (job.pair.shots, job.pair.mode, job.pair.number, job.pair.task, job.replicate)
        )
        for i in range(0, len(jobs), MOST_NETWORKS):
            part = jobs[i : i + MOST_NETWORKS]
            curves = results(self._executor, self._executor.submit([self._request(job) for job in part]))
            levels = [generalization_level(curve[0]) for curve in curves]
            self.trainings.keep([(self._keys(job.pair)[job.replicate], g) for job, g in zip(part, levels, strict=True)])
            advance(len(part))

    def _request(self, job: Job) -> Request:
        pair, seeds = job.pair, self.seeds[job.replicate : job.replicate + 1]
        request = replace(
            self._full_request(pair, seeds),
            weights=with_new_last_layer(job.start[None], seeds),
            frozen=pair.mode == "frozen",
        )
        if pair.shots == all_shots(self.plan.targets[pair.number]):
            return request
        images, labels = request.image_set, request.labels[0]
        index, mask = few_shots(labels, seeds[0], pair.shots)
        few = ImageSet(images.images[index], int(labels[index].sum()), images.protocol)
        return replace(request, image_set=few, labels=labels[None, index], fixed_mask=mask[None])

    def _full_request(self, pair: Pair, seeds: Seeds) -> Request:
        target = self.plan.targets[pair.number]
        return Request(target.space, target.labels[pair.task][None], seeds[None])

    def _keys(self, pair: Pair) -> list[bytes]:
        """A digest for each replicate of all that its training on the target depends on."""
        if pair not in self._known_keys:
            target = self.plan.targets[pair.number]
            common = self._start_digest(pair.source) + target.space.fingerprint
            common += np.packbits(target.labels[pair.task]).tobytes()
            rest = (asdict(target.space.protocol), pair.mode, pair.shots, tag_of(self.trainings.engine))
            self._known_keys[pair] = [
                hashlib.sha256(common + repr((*rest, seed)).encode()).digest() for seed in self.seeds.tolist()
            ]
        return self._known_keys[pair]

    def _start_digest(self, source: SourceTask | None) -> bytes:
        """A digest of all that the weights before the target depend on, besides seed and engine."""
        if id(source) not in self._digests:
            digest = hashlib.sha256(b"transfer 1")
            if source is not None:
                digest.update(source.images.fingerprint + np.packbits(source.labels).tobytes())
                digest.update(repr((asdict(source.images.protocol), len(source.labels), source.scaled)).encode())
            self._digests[id(source)] = digest.digest()
        return self._digests[id(source)]


def all_shots(target: TargetSet) -> int:
    """Positives on the training side of a target's splits."""
    labels = target.labels[:1]
    mask = train_masks(labels, np.zeros(1, dtype=np.uint64), "stratified")[0]
    return training_counts(labels[0], mask)[0]


def _pairs(plan: Plan, settings: TransferSettings) -> Iterator[Pair]:
    """From scratch first; then each source with every target that it serves."""
    for source in (None, *plan.sources):
        modes = dict.fromkeys(("fine-tune", *settings.modes)) if source is None else settings.modes
        for mode in modes:
            for number, target in enumerate(plan.targets):
                full = all_shots(target)
                for shots in (*(k for k in settings.shots if k < full), full):
                    for task, name in enumerate(target.names):
                        if source is None or source.serves(number, target, name):
                            yield Pair(source, number, task, mode, shots)
