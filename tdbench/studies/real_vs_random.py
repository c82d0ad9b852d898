"""Real against random: taskness of class tasks, pixel statistics and random labelings, ROC, AUC and T_task per ratio.

T_task is the taskness that only a given share of random labelings exceeds. A labeling above it is called a task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_curve

from tdbench.base.errors import UserError
from tdbench.base.stats import Estimate, two_stage_interval
from tdbench.leaderboard.threshold import FALSE_POSITIVE_RATE, LABELINGS, random_requests, threshold_of
from tdbench.report.style import INK, PALE_INK, SERIES
from tdbench.space.executor import study_request
from tdbench.space.references import ReferenceTask
from tdbench.space.settings import check_sizes
from tdbench.space.sources import Source
from tdbench.space.task_space import TaskSpace
from tdbench.studies._common import TrainingSettings, label_axes, panels, setting, shown
from tdbench.studies._lab import Findings, Lab

RATIOS = (1, 4, 9)
KINDS = {"class": "class tasks", "pixel": "pixel statistics", "random": "random labelings"}
QUICK = {"n": 20, "replicates": 4, "steps": 30, "labelings": 8}


@dataclass(frozen=True)
class Settings(TrainingSettings):
    n: int = setting(50, "Images in a set, divisible by each ratio + 1.")
    ratios: tuple[int, ...] | None = setting(None, "Negatives per positive; 1,4,9 if n allows them.")
    labelings: int = setting(LABELINGS, "Random labelings of each set, at each ratio.")
    false_positive_rate: float = setting(FALSE_POSITIVE_RATE, "Share of random labelings that exceed T_task.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labelings < 2:
            raise UserError(f"labelings must be at least 2 of each set, got {self.labelings}")
        if not 0 < self.false_positive_rate < 1:
            raise UserError(f"false-positive-rate must be between 0 and 1, got {self.false_positive_rate}")
        fewest = math.ceil(1 / self.false_positive_rate - 1e-9)
        if self.sets * self.labelings < fewest:
            raise UserError(
                f"a false-positive rate of {self.false_positive_rate:g} needs at least {fewest} random labelings, got "
                f"{self.sets} sets of {self.labelings}; raise --labelings"
            )
        if self.ratios is not None and not self.ratios:
            raise UserError("ratios must name at least one ratio")
        for ratio in self.ratios or ():
            check_sizes(self.n, ratio)


@dataclass(frozen=True)
class Case:
    """One ratio: mean taskness over the replicates of each labeling, and the conclusions from it.

    Attributes:
        taskness: by kind, for each set the (labelings,) mean taskness.
        names: by kind, for each set the names of its labelings.
        auc: probability that a class task exceeds a random labeling.
        threshold: T_task; its `n` is the number of random labelings.
        found: by kind, the share of its labelings above T_task.
    """

    ratio: int
    taskness: dict[str, list[NDArray[np.float64]]]
    names: dict[str, list[list[str]]]
    auc: Estimate
    threshold: Estimate
    found: dict[str, float]

    def pooled(self, kind: str) -> NDArray[np.float64]:
        """(n,) taskness of all labelings of that kind, of all sets."""
        return np.concatenate(self.taskness[kind])


def study(settings: Settings, lab: Lab) -> Findings:
    """Score reference tasks and random labelings of every set at every ratio, and measure how well they separate."""
    source = lab.source(settings.data)
    spaces, skipped = _spaces(settings, source)
    known = {ratio: [space.reference_tasks for space in drawn] for ratio, drawn in spaces.items()}
    requests = []
    for ratio, drawn in spaces.items():
        requests += [_known_request(s, tasks, settings) for s, tasks in zip(drawn, known[ratio], strict=True)]
        requests += random_requests(drawn, settings.labelings, settings.replicates)
    means = iter([taskness.mean(axis=1) for taskness in lab.taskness(requests, "real against random")])
    cases = []
    for ratio, drawn in spaces.items():
        of_known = [next(means) for _ in drawn]
        cases.append(_case(ratio, known[ratio], of_known, [next(means) for _ in drawn], settings.false_positive_rate))
    table = pd.DataFrame([row for case in cases for row in _rows(case, settings)])
    for ratio, reason in skipped.items():
        table = pd.concat([table, pd.DataFrame([{"n": settings.n, "ratio": ratio, "skipped": reason}])])
    return Findings(table, _figure(cases), _paragraph(settings, source.name, cases, skipped))


def _spaces(settings: Settings, source: Source) -> tuple[dict[int, list[TaskSpace]], dict[int, str]]:
    """The spaces of each ratio, or the reason why it has none."""
    spaces: dict[int, list[TaskSpace]] = {}
    skipped: dict[int, str] = {}
    for ratio in dict.fromkeys(settings.ratios or RATIOS):
        try:
            spaces[ratio] = [
                TaskSpace(source, n=settings.n, ratio=ratio, seed=seed, steps=settings.steps, lr=settings.lr)
                for seed in settings.set_seeds
            ]
        except UserError as error:
            skipped[ratio] = str(error)
    if not spaces:
        raise UserError(next(iter(skipped.values())))
    return spaces, skipped


def _known_request(space: TaskSpace, tasks: Sequence[ReferenceTask], settings: Settings) -> Any:
    return study_request(space, np.stack([task.labels for task in tasks]), space.seed, settings.replicates)


def _case(
    ratio: int,
    known: Sequence[Sequence[ReferenceTask]],
    of_known: Sequence[NDArray[np.float64]],
    of_random: Sequence[NDArray[np.float64]],
    rate: float,
) -> Case:
    taskness = {"random": list(of_random)}
    names = {"random": [[f"random {i}" for i in range(len(v))] for v in of_random]}
    for kind in ("class", "pixel"):
        chosen = [[i for i, task in enumerate(tasks) if task.kind == kind] for tasks in known]
        taskness[kind] = [values[index] for values, index in zip(of_known, chosen, strict=True)]
        names[kind] = [[tasks[i].name for i in index] for tasks, index in zip(known, chosen, strict=True)]
    threshold = threshold_of(np.stack(of_random), rate)
    found = {
        kind: float(np.mean(pooled > threshold.value)) if len(pooled := np.concatenate(taskness[kind])) else math.nan
        for kind in KINDS
    }
    return Case(ratio, taskness, names, separation(taskness["class"], of_random), threshold, found)


def separation(real: Sequence[NDArray[np.float64]], random: Sequence[NDArray[np.float64]]) -> Estimate:
    """Area under the ROC curve of real against random labelings, with a two-stage bootstrap interval over sets.

    Args:
        real, random: for each image set the (n,) mean taskness of its labelings, as many in each set.
    """

    def area(a: NDArray[np.float64], b: NDArray[np.float64], axis: int) -> Any:
        u = mannwhitneyu(a, b, axis=axis, method="asymptotic").statistic  # the area is U / (n_a n_b)
        return u / (a.shape[axis] * b.shape[axis])

    return two_stage_interval([np.stack(real), np.stack(random)], area)


def _rows(case: Case, settings: Settings) -> list[dict[str, Any]]:
    """A row for each labeling, which also has the conclusions for its ratio."""
    concluded = {
        "auc": case.auc.value,
        "auc_low": case.auc.low,
        "auc_high": case.auc.high,
        "t_task": case.threshold.value,
        "t_task_low": case.threshold.low,
        "t_task_high": case.threshold.high,
        "false_positive_rate": settings.false_positive_rate,
        "random_labelings": case.threshold.n,
    }
    return [
        {
            "n": settings.n,
            "ratio": case.ratio,
            "space_seed": seed,
            "kind": kind,
            "labeling": name,
            "taskness": float(value),
            "is_task": bool(value > case.threshold.value),
            **concluded,
            "skipped": "",
        }
        for kind in KINDS
        for seed, names, values in zip(settings.set_seeds, case.names[kind], case.taskness[kind], strict=True)
        for name, value in zip(names, values, strict=True)
    ]


def _figure(cases: Sequence[Case]) -> Figure:
    figure, grid = panels(2, len(cases), width=max(4.6, 2.9 * len(cases)), height=6.0)
    low = min(float(case.pooled(kind).min()) for case in cases for kind in KINDS if len(case.pooled(kind)))
    for column, case in enumerate(cases):
        _draw_distributions(grid[0, column], case, low)
        _draw_roc(grid[1, column], case)
        for row in range(2 if column else 0):
            grid[row, column].set_ylabel("")
    return figure


def _draw_distributions(axes: Axes, case: Case, low: float) -> None:
    label_axes(axes, "", "taskness (0 noise, 1 perfect)", f"1:{case.ratio}")
    for place, kind in enumerate(KINDS):
        values = np.sort(case.pooled(kind))
        spread = ((np.arange(len(values)) * 0.618) % 1 - 0.5) * 0.55  # the golden ratio keeps neighbours apart
        axes.scatter(place + spread, values, s=13, color=SERIES[place], alpha=0.6, linewidths=0)
        if len(values):
            axes.hlines(np.median(values), place - 0.34, place + 0.34, color=SERIES[place], linewidth=2)
    axes.axhline(case.threshold.value, color=INK, linewidth=1, linestyle="--")
    if case.threshold.has_interval:
        axes.axhspan(case.threshold.low, case.threshold.high, color=PALE_INK, alpha=0.2, linewidth=0)
    axes.annotate(
        f"T_task {shown(case.threshold)}", (1, 1.005), xycoords="axes fraction", ha="right", va="bottom", fontsize=8,
        color=INK, parse_math=False,
    )  # fmt: skip
    axes.set_xticks(range(len(KINDS)), ["class\ntasks", "pixel\nstatistics", "random\nlabelings"])
    axes.set_xlim(-0.6, len(KINDS) - 0.4)
    axes.set_ylim(low - 0.04, 1.02)


def _draw_roc(axes: Axes, case: Case) -> None:
    real, random = case.pooled("class"), case.pooled("random")
    label_axes(axes, "random labelings above (share)", "class tasks above (share)", f"AUC {shown(case.auc)}")
    false, true, _ = roc_curve(np.repeat([1, 0], [len(real), len(random)]), np.concatenate([real, random]))
    axes.plot(false, true, color=SERIES[0], linewidth=1.8)
    axes.plot([0, 1], [0, 1], color=PALE_INK, linewidth=0.8, linestyle=":")
    axes.plot([case.found["random"]], [case.found["class"]], "o", color=INK, markersize=5, label="at T_task")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)


def _paragraph(settings: Settings, source: str, cases: Sequence[Case], skipped: dict[int, str]) -> str:
    parts = []
    for case in cases:
        found = ", ".join(
            f"{case.found[k]:.0%} of the {KINDS[k]}".replace("%", " %")
            for k in ("class", "pixel")
            if len(case.pooled(k))
        )
        parts.append(
            f"At 1:{case.ratio} the AUC of {len(case.pooled('class'))} class tasks against {case.threshold.n} random "
            f"labelings is {shown(case.auc)}{' (each above all)' if case.auc.value == 1 else ''}, and T_task is "
            f"{shown(case.threshold)}: {found} lie above it."
        )
    intervals = (
        "95 % intervals: two-stage bootstrap, over sets and over labelings within them; rough with so few sets"
        if all(case.threshold.has_interval for case in cases)
        else "an interval needs at least 4 sets that differ"
    )
    parts += [f"1:{ratio} was skipped: {reason}." for ratio, reason in skipped.items()]
    separated = [case for case in cases if case.auc.low > 0.5 or case.auc.value == 1]
    return (
        f"N = {settings.n} images of {source}, {settings.sets} image sets, each labeling the mean over "
        f"{settings.replicates} replicates; T_task is what {100 * settings.false_positive_rate:.3g} % of the random "
        f"labelings exceed ({intervals}). {' '.join(parts)} Expected: class tasks lie clearly above random labelings, "
        "less so with fewer positives. The whole interval of the AUC lies above 0.5 at "
        f"{len(separated)} of {len(cases)} ratios."
    )
