"""Standings and comparisons as plain values for programs: a flat record for each line of a CSV, one document for JSON.

Numbers are not rounded; unknown numbers are NaN. `tdbench.leaderboard.tables` makes the tables for people.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from typing import Any

from tdbench.base.stats import Estimate
from tdbench.leaderboard.compare import Compared, Comparison, Side
from tdbench.leaderboard.standings import CountedRun, OverallTable, SpaceTable, Standing, Standings
from tdbench.space.settings import SPACE_COLUMNS
from tdbench.store.rows import CHECKPOINTS, checkpoint_column

Record = dict[str, Any]


# --- standings


def standing_records(result: Standings) -> list[Record]:
    """A record for each searcher of each space; all have the same keys."""
    shown = {name for table in result.tables for name in table.protocol.record()}
    return [_flat_standing(table, standing, shown) for table in result.tables for standing in table.standings]


def standings_document(result: Standings) -> Record:
    """Everything: every space with every run, and the results over spaces."""
    return {
        "tables": [_space_document(table) for table in result.tables],
        "overall": [_overall_document(table) for table in result.overall],
    }


def bench_records(tables: Sequence[SpaceTable]) -> list[Record]:
    """A short record for each searcher and space."""
    return [
        {
            "space": table.name,
            "searcher": standing.searcher,
            "runs": len(standing.runs),
            "told": standing.told,
            "confirmed": standing.confirmed.value,
            "failed": standing.failed,
        }
        for table in tables
        for standing in table.standings
    ]


def _flat_standing(table: SpaceTable, standing: Standing, shown: Set[str]) -> Record:
    earlier = map(checkpoint_column, CHECKPOINTS[:-1])
    return {
        "space": table.space,
        "name": table.name,
        **{name: value for name, value in dataclasses.asdict(table.protocol).items() if name in shown},
        "rank": standing.rank,
        "searcher": standing.searcher,
        "searcher_version": "|".join(standing.versions),
        "sees_images": standing.sees_images,
        **_flat_estimate("confirmed", standing.confirmed),
        "told": standing.told,
        "optimism": standing.optimism,
        **_flat_estimate("anytime", standing.anytime),
        **{column: estimate.value for column, estimate in zip(earlier, standing.checkpoints, strict=False)},
        "runs": len(standing.runs),
        "failed": standing.failed,
        "distinct": standing.distinct,
        **(_library(standing) if "tasks" in shown else {}),
        "values": " ".join(f"{run.row.seed}:{run.confirmed!r}" for run in standing.runs),
    }


def _library(standing: Standing) -> Record:
    library = standing.library
    return {
        "members": library.members,
        "confirmed_by_rank": "|".join(f"{value:.6g}" for value in library.confirmed),
        "effective_number": library.effective_number,
        "recalled": library.recalled,
        "recalled_by_chance": library.recalled_by_chance,
    }


def _flat_estimate(name: str, estimate: Estimate) -> Record:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _space_document(table: SpaceTable) -> Record:
    names = [standing.searcher for standing in table.standings]
    return {
        "space": table.space,
        "name": table.name,
        "settings": {column: getattr(table.settings, column) for column in SPACE_COLUMNS},
        "protocol": table.protocol.record(),
        "failure_score": table.failure_score,
        "notes": table.notes,
        "references": [dataclasses.asdict(line) for line in table.references],
        "standings": [_standing_document(standing) for standing in table.standings],
        "improvement": {
            a: {b: dataclasses.asdict(cell) for b, cell in zip(names, line, strict=True)}
            for a, line in zip(names, table.improvement, strict=True)
        },
    }


def _standing_document(standing: Standing) -> Record:
    return {
        "rank": standing.rank,
        "searcher": standing.searcher,
        "versions": standing.versions,
        "sees_images": standing.sees_images,
        "confirmed": dataclasses.asdict(standing.confirmed),
        "checkpoints": {
            f"{share * 100:.0f}": dataclasses.asdict(estimate)
            for share, estimate in zip(CHECKPOINTS, standing.checkpoints, strict=True)
        },
        "anytime": dataclasses.asdict(standing.anytime),
        "told": standing.told,
        "optimism": standing.optimism,
        "distinct": standing.distinct,
        "failures": standing.failures,
        **({"library": _library(standing)} if standing.runs[0].row.tasks else {}),
        "runs": [_run_document(run) for run in standing.runs],
    }


def _run_document(run: CountedRun) -> Record:
    return {
        "run": run.row.run,
        "seed": run.row.seed,
        "status": run.row.status,
        "error": run.row.error,
        "confirmed": run.confirmed,
        "told": run.row.told,
        "anytime": run.anytime,
        "distinct": run.row.distinct,
    }


def _overall_document(table: OverallTable) -> Record:
    return {
        "protocol": table.protocol.record(),
        "spaces": table.spaces,
        "standings": [
            {
                "rank": standing.rank,
                "searcher": standing.searcher,
                "sees_images": standing.sees_images,
                "confirmed": dataclasses.asdict(standing.confirmed),
                "average_rank": standing.average_rank,
                "scores": standing.confirmed_in_spaces,
                "told": standing.told,
                "optimism": standing.optimism,
                "distinct": standing.distinct,
            }
            for standing in table.standings
        ],
        "ranks": None if table.ranks is None else dataclasses.asdict(table.ranks),
        "left_out": table.left_out,
    }


# --- comparisons


def comparison_records(result: Compared) -> list[Record]:
    """A record for each comparison of each space."""
    return [
        {"space": table.name, "protocol": table.protocol, **_comparison(comparison)}
        for table in result.tables
        for comparison in table.comparisons
    ]


def comparisons_document(result: Compared) -> Record:
    """Everything: the comparisons and warnings of every space, and the differences over spaces."""
    return {
        "tables": [
            {
                "space": table.name,
                "protocol": table.protocol,
                "warnings": table.warnings,
                "comparisons": [_comparison(comparison) for comparison in table.comparisons],
            }
            for table in result.tables
        ],
        "over_spaces": [dataclasses.asdict(pair) for pair in result.over_spaces],
        "warnings": result.warnings,
    }


def _comparison(comparison: Comparison) -> Record:
    return {
        **_side("a", comparison.a),
        **_side("b", comparison.b),
        "verdict": comparison.verdict,
        **_flat_estimate("difference", comparison.difference),
        **_flat_estimate("improvement", comparison.improvement),
        "test": comparison.test.name,
        "p": comparison.test.p,
        "p_holm": comparison.p_holm,
        "smallest_p": comparison.test.smallest_p,
        "detectable": comparison.detectable,
    }


def _side(name: str, side: Side) -> Record:
    return {
        f"{name}_board": side.board,
        f"{name}_searcher": side.searcher,
        f"{name}_runs": len(side.runs),
        f"{name}_confirmed": side.confirmed,
    }
