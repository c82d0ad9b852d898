"""`tdbench leaderboard`, `compare` and `export`: what the results say, against each other, and for other tools."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tdbench.cli.tables import (
    Section,
    number,
    p_value,
    plain,
    print_csv,
    print_markdown,
    print_terminal,
    with_interval,
)
from tdbench.settings import DEFAULT_OUT
from tdbench.store.rows import CHECKPOINTS

if TYPE_CHECKING:
    from tdbench.base.stats import Estimate
    from tdbench.leaderboard.compare import Compared, Comparison, ComparisonTable, Side
    from tdbench.leaderboard.standings import OverallTable, SpaceTable, Standing, Standings

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("table", "csv", "md", "json")

_PATH: click.Path = click.Path(path_type=Path)


def _format_option(function: F) -> F:
    return click.option(
        "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print it."
    )(function)


# --- leaderboard


@click.command()
@click.argument("paths", nargs=-1, type=_PATH)
@click.option(
    "--out", type=_PATH, help=f"Output folder of run or bench, read where no PATHS are given [default: {DEFAULT_OUT}]."
)
@click.option("--seeds", is_flag=True, help="Show the confirmed taskness of every seed (csv and json always have it).")
@_format_option
def leaderboard(paths: tuple[Path, ...], out: Path | None, seeds: bool, form: str) -> None:
    """Rank searchers by confirmed taskness, per space and over spaces.

    PATHS are leaderboard CSVs, output folders, or folders of leaderboard CSVs.
    """
    from tdbench.leaderboard.standings import load_boards, standings

    if paths and out is not None:
        raise click.UsageError("give PATHS or --out, not both")
    result = standings(load_boards(paths or (out or Path(DEFAULT_OUT),)))
    if form == "json":
        click.echo(json.dumps(plain(_standings_record(result)), indent=2))
    elif form == "csv":
        records = [_standing_record(table, standing) for table in result.tables for standing in table.standings]
        print_csv(records, tuple(records[0]))
    else:
        sections = [section for table in result.tables for section in _space_sections(table, seeds)]
        sections += [_overall_section(table) for table in result.overall]
        (print_terminal if form == "table" else print_markdown)(sections)


def _space_sections(table: SpaceTable, seeds: bool) -> list[Section]:
    ranked = Section(
        f"{table.name}: {table.protocol}",
        ("searcher", "rank", "confirmed [95%]", "told", "optimism", "anytime", "distinct", "runs"),
        tuple(
            (
                standing.searcher,
                f"{standing.rank:g}",
                with_interval(standing.confirmed),
                number(standing.told),
                number(standing.optimism),
                number(standing.anytime.value),
                f"{standing.distinct:.0f}",
                str(len(standing.runs)) + (f" ({standing.failed} failed)" if standing.failed else ""),
            )
            for standing in table.standings
        ),
        (
            "confirmed: interquartile mean over seeds, with its interval over seeds; distinct: different labelings "
            "evaluated, median over seeds",
            *table.notes,
        ),
    )
    sections = [ranked]
    if table.references:
        lines = tuple((line.name, number(line.mean)) for line in table.reference_summary)
        sections.append(
            Section("Reference lines, confirmed; no searcher is told of them", ("labelings", "confirmed"), lines)
        )
    names = [standing.searcher for standing in table.standings]
    if len(names) > 1:
        rows = tuple(
            (name, *("" if i == j else number(cell.value, 2) for j, cell in enumerate(line)))
            for i, (name, line) in enumerate(zip(names, table.improvement, strict=True))
        )
        title = "Probability that a run of the row confirms higher than a run of the column"
        sections.append(Section(title, ("", *names), rows))
    if seeds:
        all_seeds = sorted({run.row.seed for standing in table.standings for run in standing.runs})
        by_seed = [{run.row.seed: run for run in standing.runs} for standing in table.standings]
        rows = tuple(
            (name, *(_seed_cell(runs.get(seed)) for seed in all_seeds))
            for name, runs in zip(names, by_seed, strict=True)
        )
        sections.append(Section("Confirmed taskness of every seed", ("searcher", *map(str, all_seeds)), rows))
    return sections


def _seed_cell(run: Any) -> str:
    return "" if run is None else run.row.status if run.failed else number(run.confirmed)


def _overall_section(table: OverallTable) -> Section:
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
    return Section(
        f"Over {len(table.spaces)} spaces: {table.protocol}",
        ("searcher", "rank", "mean confirmed [95%]", "told", "optimism", "average rank", "distinct"),
        tuple(
            (
                s.searcher,
                f"{s.rank:g}",
                with_interval(s.confirmed),
                number(s.told),
                number(s.optimism),
                f"{s.average_rank:.2f}",
                f"{s.distinct:.0f}",
            )
            for s in table.standings
        ),
        tuple(notes),
    )


def _standing_record(table: SpaceTable, standing: Standing) -> dict[str, Any]:
    """One line of the CSV."""
    record: dict[str, Any] = {
        "space": table.space,
        "name": table.name,
        **dataclasses.asdict(table.protocol),
        "rank": standing.rank,
        "searcher": standing.searcher,
        "searcher_version": "|".join(standing.versions),
        "sees_images": standing.sees_images,
        **_columns("confirmed", standing.confirmed),
        "told": standing.told,
        "optimism": standing.optimism,
        **_columns("anytime", standing.anytime),
    }
    for share, estimate in zip(CHECKPOINTS[:-1], standing.checkpoints, strict=False):
        record[f"confirmed_{share * 100:.0f}"] = estimate.value
    return {
        **record,
        "runs": len(standing.runs),
        "failed": standing.failed,
        "distinct": standing.distinct,
        "values": " ".join(f"{run.row.seed}:{run.confirmed!r}" for run in standing.runs),
    }


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _standings_record(result: Standings) -> dict[str, Any]:
    return {
        "tables": [_table_record(table) for table in result.tables],
        "overall": [_overall_record(table) for table in result.overall],
    }


def _overall_record(table: OverallTable) -> dict[str, Any]:
    return {
        "protocol": dataclasses.asdict(table.protocol),
        "spaces": table.spaces,
        "standings": [
            {
                "rank": standing.rank,
                "searcher": standing.searcher,
                "sees_images": standing.sees_images,
                "confirmed": dataclasses.asdict(standing.confirmed),
                "average_rank": standing.average_rank,
                "scores": standing.scores,
                "told": standing.told,
                "optimism": standing.optimism,
                "distinct": standing.distinct,
            }
            for standing in table.standings
        ],
        "ranks": None if table.ranks is None else dataclasses.asdict(table.ranks),
        "left_out": table.left_out,
    }


def _table_record(table: SpaceTable) -> dict[str, Any]:
    names = [standing.searcher for standing in table.standings]
    row = table.settings
    return {
        "space": table.space,
        "name": table.name,
        "settings": {
            f: getattr(row, f) for f in ("data", "classes", "n", "ratio", "space_seed", "split", "steps", "lr")
        },
        "protocol": dataclasses.asdict(table.protocol),
        "failure_score": table.failure_score,
        "notes": table.notes,
        "references": [dataclasses.asdict(line) for line in table.references],
        "standings": [
            {
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
                "runs": [
                    {
                        "run": run.row.run,
                        "seed": run.row.seed,
                        "status": run.row.status,
                        "error": run.row.error,
                        "confirmed": run.confirmed,
                        "told": run.row.told,
                        "anytime": run.anytime,
                        "distinct": run.row.distinct,
                    }
                    for run in standing.runs
                ],
            }
            for standing in table.standings
        ],
        "improvement": {
            a: {b: dataclasses.asdict(cell) for b, cell in zip(names, line, strict=True)}
            for a, line in zip(names, table.improvement, strict=True)
        },
    }


# --- compare


@click.command()
@click.argument("paths", nargs=-1, type=_PATH, required=True, metavar="A.csv [B.csv ...]")
@click.option("--force", is_flag=True, help="Compare different spaces, budgets or protocols as well, with a warning.")
@_format_option
def compare(paths: tuple[Path, ...], force: bool, form: str) -> None:
    """Compare leaderboards: differences, what is more than chance, and what could have been seen.

    A.csv and B.csv are leaderboard CSVs or output folders. A searcher that both have is compared with itself, one that
    only one has with every searcher of the other. A single path has its own searchers compared.
    """
    from tdbench.leaderboard.compare import compare as compare_boards
    from tdbench.leaderboard.standings import load_boards

    result = compare_boards(load_boards(paths), force=force)
    if form == "json":
        click.echo(json.dumps(plain(_compared_record(result)), indent=2))
        return
    if form == "csv":
        records = [
            {"space": t.name, "protocol": t.protocol, **_comparison_record(c)}
            for t in result.tables
            for c in t.comparisons
        ]
        if records:
            print_csv(records, tuple(records[0]))
        for warning in (*result.warnings, *itertools.chain.from_iterable(t.warnings for t in result.tables)):
            click.echo(f"warning: {warning}", err=True)
        return
    sections = [_comparison_section(table) for table in result.tables]
    if result.over_spaces:
        sections.append(_over_spaces_section(result))
    warnings = [f"warning: {warning}" for warning in result.warnings]
    (print_terminal if form == "table" else print_markdown)(sections, warnings)


def _comparison_section(table: ComparisonTable) -> Section:
    rows = tuple(
        (
            str(c.a),
            str(c.b),
            c.verdict,
            f"{len(c.a.runs)}/{len(c.b.runs)}",
            number(c.a.score),
            number(c.b.score),
            with_interval(c.difference),
            with_interval(c.improvement, 2),
            c.test.name,
            p_value(c.p_holm),
            _detectable(c),
        )
        for c in table.comparisons
    )
    columns = (
        "A",
        "B",
        "A is",
        "runs",
        "confirmed A",
        "confirmed B",
        "A - B [95%]",
        "P(A > B) [95%]",
        "test",
        "p (Holm)",
        "detectable",
    )
    notes = [f"warning: {warning}" for warning in table.warnings]
    if not rows:
        notes.append("nothing to compare: there is one searcher")
    return Section(f"{table.name}: {table.protocol}", columns, rows, tuple(notes), text_columns=3)


def _detectable(comparison: Comparison) -> str:
    return "none" if math.isinf(comparison.detectable) else number(comparison.detectable)


def _over_spaces_section(result: Compared) -> Section:
    rows = tuple(
        (o.a, o.b, with_interval(o.difference), f"{o.higher_in} of {o.difference.n}") for o in result.over_spaces
    )
    columns = ("A", "B", "mean A - B [95% over spaces]", "A above B in")
    return Section("Over spaces", columns, rows, text_columns=2)


def _comparison_record(c: Comparison) -> dict[str, Any]:
    return {
        **_side_record("a", c.a),
        **_side_record("b", c.b),
        "verdict": c.verdict,
        **_columns("difference", c.difference),
        **_columns("improvement", c.improvement),
        "test": c.test.name,
        "p": c.test.p,
        "p_holm": c.p_holm,
        "smallest_p": c.test.smallest_p,
        "detectable": c.detectable,
    }


def _side_record(side: str, of: Side) -> dict[str, Any]:
    return {
        f"{side}_board": of.board,
        f"{side}_searcher": of.searcher,
        f"{side}_runs": len(of.runs),
        f"{side}_confirmed": of.score,
    }


def _compared_record(result: Compared) -> dict[str, Any]:
    return {
        "tables": [
            {
                "space": table.name,
                "protocol": table.protocol,
                "warnings": table.warnings,
                "comparisons": [_comparison_record(c) for c in table.comparisons],
            }
            for table in result.tables
        ],
        "over_spaces": [dataclasses.asdict(o) for o in result.over_spaces],
        "warnings": result.warnings,
    }


# --- export


@click.command()
@click.option("--format", "form", type=click.Choice(("ioh", "parquet", "optuna")), required=True, help="What to write.")
@click.option("--out", type=_PATH, default=DEFAULT_OUT, show_default=True, help="Output folder of run or bench.")
@click.option("--to", type=_PATH, required=True, help="A folder for ioh and parquet, a file for optuna.")
@click.option("--force", is_flag=True, help="Replace an earlier export there.")
def export(form: str, out: Path, to: Path, force: bool) -> None:
    """Write the evaluation log for IOHanalyzer (ioh), data frames (parquet) or Optuna's dashboard (optuna)."""
    from tdbench.export.export import export as write

    written = write(out, to, form, force=force)
    for note in written.notes:
        click.echo(f"note: {note}", err=True)
    _echo_files(written.files)


def _echo_files(files: Sequence[Path]) -> None:
    for file in files:
        click.echo(f"wrote {file}")
