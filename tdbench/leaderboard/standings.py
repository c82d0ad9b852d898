"""Ranks of searchers and their intervals: leaderboard rows in, ranked tables out, for the command line and the report.

Seeds of one space are repeats of one problem; spaces are different problems. A `SpaceTable` has intervals over seeds,
an `OverallTable` has intervals over spaces, and the two are never mixed.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from tdbench.base import stats
from tdbench.base.stats import Estimate, RankTest
from tdbench.leaderboard.boards import Board, Group, RunProtocol, group_rows, latest_runs
from tdbench.store.confirmations import engine_tag, reference_scores
from tdbench.store.log import Store
from tdbench.store.rows import CHECKPOINTS, Row, space_name
from tdbench.store.worth import tasks_above

FEW_SEEDS = 5


@dataclass(frozen=True)
class CountedRun:
    """A run with the values that it counts as: `checkpoints` is confirmed taskness at each share of `CHECKPOINTS`.

    A failed run counts as the failure score of its table at every checkpoint, not as the values in its row.
    """

    row: Row
    failed: bool
    checkpoints: tuple[float, ...]

    @property
    def confirmed(self) -> float:
        return self.checkpoints[-1]

    @property
    def anytime(self) -> float:
        return stats.anytime(self.checkpoints, CHECKPOINTS)


@dataclass(frozen=True)
class Libraries:
    """The libraries of one searcher's runs in one space, in the mean over those that did not fail.

    Attributes:
        confirmed: of the best labeling, the second best, and so on; an empty place counts 0.
        members, effective_number, recalled, recalled_by_chance: as the columns of a leaderboard.
    """

    confirmed: tuple[float, ...]
    members: float
    effective_number: float
    recalled: float
    recalled_by_chance: float
    _rows: tuple[Row, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Libraries:
        if not rows:
            return cls((), math.nan, math.nan, math.nan, math.nan, ())
        each = [row.library_confirmed for row in rows]
        places = np.array(
            [[*values, *(0.0,) * (row.tasks - len(values))] for row, values in zip(rows, each, strict=True)]
        )
        return cls(
            tuple(places.mean(axis=0).tolist()),
            float(np.mean([len(values) for values in each])),
            float(np.mean([row.effective_number for row in rows])),
            float(np.mean([row.recalled for row in rows])),
            float(np.mean([row.recalled_by_chance for row in rows])),
            tuple(rows),
        )

    def tasks_above(self, threshold: float) -> float:
        """How many labelings are tasks: the lower end of the 95 % interval of confirmed taskness is above T_task."""
        counts = [
            tasks_above(row.library_confirmed, row.library_confirmed_se, row.confirm, threshold) for row in self._rows
        ]
        return float(np.mean(counts)) if counts else math.nan

    def confirmed_at(self, k: int) -> float:
        """Confirmed taskness of the k-th best labeling (1, 2, ...); NaN where all runs failed."""
        return self.confirmed[k - 1] if self.confirmed else math.nan


@dataclass(frozen=True)
class Standing:
    """One searcher in one space; intervals are over its seeds.

    Attributes:
        rank: 1 is best; equal scores share the mean of their ranks.
        versions: of the searcher, more than one if its runs differ.
        runs: one per seed, in the order of seeds.
        confirmed: interquartile mean of confirmed taskness, failures counted.
        checkpoints: the same at each share of `CHECKPOINTS`; NaN if it is not known for a run.
        anytime: interquartile mean of the area under the checkpoints (`stats.anytime`).
        told, optimism: interquartile means over the runs that did not fail; NaN if all failed.
        failures: runs that failed, by status.
        distinct: median number of different labelings evaluated.
    """

    rank: float
    searcher: str
    versions: tuple[str, ...]
    sees_images: bool
    runs: tuple[CountedRun, ...]
    confirmed: Estimate
    checkpoints: tuple[Estimate, ...]
    anytime: Estimate
    told: float
    optimism: float
    failures: dict[str, int]
    distinct: float

    @functools.cached_property
    def library(self) -> Libraries:
        """What its runs discovered, where they discover several labelings."""
        return Libraries.of([run.row for run in self.runs if not run.failed])

    @property
    def values(self) -> tuple[float, ...]:
        """Confirmed taskness of every run, in the order of seeds."""
        return tuple(run.confirmed for run in self.runs)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


@dataclass(frozen=True)
class ReferenceLine:
    """Confirmed taskness of a reference task (``class``, ``pixel``, ``random``), or of a summary of several."""

    name: str
    kind: str
    mean: float
    se: float


@dataclass(frozen=True)
class SpaceTable:
    """The searchers of one space under one protocol, best first.

    Attributes:
        space: its identity.
        name: its readable name, that of its leaderboard file.
        settings: any row of the table; all have the same settings of space and protocol.
        improvement: [i][j] is the probability that a run of standing i confirms higher than one of standing j.
        references: each reference task that the log has confirmed; empty without a log.
        failure_score: the taskness that a failed run counts as.
        notes: sentences that a reader must know.
    """

    space: str
    name: str
    settings: Row
    protocol: RunProtocol
    standings: tuple[Standing, ...]
    improvement: tuple[tuple[Estimate, ...], ...]
    references: tuple[ReferenceLine, ...]
    failure_score: float
    notes: tuple[str, ...]

    @property
    def reference_summary(self) -> tuple[ReferenceLine, ...]:
        """Mean and best of each kind of reference task."""
        return _summarize(self.references)


@dataclass(frozen=True)
class OverallStanding:
    """One searcher over spaces: means over spaces of its interquartile means over seeds.

    Attributes:
        confirmed, checkpoints: with intervals over spaces; `checkpoints` as in `Standing`.
        average_rank: mean over spaces of its rank in each.
        in_spaces: its standing in each space, in the table's order.
    """

    rank: float
    searcher: str
    confirmed: Estimate
    average_rank: float
    in_spaces: tuple[Standing, ...]

    @property
    def confirmed_in_spaces(self) -> tuple[float, ...]:
        """Interquartile mean over seeds of confirmed taskness in each space."""
        return tuple(standing.confirmed.value for standing in self.in_spaces)

    @property
    def checkpoints(self) -> tuple[Estimate, ...]:
        return tuple(
            _or_nan(stats.mean_interval, [standing.checkpoints[i].value for standing in self.in_spaces])
            for i in range(len(CHECKPOINTS))
        )

    @property
    def told(self) -> float:
        """NaN if every run in a space failed."""
        return float(np.mean([standing.told for standing in self.in_spaces]))

    @property
    def optimism(self) -> float:
        """NaN if every run in a space failed."""
        return float(np.mean([standing.optimism for standing in self.in_spaces]))

    @property
    def distinct(self) -> float:
        """Median over all runs of the number of different labelings evaluated."""
        return float(np.median([run.row.distinct for standing in self.in_spaces for run in standing.runs]))

    @property
    def sees_images(self) -> bool:
        return any(standing.sees_images for standing in self.in_spaces)


@dataclass(frozen=True)
class OverallTable:
    """Searchers over the spaces that all of them were run on, under one protocol; best mean first.

    Attributes:
        tables: the tables of the spaces. The searchers that are in all of them are compared.
        ranks: Friedman's test and the critical difference, ranks in the order of the standings; None for fewer than 3
            searchers or 5 spaces.
        left_out: searchers and spaces that are not in the table because the searchers were not run on all spaces.
    """

    protocol: RunProtocol
    tables: tuple[SpaceTable, ...]
    standings: tuple[OverallStanding, ...]
    ranks: RankTest | None
    left_out: tuple[str, ...]

    @property
    def spaces(self) -> tuple[str, ...]:
        """Names of the spaces."""
        return tuple(table.name for table in self.tables)


@dataclass(frozen=True)
class Standings:
    tables: tuple[SpaceTable, ...]
    overall: tuple[OverallTable, ...]


def standings(boards: Sequence[Board]) -> Standings:
    """Rank the searchers of all rows: one table for each space and protocol, and one over spaces for each protocol."""
    rows = [row for board in boards for row in board.rows]
    latest = latest_runs(rows)
    groups = group_rows(latest)
    superseded = Counter((row.space, RunProtocol.of(row)) for row in rows)
    superseded.subtract({key: len(group) for key, group in groups.items()})
    tables = [
        space_table(group, references(boards, group), superseded[key]) for key, group in _in_reading_order(groups)
    ]
    protocols = list(dict.fromkeys(table.protocol for table in tables))
    overall = (overall_table([t for t in tables if t.protocol == protocol]) for protocol in protocols)
    return Standings(tuple(tables), tuple(table for table in overall if table is not None))


def failure_score(rows: Iterable[Row]) -> float:
    """The taskness that a failed run counts as: 0, or the lowest confirmed taskness of a run that did not fail if that
    is below 0. So failing is never better than finishing."""
    return min([0.0, *(row.confirmed for row in rows if not _failed(row))])


def counted_runs(rows: Sequence[Row], failure: float | None = None) -> list[CountedRun]:
    """The runs with the values that they count as, by seed; `failure` defaults to the failure score of these rows."""
    failure = failure_score(rows) if failure is None else failure
    return [
        CountedRun(row, _failed(row), (failure,) * len(CHECKPOINTS) if _failed(row) else row.checkpoints)
        for row in sorted(rows, key=lambda row: row.seed)
    ]


def space_table(rows: Sequence[Row], references: Sequence[ReferenceLine] = (), superseded: int = 0) -> SpaceTable:
    """The ranked table of rows of one space and one protocol, one row for each searcher and seed.

    Args:
        references: confirmed reference tasks of the space.
        superseded: rows left out because a later run has the same settings.
    """
    failure = failure_score(rows)
    by_searcher: dict[str, list[Row]] = {}
    for row in rows:
        by_searcher.setdefault(row.searcher, []).append(row)
    unranked = [_standing(name, counted_runs(group, failure)) for name, group in by_searcher.items()]
    ranks = stats.average_ranks([[s.confirmed.value for s in unranked]])
    ranked = [replace(s, rank=float(rank)) for s, rank in zip(unranked, ranks, strict=True)]
    ranked.sort(key=lambda s: (s.rank, s.searcher))
    first = rows[0]
    return SpaceTable(
        space=first.space,
        name=space_name(first),
        settings=first,
        protocol=RunProtocol.of(first),
        standings=tuple(ranked),
        improvement=tuple(tuple(stats.improvement(a.values, b.values) for b in ranked) for a in ranked),
        references=tuple(references),
        failure_score=failure,
        notes=tuple(_notes(ranked, failure, superseded)),
    )


def overall_table(tables: Sequence[SpaceTable]) -> OverallTable | None:
    """The table over spaces of one protocol, or None if no two spaces share a searcher.

    Searchers are compared on spaces that all of them were run on. Of all such choices of searchers and spaces, the
    table has the one with the most searchers times spaces.
    """
    chosen, spaces = _largest_block(tables)
    if len(spaces) < 2:
        return None
    by_name = [_by_name(table) for table in spaces]
    confirmed = np.array([[standings[name].confirmed.value for name in chosen] for standings in by_name])
    means = [stats.mean_interval(column) for column in confirmed.T]
    ranks = stats.average_ranks([[mean.value for mean in means]])
    order = sorted(range(len(chosen)), key=lambda i: (ranks[i], chosen[i]))
    average = stats.average_ranks(confirmed)
    everyone = sorted({standing.searcher for table in tables for standing in table.standings})
    return OverallTable(
        protocol=spaces[0].protocol,
        tables=tuple(spaces),
        standings=tuple(
            OverallStanding(
                float(ranks[i]),
                chosen[i],
                means[i],
                float(average[i]),
                tuple(standings[chosen[i]] for standings in by_name),
            )
            for i in order
        ),
        ranks=stats.rank_searchers(confirmed[:, order]),
        left_out=(
            *(name for name in everyone if name not in chosen),
            *(table.name for table in tables if table.space not in {kept.space for kept in spaces}),
        ),
    )


def references(boards: Sequence[Board], rows: Sequence[Row]) -> list[ReferenceLine]:
    """Reference tasks of the rows' space, from the first log beside the boards that has confirmed them.

    They are confirmed with the engine and the number of replicates of the rows. The list is empty if no log has them.
    """
    logs = list(dict.fromkeys(board.log for board in boards if board.log is not None))
    if not logs:
        return []
    tags = list(dict.fromkeys(engine_tag(row.engine, row.device, row.engine_detail, row.sealed) for row in rows))
    for log in logs:
        with Store(log, read_only=True) as store:
            if not store.has_space(rows[0].space):
                continue
            for tag in tags:
                scores = reference_scores(store, rows[0].space, tag, rows[0].confirm)
                if scores:
                    return [ReferenceLine(s.task.name, s.task.kind, s.mean, s.se) for s in scores]
    return []


def engine_of(row: Row) -> str:
    """The engine that computed a row, such as ``batched on cpu``."""
    return f"{row.engine} on {row.device}"


def _failed(row: Row) -> bool:
    return row.status != "ok" or not math.isfinite(row.confirmed)


def _standing(searcher: str, runs: list[CountedRun]) -> Standing:
    finished = [run for run in runs if not run.failed]
    *earlier, _ = zip(*(run.checkpoints for run in runs), strict=True)
    confirmed = stats.iqm_interval([run.confirmed for run in runs])
    return Standing(
        rank=math.nan,
        searcher=searcher,
        versions=tuple(dict.fromkeys(run.row.searcher_version for run in runs)),
        sees_images=any(run.row.sees_images for run in runs),
        runs=tuple(runs),
        confirmed=confirmed,
        checkpoints=(*(_or_nan(stats.iqm_interval, values) for values in earlier), confirmed),
        anytime=_or_nan(stats.iqm_interval, [run.anytime for run in runs]),
        told=stats.iqm([run.row.told for run in finished]),
        optimism=stats.iqm([run.row.told - run.confirmed for run in finished]),
        failures=dict(Counter(run.row.status for run in runs if run.failed)),
        distinct=float(np.median([run.row.distinct for run in runs])),
    )


def _or_nan(estimate: Callable[[Sequence[float]], Estimate], values: Sequence[float]) -> Estimate:
    """The estimate from these values; NaN if one of them is NaN."""
    if any(math.isnan(value) for value in values):
        return Estimate(math.nan, math.nan, math.nan, len(values))
    return estimate(values)


def _notes(ranked: Sequence[Standing], failure: float, superseded: int) -> Iterable[str]:
    fewest = min(len(s.runs) for s in ranked)
    if fewest < FEW_SEEDS:
        yield f"fewer than {FEW_SEEDS} seeds ({fewest}): the order says little"
    seeds = {tuple(run.row.seed for run in s.runs) for s in ranked}
    if len(seeds) > 1:
        yield "the searchers were not run with the same seeds"
    if failed := sum(s.failed for s in ranked):
        yield f"{failed} failed run(s) count as taskness {failure:.3g}"
    rows = [run.row for s in ranked for run in s.runs]
    for what, values in {
        "engines": {engine_of(row) for row in rows},
        "hardware": {row.hardware for row in rows},
        "versions": {row.versions for row in rows},
    }.items():
        if len(values) > 1:
            listed = ": " + "; ".join(sorted(values)) if what != "versions" else ""
            yield f"runs of {len(values)} different {what}{listed}"
    if superseded:
        yield f"{superseded} earlier run(s) of the same settings are left out: the latest counts"
    if never := [_never_evaluated(s) for s in ranked if any(run.row.never_evaluated for run in s.runs)]:
        yield f"recommended a labeling that the run never evaluated: {', '.join(never)}"
    if looking := [s.searcher for s in ranked if s.sees_images]:
        yield f"looks at the images: {', '.join(looking)}"


def _never_evaluated(standing: Standing) -> str:
    return (
        f"{standing.searcher} in {sum(run.row.never_evaluated for run in standing.runs)} of {len(standing.runs)} runs"
    )


def _summarize(lines: Sequence[ReferenceLine]) -> tuple[ReferenceLine, ...]:
    summary = []
    for kind, what in (("random", "random labelings"), ("class", "class tasks"), ("pixel", "pixel statistics")):
        members = [line for line in lines if line.kind == kind]
        if members:
            mean = float(np.mean([line.mean for line in members]))
            best = max(members, key=lambda line: line.mean)
            # All tasks are confirmed on the same replicates, so their errors are not independent and cannot be pooled.
            summary.append(ReferenceLine(f"{what}, mean of {len(members)}", kind, mean, math.nan))
            summary.append(ReferenceLine(f"{what}, best: {best.name}", kind, best.mean, best.se))
    return tuple(summary)


def _largest_block(tables: Sequence[SpaceTable]) -> tuple[list[str], list[SpaceTable]]:
    best: tuple[list[str], list[SpaceTable]] = ([], [])
    names = [frozenset(s.searcher for s in table.standings) for table in tables]
    candidates = {a & b for a in names for b in names} - {frozenset()}
    for candidate in sorted(candidates, key=sorted):
        spaces = [table for table, present in zip(tables, names, strict=True) if candidate <= present]
        if len(spaces) > 1 and len(candidate) * len(spaces) > len(best[0]) * len(best[1]):
            best = (sorted(candidate), spaces)
    return best


def _by_name(table: SpaceTable) -> dict[str, Standing]:
    return {standing.searcher: standing for standing in table.standings}


def _in_reading_order(groups: dict[Group, list[Row]]) -> list[tuple[Group, list[Row]]]:
    def order(item: tuple[Group, list[Row]]) -> tuple[object, ...]:
        row = item[1][0]
        return (row.data, row.n, row.ratio, row.space_seed, row.space, astuple(item[0][1]))

    return sorted(groups.items(), key=order)
