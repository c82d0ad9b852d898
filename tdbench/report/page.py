"""The report: one HTML page of everything in an output folder, and its main figures as PNG files."""

from __future__ import annotations

import base64
import datetime
import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from tdbench.base import environment
from tdbench.base.files import write_bytes
from tdbench.leaderboard.boards import PROTOCOL_FIELDS, RunProtocol
from tdbench.leaderboard.standings import OverallTable, SpaceTable, Standings
from tdbench.report import charts, libraries, transfer
from tdbench.report.charts import Chart
from tdbench.report.figures import groups_of, overall_charts, space_charts, strips
from tdbench.report.pictures import SPRITE_COLUMNS, figure_bytes, sprite, strips_figure
from tdbench.report.results import SpaceLog, read_results, runs_of
from tdbench.report.tables import count, found_tasks, library_tasks, matrix, ranking, settings_of
from tdbench.store.library import TaskLibrary
from tdbench.store.rows import CHECKPOINTS, Row
from tdbench.transfers.result import TransferResult

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(out: Path, to: Path | None = None) -> Path:
    """Write the report of an output folder, by default into it. Returns its path.

    Raises:
        UserError: there are no results, or the page cannot be written.
    """
    ranked, logs = read_results(out)
    path = out / "report.html" if to is None else to
    write_bytes(path, page(ranked, logs, transfer.read_transfer(out)).encode())
    return path


def write_figures(out: Path, folder: Path, kinds: Sequence[str] = ("png",)) -> list[Path]:
    """Write the main figures of every space, and over spaces, as files of these kinds. Returns their paths.

    Args:
        kinds: some of `pictures.KINDS`.

    Raises:
        UserError: there are no results, or a file cannot be written.
    """
    ranked, logs = read_results(out)
    colours = _colours(ranked)
    written = []
    for table, log in zip(ranked.tables, logs, strict=True):
        figures = {name: chart.figure for name, chart in space_charts(table, log, colours).items()}
        if log.pixels is not None and log.labels:
            figures["found"] = strips_figure(strips(table, log, log.pixels))
        figures |= {name: chart.figure for name, chart in _library_charts(table, log, colours).items()}
        if log.pixels is not None and log.libraries:
            best = _best_library(table, log)
            title = f"{best.searchers[0]} on {_space_title(table.settings)}"
            figures["tasks"] = libraries.tasks_figure(best, log.pixels, title)
        written += _write(folder, f"{table.name}-{_stem(table.protocol, ranked)}", figures, kinds)
    for overall in ranked.overall:
        figures = {name: chart.figure for name, chart in overall_charts(overall, colours).items()}
        written += _write(folder, f"{len(overall.tables)}-spaces-{_stem(overall.protocol, ranked)}", figures, kinds)
    return written


def _stem(protocol: RunProtocol, ranked: Standings) -> str:
    """The budget, and what else distinguishes this protocol from the others, for the name of a file."""
    others = [f"{name}-{value}" for name, value in _differing(protocol, ranked) if name != "budget"]
    return "-".join([f"b{protocol.budget}", *others])


def _suffix(protocol: RunProtocol, ranked: Standings) -> str:
    """What distinguishes this protocol from the others, for a title; empty if there is only one."""
    return "".join(f", {name} {value}" for name, value in _differing(protocol, ranked))


def _differing(protocol: RunProtocol, ranked: Standings) -> list[tuple[str, Any]]:
    """The settings in which the protocols of these tables differ, with the values of this protocol."""
    values = [(name, getattr(protocol, name)) for name in PROTOCOL_FIELDS]
    return [(name, v or "no") for name, v in values if any(getattr(t.protocol, name) != v for t in ranked.tables)]


def _write(folder: Path, stem: str, figures: dict[str, Figure], kinds: Sequence[str]) -> list[Path]:
    written = []
    for name, figure in figures.items():
        for kind in kinds:
            written.append(folder / re.sub(r"[^A-Za-z0-9.-]+", "-", f"{stem}-{name}.{kind}"))
            write_bytes(written[-1], figure_bytes(figure, kind))
    return written


