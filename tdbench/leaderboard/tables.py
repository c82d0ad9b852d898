"""Standings and comparisons as tables for people. `tdbench.leaderboard.records` has them for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tdbench.base.stats import Estimate
from tdbench.base.table import Table, number
from tdbench.leaderboard.compare import Compared, Comparison, ComparisonTable, OverSpaces
from tdbench.leaderboard.standings import CountedRun, OverallTable, SpaceTable, Standing, Standings


def with_interval(estimate: Estimate, digits: int = 3) -> str:
    """``0.412 [0.350, 0.470]``, with a dash for an unknown value or interval."""
    if not estimate.has_interval:
        return f"{number(estimate.value, digits)} [-]" if math.isfinite(estimate.value) else "-"
    return f"{number(estimate.value, digits)} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def p_value(p: float) -> str:
    """Three digits, or ``<0.001``."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


# --- standings


def standings_tables(result: Standings, *, seeds: bool = False, threshold: float | None = None) -> list[Table]:
    """The tables of every space, and those over spaces.

    Args:
        seeds: add the confirmed taskness of every seed.
        threshold: T_task; add how many labelings of libraries are above it.
    """
    tables = []
    for table in result.tables:
        tables.append(_discoverers(table, threshold) if table.protocol.tasks else _ranking(table))
        if table.references:
            tables.append(_references(table))
        if len(table.standings) > 1:
            tables.append(_improvement(table))
        if seeds:
            tables.append(_seeds(table))
    return [*tables, *map(_overall, result.overall)]


def bench_table(tables: Sequence[SpaceTable]) -> Table:
    """One short line for each searcher and space, which `tdbench bench` prints at its end."""
    return Table(
        "",
        ("space", "searcher", "runs", "told", "confirmed", "failed"),
        tuple(
            (
                table.name,
                standing.searcher,
                str(len(standing.runs)),
                number(standing.told),
                number(standing.confirmed.value),
                str(standing.failed),
            )
            for table in tables
            for standing in table.standings
        ),
        text=(0, 1),
    )


def _ranking(table: SpaceTable) -> Table:
    return Table(
        f"{table.name}: {table.protocol}",
        ("searcher", "rank", "confirmed [95%]", "told", "optimism", "anytime", "distinct", "runs"),
        tuple(map(_ranking_row, table.standings)),
        (
            "confirmed: interquartile mean over seeds, with its interval over seeds; distinct: different labelings "
            "evaluated, median over seeds",
            *table.notes,
        ),
    )


def _ranking_row(standing: Standing) -> tuple[str, ...]:
    return (
        standing.searcher,
        f"{standing.rank:g}",
        with_interval(standing.confirmed),
        number(standing.told),
        number(standing.optimism),
        number(standing.anytime.value),
        f"{standing.distinct:.0f}",
        str(len(standing.runs)) + (f" ({standing.failed} failed)" if standing.failed else ""),
    )


def _discoverers(table: SpaceTable, threshold: float | None) -> Table:
    """The ranking of runs that discover several labelings."""
    tasks = table.protocol.tasks
    places = sorted({1, *(round(tasks * share) for share in (0.25, 0.5, 0.75)), tasks} - {0})
    return Table(
        f"{table.name}: {table.protocol}",
        (
            *("searcher", "rank", "confirmed QD [95%]", "told QD", "optimism"),
            *(f"best {k}" for k in places),
            "labelings",
            *([] if threshold is None else [f"above {threshold:g}"]),
            *("effective", "recalled", "by chance", "runs"),
        ),
        tuple(
            (
                standing.searcher,
                f"{standing.rank:g}",
                with_interval(standing.confirmed),
                number(standing.told),
                number(standing.optimism),
                *(number(standing.library.confirmed_at(k)) for k in places),
                f"{standing.library.members:g}",
                *([] if threshold is None else [number(standing.library.tasks_above(threshold), 1)]),
                number(standing.library.effective_number, 1),
                number(standing.library.recalled, 1),
                number(standing.library.recalled_by_chance, 2),
                str(len(standing.runs)) + (f" ({standing.failed} failed)" if standing.failed else ""),
            )
            for standing in table.standings
        ),
        (
            f"QD: (1/{tasks}) x the sum of max(0, taskness) over a library's labelings; its interval is over seeds",
            "best k: confirmed taskness of the k-th best labeling; effective: how many different labelings they are "
            "worth (Vendi score); recalled: reference tasks that were found again (all: means over seeds)",
            *table.notes,
        ),
    )


