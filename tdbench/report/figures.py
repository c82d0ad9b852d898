"""Which figures the report has, and the results in them: ranked tables in, charts and strips of images out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tdbench.base import stats
from tdbench.base.stats import Estimate
from tdbench.leaderboard.standings import OverallTable, SpaceTable
from tdbench.report import charts
from tdbench.report.charts import Chart, Group, Line, Member
from tdbench.report.pictures import best_so_far
from tdbench.report.results import SpaceLog
from tdbench.store.rows import CHECKPOINTS, Row

_TOLD_POINTS = 12  # evaluations at which the runs' best told are averaged


def space_charts(table: SpaceTable, log: SpaceLog, colours: dict[str, int]) -> dict[str, Chart]:
    """Name -> figure of one space; `colours` has the number of each searcher's colour."""
    return _main_charts(groups_of(table, log, colours), _lines(table), "run", "seeds")


def overall_charts(table: OverallTable, colours: dict[str, int]) -> dict[str, Chart]:
    """Name -> figure over spaces."""
    return _main_charts(_overall_groups(table, colours), _overall_lines(table), "space", "spaces")


def _main_charts(groups: Sequence[Group], lines: Sequence[Line], each: str, over: str) -> dict[str, Chart]:
    drawn = {}
    if any(group.members for group in groups):
        drawn["told-and-confirmed"] = charts.told_against_confirmed(groups, lines, each)
    if any(len(group.checkpoints) > 1 for group in groups):
        drawn["confirmed-over-evaluations"] = charts.confirmed_over_evaluations(groups, lines, over)
    return drawn


def strips(table: SpaceTable, log: SpaceLog, pixels: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.uint8]]]:
    """The positives of each searcher's best run, of the best class task and pixel statistic; best confirmed first."""
    found = []
    for standing in table.standings:
        rows = [run.row for run in standing.runs if run.row.run in log.labels]
        if rows:
            best = max(rows, key=lambda row: np.nan_to_num(row.confirmed, nan=-9))
            found.append((best.confirmed, standing.searcher, log.labels[best.run]))
    for kind, what in (("class", "class "), ("pixel", "")):
        lines = [line for line in table.references if line.kind == kind and line.name in log.references]
        if lines:
            line = max(lines, key=lambda line: line.mean)
            found.append((line.mean, f"{what}{line.name}", log.references[line.name]))
    return [
        (f"{name}  {confirmed:.2f}", pixels[labels.astype(bool)])
        for confirmed, name, labels in sorted(found, key=lambda f: -f[0])
    ]


def groups_of(table: SpaceTable, log: SpaceLog, colours: dict[str, int]) -> list[Group]:
    """The searchers in the form that figures need, best first. Failed runs are in the estimates, but have no curve."""
    groups = []
    for standing in table.standings:
        members = [_member(run.row, log) for run in standing.runs if not run.failed]
        estimates = _over_evaluations(standing.checkpoints, table.protocol.budget)
        groups.append(
            Group(standing.searcher, colours[standing.searcher], members, estimates, _told_estimates(members))
        )
    return groups


def _member(row: Row, log: SpaceLog) -> Member:
    checkpoints = zip(CHECKPOINTS, row.checkpoints, strict=True)
    points = {round(share * row.budget): value for share, value in checkpoints if math.isfinite(value)}
    return Member(f"seed {row.seed}", row.told, row.confirmed, points, log.told.get(row.run, np.zeros(0)))


def _overall_groups(table: OverallTable, colours: dict[str, int]) -> list[Group]:
    """The searchers in the form that figures over spaces need, best first. A space where all runs failed has no bar."""
    groups = []
    for overall in table.standings:
        members = [
            Member(f"space seed {t.settings.space_seed}", s.told, s.confirmed.value, {}, np.zeros(0))
            for t, s in zip(table.tables, overall.in_spaces, strict=True)
            if math.isfinite(s.told)
        ]
        estimates = _over_evaluations(overall.checkpoints, table.protocol.budget)
        groups.append(Group(overall.searcher, colours[overall.searcher], members, estimates, {}))
    return groups


def _over_evaluations(checkpoints: Sequence[Estimate], budget: int) -> dict[int, Estimate]:
    """Evaluations -> the estimate of the checkpoint after them; unknown ones are left out."""
    return {
        round(share * budget): estimate
        for share, estimate in zip(CHECKPOINTS, checkpoints, strict=True)
        if math.isfinite(estimate.value)
    }


def _told_estimates(members: Sequence[Member]) -> dict[int, Estimate]:
    """Evaluations -> interquartile mean of best told, at evaluations that every run has reached."""
    reached = min((len(member.told_curve) for member in members), default=0)
    if not reached:
        return {}
    at = np.unique(np.geomspace(1, reached, _TOLD_POINTS).round().astype(int))
    curves = np.array([best_so_far(member.told_curve[:reached])[at - 1] for member in members])
    known = np.isfinite(curves).all(axis=0)
    return {int(x): stats.iqm_interval(v) for x, v in zip(at[known], curves.T[known], strict=True)}


def _lines(table: SpaceTable) -> list[Line]:
    """Lines of the references in a figure: the best class task, the best pixel statistic, the mean random labeling."""
    lines = []
    for kind, what in (("class", "class "), ("pixel", "")):
        members = [line for line in table.references if line.kind == kind]
        if members:
            best = max(members, key=lambda line: line.mean)
            lines.append(Line(f"{what}{best.name}", best.mean))
    means = [line.mean for line in table.reference_summary if line.kind == "random"][:1]
    return [*lines, *(Line("random labelings", mean) for mean in means)]


def _overall_lines(table: OverallTable) -> list[Line]:
    """Means over spaces of the lines in figures of one space; none if the references of a space are not known."""
    in_spaces = [_lines(t) for t in table.tables]
    names = ("best class task", "best pixel statistic", "random labelings")
    if any(len(lines) != len(names) for lines in in_spaces):
        return []
    return [
        Line(name, float(np.mean([line.value for line in lines])))
        for name, lines in zip(names, zip(*in_spaces, strict=True), strict=True)
    ]
