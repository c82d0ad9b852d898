"""Transfer: do found tasks help to learn others, more than random labelings, classes, pixel statistics or nothing?

Finds a library of tasks on each source set, trains on its tasks and on controls first, and then on class tasks of other
images. The first source N and the first pretraining length are measured in full, the others with fewer sources.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tdbench.arena.campaign import run_all
from tdbench.base.errors import UserError
from tdbench.report.style import SERIES, ZERO
from tdbench.report.transfer import write_result
from tdbench.settings import RunSettings
from tdbench.space.settings import check_seed
from tdbench.store.library import TaskLibrary
from tdbench.studies._common import draw_estimates, label_axes, panels, setting, shown
from tdbench.studies._lab import Findings, Lab
from tdbench.transfers.experiment import about
from tdbench.transfers.protocol import measure
from tdbench.transfers.result import TransferResult
from tdbench.transfers.settings import MODES, TransferSettings
from tdbench.transfers.sources import ALL, CLASS, FOUND, KINDS, OWN, PIXEL, RANDOM, plan
from tdbench.transfers.words import before, paragraph

FOLDER = "transfer"
FEWER = 2  # controls of each kind, and twice as many found tasks, where not everything is measured
QUICK = {
    "sets": 4,
    "source_n": (20,),
    "pretrain_steps": (20, 40),
    "target_n": 10,
    "tasks": 3,
    "budget": 32,
    "confirm": 4,
    "replicates": 2,
    "controls": 2,
    "extend": 20,
    "steps": 20,
}


@dataclass(frozen=True)
class Settings:
    """Raises UserError for settings that no run or transfer can have."""

    data: str = setting("digits", "digits, cifar10, cifar100 or the path of an .npz.")
    sets: int = setting(
        8, "Source sets, drawn independently, each with target sets of its own. Intervals are over them."
    )
    replicates: int = setting(3, "Trainings of each pair of source and target.")
    seed: int = setting(0, "Seed of the first source set; the others follow.")
    steps: int = setting(100, "Adam steps of a training on a target, and of the search for tasks.")
    lr: float = setting(1e-3, "Adam's learning rate.")
    source_n: tuple[int, ...] = setting((200, 100, 50), "Images in a source set; the first is measured in full.")
    pretrain_steps: tuple[int, ...] = setting((50, 100), "Adam steps on a source; the first is measured in full.")
    target_n: int = setting(50, "Images in a target set.")
    ratio: int = setting(4, "Negatives per positive, of sources and targets.")
    targets: int = setting(1, "Target sets of each source set.")
    searcher: str = setting("ntk-loo", "Finds the libraries.")
    tasks: int = setting(6, "Tasks in a library.")
    budget: int = setting(64, "Evaluations of the search for them.")
    confirm: int = setting(8, "Fresh replicates that score each of them.")
    controls: int = setting(4, "Class tasks, pixel statistics and random labelings, so many of each.")
    extend: int = setting(200, "Further images to which found tasks are extended by votes; 0 leaves it out.")

    def __post_init__(self) -> None:
        if self.sets < 1:
            raise UserError(f"sets must be at least 1, got {self.sets}")
        check_seed("seed + sets - 1", self.seed + self.sets - 1)
        for case in self.cases:
            self.run_settings(case.n, "auto", "auto")
            self.transfer(case, self.seed)

    @property
    def cases(self) -> list[Case]:
        """The first source N and pretraining length, then each other one with the first of the other kind."""
        if not self.source_n or not self.pretrain_steps:
            raise UserError("source-n and pretrain-steps need at least one number each")
        n, steps = self.source_n[0], self.pretrain_steps[0]
        others = [Case(other, steps) for other in self.source_n[1:]]
        return [Case(n, steps, full=True), *others, *(Case(n, other) for other in self.pretrain_steps[1:])]

    def run_settings(self, n: int, engine: str, device: str) -> list[RunSettings]:
        """The runs that find the libraries, as `tdbench bench --tasks` would make them."""
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("data", "searcher", "ratio", "tasks", "budget", "confirm", "steps", "lr")
        }
        given |= {"n": n, "batch": min(32, self.budget), "engine": engine, "device": device}
        return [RunSettings(**given, space_seed=seed) for seed in range(self.seed, self.seed + self.sets)]

    def transfer(self, case: Case, seed: int) -> TransferSettings:
        """The transfer from the source set of that seed."""
        full = TransferSettings(
            replicates=self.replicates,
            pretrain_steps=case.pretrain_steps,
            controls=self.controls,
            extend=self.extend,
            sets=self.targets,
            target_n=self.target_n,
            target_ratio=self.ratio,
            seed=seed,
        )
        if case.full:
            return full
        return replace(full, modes=MODES[:1], controls=FEWER, members=2 * FEWER, extend=0, shots=())


@dataclass(frozen=True)
class Case:
    """A source N and a pretraining length; whether all modes, shots and sources are measured."""

    n: int
    pretrain_steps: int
    full: bool = False

    @property
    def name(self) -> str:
        return f"N = {self.n}, {self.pretrain_steps} steps"


def study(settings: Settings, lab: Lab) -> Findings:
    """Find libraries, measure each case, and write the tables and figures of the first one into a folder."""
    expected = before(settings.sets)
    results = [_measured(settings, case, lab) for case in settings.cases]
    write_result(results[0], lab.folder / FOLDER)
    table = pd.DataFrame([row for case, one in zip(settings.cases, results, strict=True) for row in _rows(case, one)])
    text = f"{paragraph(results[0])} {_variations(settings, results)} Beforehand: {expected}."
    return Findings(table, _figure(settings, results), text)


def _measured(settings: Settings, case: Case, lab: Lab) -> TransferResult:
    """All sets of one case; the pairs of a set count for its source set."""
    source = lab.source(settings.data)
    runs = settings.run_settings(case.n, *lab.engine_words)
    options = replace(lab.run_options(FOLDER), references="none")
    found = run_all(runs, options, lab.plugins())
    pairs = []
    described: dict[str, Any] = {}
    for number, result in enumerate(found):
        if result.library is None:
            raise UserError(
                f"no library was found on the source set of seed {result.row.space_seed}: {result.row.error}"
            )
        chosen = settings.transfer(case, result.space.seed)
        space = result.space.on(lab.engine)
        made = replace(plan(space, source, result.library, chosen, lab), source_set=number, one_set=True)
        pairs += measure(made, chosen, lab)
        described = described or about(space, source, made, chosen, lab)
    described["sources"] = (
        f"{settings.sets} sets of {case.n} images of {source.name}, 1:{settings.ratio}, with libraries of "
        f"{settings.tasks} tasks that {settings.searcher} found with {settings.budget} evaluations "
        f"(confirmed {_confirmed([r.library for r in found if r.library is not None]):.2f} on average)"
    )
    return TransferResult(tuple(pairs), described)


def _confirmed(libraries: list[TaskLibrary]) -> float:
    values = [float(value) for library in libraries for value in library.confirmed]
    return sum(values) / len(values) if values else math.nan


def _rows(case: Case, result: TransferResult) -> Iterator[dict[str, Any]]:
    """A row for each gain, each difference and each rank correlation."""
    where = {"source_n": case.n, "pretrain_steps": case.pretrain_steps}
    for gain in result.gains:
        row = {**where, "what": "gain", "kind": gain.kind, "than": "nothing", "mode": gain.mode, "shots": gain.shots}
        estimate = {"value": gain.gain.value, "low": gain.gain.low, "high": gain.gain.high}
        yield {**row, **estimate, "detectable": gain.detectable, "win_rate": gain.win_rate.value, "pairs": gain.pairs}
    for mode in result.modes:
        shots = {"mode": mode, "shots": result.all_shots}
        for one in result.contrasts(mode):
            e = one.difference
            row = {**where, "what": "difference", "kind": one.better, "than": one.worse, **shots}
            yield {**row, "value": e.value, "low": e.low, "high": e.high, "detectable": one.detectable}
        e = result.rank_correlation(mode)
        row = {**where, "what": "rank correlation", "kind": FOUND, **shots}
        yield {**row, "value": e.value, "low": e.low, "high": e.high}


def _figure(settings: Settings, results: list[TransferResult]) -> Figure:
    figure, grid = panels(1, 3, width=13.0, height=4.4)
    for axes, mode in zip(grid[0], results[0].modes, strict=False):
        _draw_gains(axes, results[0], mode, settings.cases[0].name)
    _draw_cases(grid[0, 2], settings, results)
    return figure


def _draw_gains(axes: Axes, result: TransferResult, mode: str, name: str) -> None:
    gains = [gain for gain in result.gains if gain.mode == mode and gain.shots == result.all_shots][::-1]
    for row, one in enumerate(gains):
        colour = SERIES[KINDS.index(one.kind) % len(SERIES)]
        axes.hlines(row, one.gain.low, one.gain.high, color=colour, linewidth=2, alpha=0.65)
        axes.plot(one.gain.value, row, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(gains)), [one.kind for one in gains])
    axes.axvline(0, color=ZERO, linewidth=0.9)
    label_axes(axes, "gain in taskness over training from scratch", "", f"{mode}, {name}")


def _draw_cases(axes: Axes, settings: Settings, results: list[TransferResult]) -> None:
    """Gain over source N and pretraining length."""
    mode = results[0].modes[0]
    places = list(range(len(results)))
    for kind in (FOUND, ALL, CLASS, PIXEL, RANDOM, OWN):
        points = [(x, gain.gain) for x in places for gain in results[x].gains
                  if (gain.kind, gain.mode, gain.shots) == (kind, mode, results[x].all_shots)]  # fmt: skip
        shift = 0.08 * (KINDS.index(kind) - 3)
        colour = SERIES[KINDS.index(kind) % len(SERIES)]
        draw_estimates(axes, [x + shift for x, _ in points], [e for _, e in points], colour, kind, linestyle=":")
    axes.axhline(0, color=ZERO, linewidth=0.9)
    names = [case.name.replace(", ", ",\n") for case in settings.cases]
    axes.set_xticks(places, names, fontsize=7.5)
    label_axes(axes, "source N and pretraining", "gain in taskness", mode)
    axes.legend(fontsize=7.5, frameon=False)


def _variations(settings: Settings, results: list[TransferResult]) -> str:
    parts = []
    for case, result in zip(settings.cases[1:], results[1:], strict=True):
        mode = result.modes[0]
        listed = "; ".join(f"{gain.kind} {shown(gain.gain, 3)}" for gain in result.gains)
        answer = next((one for one in result.contrasts(mode) if one.worse == RANDOM and one.better == FOUND), None)
        more = "" if answer is None else f"; found tasks more than random labelings by {shown(answer.difference, 3)}"
        parts.append(f"{case.name}: {listed}{more}.")
    return f"Other sources, {MODES[0]}: {' '.join(parts)}" if parts else ""