def _references(table: SpaceTable) -> Table:
    lines = tuple((line.name, number(line.mean)) for line in table.reference_summary)
    title = f"Reference lines, confirmed: {len(table.references)} labelings that no searcher is told of"
    return Table(title, ("labelings", "confirmed"), lines)


def _improvement(table: SpaceTable) -> Table:
    names = [standing.searcher for standing in table.standings]
    rows = tuple(
        (name, *("" if i == j else number(cell.value, 2) for j, cell in enumerate(line)))
        for i, (name, line) in enumerate(zip(names, table.improvement, strict=True))
    )
    return Table("Probability that a run of the row confirms higher than a run of the column", ("", *names), rows)


def _seeds(table: SpaceTable) -> Table:
    seeds = sorted({run.row.seed for standing in table.standings for run in standing.runs})
    rows = []
    for standing in table.standings:
        by_seed = {run.row.seed: run for run in standing.runs}
        rows.append((standing.searcher, *(_seed_cell(by_seed.get(seed)) for seed in seeds)))
    return Table("Confirmed taskness of every seed", ("searcher", *map(str, seeds)), tuple(rows))


def _seed_cell(run: CountedRun | None) -> str:
    return "" if run is None else run.row.status if run.failed else number(run.confirmed)


def _overall(table: OverallTable) -> Table:
    return Table(
        f"Over {len(table.spaces)} spaces: {table.protocol}",
        ("searcher", "rank", "mean confirmed [95%]", "told", "optimism", "average rank", "distinct"),
        tuple(
            (
                standing.searcher,
                f"{standing.rank:g}",
                with_interval(standing.confirmed),
                number(standing.told),
                number(standing.optimism),
                f"{standing.average_rank:.2f}",
                f"{standing.distinct:.0f}",
            )
            for standing in table.standings
        ),
        tuple(_overall_notes(table)),
    )


def _overall_notes(table: OverallTable) -> list[str]:
    notes = [f"the interval is over spaces: {', '.join(table.spaces)}"]
    if table.ranks is None:
        notes.append("no critical difference: it takes at least 3 searchers and 5 spaces")
    else:
        notes.append(
            f"Friedman p: {p_value(table.ranks.friedman_p)} (Iman-Davenport: {p_value(table.ranks.iman_davenport_p)}); "
            f"average ranks less than {table.ranks.critical_difference:.2f} apart cannot be told apart (Nemenyi, 5%)"
        )
    if sees := [s.searcher for s in table.standings if s.sees_images]:
        notes.append(f"looks at the images: {', '.join(sees)}")
    if table.left_out:
        notes.append(f"left out, not run on all of these: {', '.join(table.left_out)}")
    return notes


# --- comparisons


def comparison_tables(result: Compared) -> list[Table]:
    """A table for each space, and one over spaces if there are several."""
    tables = [_comparisons(table) for table in result.tables]
    return [*tables, _over_spaces(result.over_spaces)] if result.over_spaces else tables


def _comparisons(table: ComparisonTable) -> Table:
    notes = [f"warning: {warning}" for warning in table.warnings]
    if not table.comparisons:
        notes.append("nothing to compare: there is one searcher")
    return Table(
        f"{table.name}: {table.protocol}",
        (
            *("A", "B", "A is", "runs", "confirmed A", "confirmed B"),
            *("A - B [95%]", "P(A > B) [95%]", "test", "p (Holm)", "detectable"),
        ),
        tuple(map(_comparison_row, table.comparisons)),
        tuple(notes),
        text=(0, 1, 2),
    )


def _comparison_row(comparison: Comparison) -> tuple[str, ...]:
    a, b = comparison.a, comparison.b
    return (
        str(a),
        str(b),
        comparison.verdict,
        f"{len(a.runs)}/{len(b.runs)}",
        number(a.confirmed),
        number(b.confirmed),
        with_interval(comparison.difference),
        with_interval(comparison.improvement, 2),
        comparison.test.name,
        p_value(comparison.p_holm),
        "none" if math.isinf(comparison.detectable) else number(comparison.detectable),
    )


def _over_spaces(pairs: Sequence[OverSpaces]) -> Table:
    rows = tuple((o.a, o.b, with_interval(o.difference), f"{o.higher_in} of {o.difference.n}") for o in pairs)
    columns = ("A", "B", "mean A - B [95% over spaces]", "A above B in")
    return Table("Over spaces", columns, rows, text=(0, 1))