def page(ranked: Standings, logs: Sequence[SpaceLog], transferred: TransferResult | None = None) -> str:
    """The whole HTML page; one log for each of the tables, and a transfer where there is one."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    jinja.filters.update(rounded=_rounded, exact=_exact)
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    colours = _colours(ranked)
    sections = [
        _section(table, log, f"space-{i}", _suffix(table.protocol, ranked), colours)
        for i, (table, log) in enumerate(zip(ranked.tables, logs, strict=True), start=1)
    ]
    overall = [
        _overall(table, f"overall-{i}", _suffix(table.protocol, ranked), colours)
        for i, table in enumerate(ranked.overall, start=1)
    ]
    return jinja.get_template("report.html").render(
        title=_page_title(ranked),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=environment.version("tdbench"),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sections=sections,
        overall=overall,
        transfer=None if transferred is None else transfer.section(transferred),
        columns=SPRITE_COLUMNS,
        earlier=[f"{100 * share:.0f} %" for share in CHECKPOINTS[:-1]],
    )


def _colours(ranked: Standings) -> dict[str, int]:
    return {name: i for i, name in enumerate(sorted({s.searcher for t in ranked.tables for s in t.standings}))}


def _space_title(row: Row) -> str:
    return f"{row.data}, N = {row.n}, 1:{row.ratio}, space seed {row.space_seed}"


def _page_title(ranked: Standings) -> str:
    runs = sum(len(runs_of(table)) for table in ranked.tables)
    searchers, spaces = len(_colours(ranked)), len({table.space for table in ranked.tables})
    where = _space_title(ranked.tables[0].settings) if spaces == 1 else f"{spaces} spaces"
    return f"{count(runs, 'run')} of {count(searchers, 'searcher')} on {where}"


def _section(table: SpaceTable, log: SpaceLog, anchor: str, suffix: str, colours: dict[str, int]) -> dict[str, Any]:
    """The values that the template shows for one space."""
    groups = groups_of(table, log, colours)
    limits = charts.taskness_limits(groups)
    drawn = {name: Markup(c.svg(f"{anchor}-{name}")) for name, c in space_charts(table, log, colours).items()}
    rows = [run.row for run in runs_of(table)]
    classes = table.settings.classes.replace("|", ", ")
    notes = [note[0].upper() + note[1:] + "." for note in table.notes]
    if log.unfinished:
        notes.insert(0, f"{count(log.unfinished, 'run')} not finished yet, and not shown.")
    return {
        "anchor": anchor,
        "title": _space_title(table.settings) + suffix,
        "subtitle": f"Space {table.space}: classes {classes}. {str(table.protocol).capitalize()}.",
        "notes": notes,
        "ranking": ranking(table),
        "failure_score": table.failure_score,
        "optimism": drawn.get("told-and-confirmed"),
        "curves": drawn.get("confirmed-over-evaluations"),
        "facets": [
            {
                "searcher": group.searcher,
                "svg": Markup(charts.told_and_confirmed_curves(group, limits).svg(f"{anchor}-facet-{i}")),
            }
            for i, group in enumerate(groups)
            if group.members and not table.protocol.tasks  # a library is more than its best told labeling
        ],
        "matrix": matrix(table),
        "libraries": library_tasks(rows, log),
        "library_charts": {
            name: Markup(c.svg(f"{anchor}-{name}")) for name, c in _library_charts(table, log, colours).items()
        },
        "sprite": Markup(sprite(log.pixels)) if log.pixels is not None and (log.labels or log.libraries) else None,
        "pictures": found_tasks(rows, log),
        "runs": rows,
        "failures": [run.row for run in runs_of(table) if run.failed],
        "references": sorted(table.references, key=lambda line: -line.mean),
        "settings": settings_of(rows),
    }


def _best_library(table: SpaceTable, log: SpaceLog) -> TaskLibrary:
    run = max((run.row for run in runs_of(table) if run.row.run in log.libraries), key=lambda row: row.confirmed)
    return log.libraries[run.run]


def _library_charts(table: SpaceTable, log: SpaceLog, colours: dict[str, int]) -> dict[str, Chart]:
    """Name -> figure of what discoveries found; of the best library where it is of one."""
    if not log.libraries:
        return {}
    best = _best_library(table, log)
    of_searchers: dict[str, list[TaskLibrary]] = {}
    for run in runs_of(table):
        if run.row.run in log.libraries:
            of_searchers.setdefault(run.row.searcher, []).append(log.libraries[run.row.run])
    drawn = {"by-rank": libraries.confirmed_by_rank(groups_of(table, log, colours), of_searchers)}
    if best.runs[0] in log.evaluated:
        evaluated, told = log.evaluated[best.runs[0]], log.told[best.runs[0]]
        drawn["quality"] = libraries.quality_over_evaluations(best, evaluated, told, best.searchers[0])
    if len(best) > 1:
        drawn["similarity"] = libraries.similarity_chart(best)
    if best.references:
        drawn["recall"] = libraries.recall_chart(best)
    return drawn


def _overall(table: OverallTable, anchor: str, suffix: str, colours: dict[str, int]) -> dict[str, Any]:
    names = [standing.searcher for standing in table.standings]
    diagram = None
    if table.ranks is not None:
        ranks = table.ranks
        chart = charts.critical_difference(names, ranks.average_ranks, ranks.critical_difference, ranks.n_spaces)
        diagram = Markup(chart.svg(anchor))
    drawn = {name: Markup(c.svg(f"{anchor}-{name}")) for name, c in overall_charts(table, colours).items()}
    return {
        "anchor": anchor,
        "title": f"Over {len(table.tables)} spaces{suffix}",
        "table": table,
        "optimism": drawn.get("told-and-confirmed"),
        "curves": drawn.get("confirmed-over-evaluations"),
        "diagram": diagram,
    }


def _rounded(value: float, digits: int = 2) -> str:
    """A number for people; empty if it is unknown."""
    if value is None or not math.isfinite(value):
        return "" if value is None or math.isnan(value) else "∞"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _exact(value: float) -> str:
    """A number for sorting; empty if it is unknown."""
    return "" if value is None or not math.isfinite(value) else repr(float(value))
