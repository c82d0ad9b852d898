"""What a transfer measured, with all that follows from it: gains, contrasts, affinities, the taxonomy; and its file."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError, echo
from tdbench.base.files import read_npz, write_bytes
from tdbench.base.stats import Estimate
from tdbench.transfers.affinity import affinities
from tdbench.transfers.gain import Contrast, Gain, Measured, contrast, gains, rank_correlation
from tdbench.transfers.settings import MODES
from tdbench.transfers.sources import (
    ALL,
    CLASS,
    FOUND,
    KINDS,
    NOTHING,
    OWN,
    PIXEL,
    RANDOM,
    SCALED,
    VOTES,
    extended_name,
    name_of,
)
from tdbench.transfers.taxonomy import Choice, taxonomy

FILE_NAME = "transfer.npz"
FORMAT, VERSION = "tdbench transfer", 1
_WORDS = ("source", "kind", "target", "mode")
_NUMBERS = ("source_set", "set", "confirmed", "shots", "taskness", "scratch")
COLUMNS = (
    *("source_set", "set", "source", "kind", "confirmed", "target", "mode", "shots"),
    *("taskness", "scratch", "gain", "win_rate", "replicates"),
)
AFFINITY_COLUMNS = ("source", "kind", "target", "gain", "affinity")
TAXONOMY_COLUMNS = ("b", "target", "source", "kind", "affinity")
BEST, SAME = "best member", "the same tasks without votes"
# Whether the first gains more than the second: what a transfer is asked.
QUESTIONS = (
    *((FOUND, RANDOM), (FOUND, CLASS), (FOUND, PIXEL), (FOUND, SCALED), (FOUND, NOTHING)),
    *((ALL, BEST), (VOTES, SAME), (OWN, RANDOM), (OWN, NOTHING)),
)


@dataclass(frozen=True, eq=False)
class Affinities:
    """How well s sources serve t targets.

    Attributes:
        sources, kinds, targets: names of rows and columns, and the kinds of the sources.
        gain: (s, t) mean gain: the matrix before normalization.
        affinity: (s, t), each column summing to 1: the matrix after it.
    """

    sources: tuple[str, ...]
    kinds: tuple[str, ...]
    targets: tuple[str, ...]
    gain: NDArray[np.float64]
    affinity: NDArray[np.float64]

    @functools.cached_property
    def taxonomy(self) -> list[Choice]:
        """The best b sources for b = 1, 2, ..., 8."""
        return taxonomy(self.affinity)

    def records(self) -> list[dict[str, Any]]:
        """A row for each source and target."""
        return [
            {"source": source, "kind": kind, "target": target, "gain": float(gain), "affinity": float(affinity)}
            for source, kind, gains, affinities in zip(self.sources, self.kinds, self.gain, self.affinity, strict=True)
            for target, gain, affinity in zip(self.targets, gains, affinities, strict=True)
        ]

    def taxonomy_records(self) -> list[dict[str, Any]]:
        """A row for each b and target: the source that serves it."""
        return [
            {
                "b": b,
                "target": target,
                "source": self.sources[i],
                "kind": self.kinds[i],
                "affinity": float(self.affinity[i, t]),
            }
            for b, choice in enumerate(self.taxonomy, start=1)
            for t, (target, i) in enumerate(zip(self.targets, choice.serves.tolist(), strict=True))
        ]


@dataclass(frozen=True, eq=False)
class TransferResult:
    """The pairs of a transfer, and what they were measured on.

    Attributes:
        measured: all pairs.
        about: settings, engine and versions by name, as plain numbers and texts.
    """

    measured: tuple[Measured, ...]
    about: Mapping[str, Any]

    @property
    def modes(self) -> tuple[str, ...]:
        measured = {one.mode for one in self.measured}
        return tuple(mode for mode in MODES if mode in measured)

    @property
    def all_shots(self) -> int:
        """Positives in training where none was left out."""
        return max(one.shots for one in self.measured)

    @property
    def sets(self) -> int:
        return len({one.set for one in self.measured})

    @functools.cached_property
    def gains(self) -> list[Gain]:
        """For each mode, kind of source and number of shots."""
        return sorted(gains(self.measured), key=lambda g: (MODES.index(g.mode), KINDS.index(g.kind), g.shots))

    def of(self, kind: str, mode: str) -> list[Measured]:
        """The pairs of a kind in a mode, with all shots.

        `BEST` is the library's best confirmed member, `SAME` those that were extended by votes too.
        """
        pairs = [one for one in self.measured if one.mode == mode and one.shots == self.all_shots]
        if kind == BEST:
            return [one for one in pairs if one.source == name_of(0)]
        if kind == SAME:
            extended = {one.source for one in pairs if one.kind == VOTES}
            return [one for one in pairs if one.kind == FOUND and extended_name(one.source) in extended]
        return [one for one in pairs if one.kind == kind]

    def contrasts(self, mode: str) -> list[Contrast]:
        """The answers to `QUESTIONS`, those that this transfer can give."""
        asked = (contrast(self.of(a, mode), self.of(b, mode), (a, b)) for a, b in QUESTIONS)
        return [answer for answer in asked if answer is not None]

    def rank_correlation(self, mode: str) -> Estimate:
        """Spearman's correlation of what found tasks confirm at and what they gain, over sets."""
        return rank_correlation(self.of(FOUND, mode))

    def affinities(self, mode: str, source_set: int | None = None) -> Affinities | None:
        """Of the tasks of one image set that served all of its targets; None where there are fewer than two.

        Args:
            source_set: the first by default.
        """
        first = min(one.source_set for one in self.measured) if source_set is None else source_set
        pairs = [
            one
            for one in self.measured
            if (one.source_set, one.mode, one.shots) == (first, mode, self.all_shots)
            and one.kind not in (OWN, SCALED, NOTHING)
        ]
        many = len({one.set for one in pairs}) > 1
        named = {(one.source, f"{one.target}, set {one.set + 1}" if many else one.target): one for one in pairs}
        targets = tuple(dict.fromkeys(target for _, target in named))
        kinds = {one.source: one.kind for one in pairs}
        sources = tuple(name for name in kinds if all((name, target) in named for target in targets))
        if len(sources) < 2:
            return None
        taskness = np.array([[named[s, t].taskness for t in targets] for s in sources])
        gain = np.array([[named[s, t].gain for t in targets] for s in sources])
        return Affinities(sources, tuple(kinds[s] for s in sources), targets, gain, affinities(taskness))

    def records(self) -> list[dict[str, Any]]:
        """A row for each pair: means over replicates, and how many there were."""
        found = []
        for one in self.measured:
            row = {name: getattr(one, name) for name in COLUMNS if name not in ("taskness", "scratch", "replicates")}
            row |= {"taskness": float(one.taskness.mean()), "scratch": float(one.scratch.mean())}
            row["replicates"] = len(one.taskness)
            found.append({name: row[name] for name in COLUMNS})
        return found

    def save(self, path: Path) -> Path:
        """Write an `.npz` of plain arrays. Raises UserError if it cannot be written."""
        arrays: dict[str, Any] = {"format": FORMAT, "version": VERSION, "about": json.dumps(dict(self.about))}
        for name in (*_WORDS, *_NUMBERS):
            arrays[name] = np.array([getattr(one, name) for one in self.measured])
        out = io.BytesIO()
        np.savez_compressed(out, **arrays)
        write_bytes(path, out.getvalue())
        return path

    @classmethod
    def load(cls, path: Path) -> TransferResult:
        """What `save` wrote. Raises UserError where the file cannot be read or is of another kind."""
        names = ("format", "version", "about", *_WORDS, *_NUMBERS)
        arrays = read_npz(path, names, "; expected what tdbench transfer writes")
        if arrays.keys() != set(names) or str(arrays["format"]) != FORMAT:
            raise UserError(f"{path} holds no transfer (tdbench transfer writes one)")
        if arrays["version"].tolist() != VERSION:
            raise UserError(f"{path} has version {echo(arrays['version'].tolist())}, this tdbench reads {VERSION}")
        try:
            rows = zip(*(arrays[field.name] for field in fields(Measured)), strict=True)
            measured = tuple(Measured(*map(_plain, row)) for row in rows)
            about = json.loads(str(arrays["about"]))
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: {error}") from error
        return cls(measured, about)


def _plain(value: Any) -> Any:
    """Python's own numbers and texts; arrays stay."""
    return value.item() if isinstance(value, np.generic) else value
