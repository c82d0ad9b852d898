"""The report: one HTML page of everything in an output folder, and its main figures as PNG files."""

from __future__ import annotations

import base64
import datetime
import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from tdbench.base import environment, stats
from tdbench.base.files import write_bytes
from tdbench.base.stats import Estimate
from tdbench.leaderboard.boards import PROTOCOL_FIELDS, RunProtocol, load_boards
from tdbench.leaderboard.standings import CountedRun, OverallTable, SpaceTable, Standing, Standings, standings
from tdbench.report import charts
from tdbench.report.charts import Chart, Group, Line, Member
from tdbench.report.pictures import best_so_far, figure_png, image_png, strips_figure
from tdbench.space.settings import SPACE_COLUMNS
from tdbench.store.confirmations import space_references
from tdbench.store.log import FILE_NAME, Store
from tdbench.store.rows import CHECKPOINTS, Row

COLUMNS = 25  # images in a row of a space's sprite
MOST_IMAGES = 60  # of one side of a labeling
_LARGE_SET = 200  # images from which a sprite is halved, so that the page stays light
_TOLD_POINTS = 12  # evaluations at which the runs' best told are averaged
_TEMPLATES = Path(__file__).parent / "templates"
_SETTINGS = (
    *("space", *SPACE_COLUMNS, *PROTOCOL_FIELDS),
    *("engine", "engine_detail", "device", "hardware", "versions"),
)


@dataclass(frozen=True)
class SpaceLog:
    """What the evaluation log adds to a table's rows; all empty where there is no log.

    Attributes:
        pixels: (N, 32, 32, 3) image set.
        told: run id -> (evaluations,) told taskness.
        labels: run id -> (N,) recommended labeling.
        references: name of a reference task -> (N,) labels.
        unfinished: runs of the table's settings that were begun and have not ended.
    """

    pixels: NDArray[np.uint8] | None = None
    told: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    labels: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    references: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    unfinished: int = 0


def write_report(out: Path, to: Path | None = None) -> Path:
    """Write the report of an output folder, by default into it. Returns its path.

    Raises:
        UserError: there are no results, or the page cannot be written.
    """
    ranked, logs = _read(out)
    path = out / "report.html" if to is None else to
    write_bytes(path, page(ranked, logs).encode())
    return path


def write_figures(out: Path, folder: Path) -> list[Path]:
    """Write the main figures of every space, and over spaces, as PNG files. Returns their paths.

    Raises:
        UserError: there are no results, or a file cannot be written.
    """
    ranked, logs = _read(out)
    colours = _colours(ranked)
    written = []
    for table, log in zip(ranked.tables, logs, strict=True):
        pictures = {name: chart.png() for name, chart in _space_charts(table, log, colours).items()}
        if log.pixels is not None and log.labels:
            pictures["found"] = figure_png(strips_figure(_strips(table, log, log.pixels)))
        written += _write(folder, f"{table.name}-{_stem(table.protocol, ranked)}", pictures)
    for overall in ranked.overall:
        pictures = {name: chart.png() for name, chart in _overall_charts(overall, colours).items()}
        written += _write(folder, f"{len(overall.tables)}-spaces-{_stem(overall.protocol, ranked)}", pictures)
    return written


def _stem(protocol: RunProtocol, ranked: Standings) -> str:
    """The budget, and what else tells this protocol from the others, for a file's name."""
    others = [f"{name}-{value}" for name, value in _differing(protocol, ranked) if name != "budget"]
    return "-".join([f"b{protocol.budget}", *others])


def _suffix(protocol: RunProtocol, ranked: Standings) -> str:
    """What tells this protocol from the others, for a title; empty where there is one."""
    return "".join(f", {name} {value}" for name, value in _differing(protocol, ranked))


def _differing(protocol: RunProtocol, ranked: Standings) -> list[tuple[str, Any]]:
    """The settings in which the protocols of these tables differ, with this one's values."""
    values = [(name, getattr(protocol, name)) for name in PROTOCOL_FIELDS]
    return [(name, v) for name, v in values if any(getattr(t.protocol, name) != v for t in ranked.tables)]


def _write(folder: Path, stem: str, pictures: dict[str, bytes]) -> list[Path]:
    paths = [folder / re.sub(r"[^A-Za-z0-9.-]+", "-", f"{stem}-{name}.png") for name in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        write_bytes(path, picture)
    return paths


def page(ranked: Standings, logs: Sequence[SpaceLog]) -> str:
    """The whole HTML page; one log for each of the tables."""
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
        columns=COLUMNS,
        earlier=[f"{100 * share:.0f} %" for share in CHECKPOINTS[:-1]],
    )


def _read(out: Path) -> tuple[Standings, list[SpaceLog]]:
    ranked = standings(load_boards([out]))
    if not (out / FILE_NAME).is_file():
        return ranked, [SpaceLog() for _ in ranked.tables]
    with Store(out, read_only=True) as store:
        return ranked, [_space_log(table, store) for table in ranked.tables]


def _space_log(table: SpaceTable, store: Store) -> SpaceLog:
    records = [record for record in store.runs() if record.space == table.space]
    if not records:
        return SpaceLog()
    logged = {record.id for record in records} & {run.row.run for run in _runs(table)}
    labels = {run: store.recommended(run) for run in logged}
    protocol = {name: getattr(table.protocol, name) for name in PROTOCOL_FIELDS}
    return SpaceLog(
        store.pixels(table.space),
        {run: store.told(run)[1] for run in logged},
        {run: recommended[1.0] for run, recommended in labels.items() if 1.0 in recommended},
        {task.name: task.labels for task in space_references(store, table.space)},
        sum(not r.ended and all(getattr(r.settings, k) == v for k, v in protocol.items()) for r in records),
    )


def _runs(table: SpaceTable) -> list[CountedRun]:
    return [run for standing in table.standings for run in standing.runs]


def _colours(ranked: Standings) -> dict[str, int]:
    return {name: i for i, name in enumerate(sorted({s.searcher for t in ranked.tables for s in t.standings}))}


def _space_title(row: Row) -> str:
    return f"{row.data}, N = {row.n}, 1:{row.ratio}, space seed {row.space_seed}"


def _page_title(ranked: Standings) -> str:
    runs = sum(len(_runs(table)) for table in ranked.tables)
    searchers, spaces = len(_colours(ranked)), len({table.space for table in ranked.tables})
    where = _space_title(ranked.tables[0].settings) if spaces == 1 else f"{spaces} spaces"
    return f"{_count(runs, 'run')} of {_count(searchers, 'searcher')} on {where}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _space_charts(table: SpaceTable, log: SpaceLog, colours: dict[str, int]) -> dict[str, Chart]:
    return _main_charts(_groups(table, log, colours), _lines(table), "run", "seeds")


def _overall_charts(table: OverallTable, colours: dict[str, int]) -> dict[str, Chart]:
    return _main_charts(_overall_groups(table, colours), _overall_lines(table), "space", "spaces")


def _main_charts(groups: Sequence[Group], lines: Sequence[Line], each: str, over: str) -> dict[str, Chart]:
    drawn = {}
    if any(group.members for group in groups):
        drawn["told-and-confirmed"] = charts.told_against_confirmed(groups, lines, each)
    if any(len(group.checkpoints) > 1 for group in groups):
        drawn["confirmed-over-evaluations"] = charts.confirmed_over_evaluations(groups, lines, over)
    return drawn


def _strips(table: SpaceTable, log: SpaceLog, pixels: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Best confirmed first: the positives of each searcher's best run, of the best class task and pixel statistic."""
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
        (f"{name}  {score:.2f}", pixels[labels.astype(bool)])
        for score, name, labels in sorted(found, key=lambda f: -f[0])
    ]


def _groups(table: SpaceTable, log: SpaceLog, colours: dict[str, int]) -> list[Group]:
    """The searchers as the figures need them, best first. Failed runs are in the estimates, but have no curve."""
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
    """The searchers as the figures over spaces need them, best first. A space where every run failed has no bar."""
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
    """Evaluations -> what is known of the checkpoint after them."""
    return {
        round(share * budget): estimate
        for share, estimate in zip(CHECKPOINTS, checkpoints, strict=True)
        if math.isfinite(estimate.value)
    }


def _told_estimates(members: Sequence[Member]) -> dict[int, Estimate]:
    """Interquartile mean of best told, at evaluations that every run has reached."""
    reached = min((len(member.told_curve) for member in members), default=0)
    if not reached:
        return {}
    at = np.unique(np.geomspace(1, reached, _TOLD_POINTS).round().astype(int))
    curves = np.array([best_so_far(member.told_curve[:reached])[at - 1] for member in members])
    known = np.isfinite(curves).all(axis=0)
    return {int(x): stats.iqm_interval(v) for x, v in zip(at[known], curves.T[known], strict=True)}


def _lines(table: SpaceTable) -> list[Line]:
    """The references that figures draw: the best class task, the best pixel statistic, the mean random labeling."""
    lines = []
    for kind, what in (("class", "class "), ("pixel", "")):
        members = [line for line in table.references if line.kind == kind]
        if members:
            best = max(members, key=lambda line: line.mean)
            lines.append(Line(f"{what}{best.name}", best.mean))
    means = [line.mean for line in table.reference_summary if line.kind == "random"][:1]
    return [*lines, *(Line("random labelings", mean) for mean in means)]


def _overall_lines(table: OverallTable) -> list[Line]:
    """Means over spaces of what figures of one space draw; none where a space's references are not known."""
    in_spaces = [_lines(t) for t in table.tables]
    names = ("best class task", "best pixel statistic", "random labelings")
    if any(len(lines) != len(names) for lines in in_spaces):
        return []
    return [
        Line(name, float(np.mean([line.value for line in lines])))
        for name, lines in zip(names, zip(*in_spaces, strict=True), strict=True)
    ]


def _section(table: SpaceTable, log: SpaceLog, anchor: str, suffix: str, colours: dict[str, int]) -> dict[str, Any]:
    """What the template shows of one space."""
    groups = _groups(table, log, colours)
    limits = charts.taskness_limits(groups)
    drawn = {name: Markup(c.svg(f"{anchor}-{name}")) for name, c in _space_charts(table, log, colours).items()}
    rows = [run.row for run in _runs(table)]
    classes = table.settings.classes.replace("|", ", ")
    notes = [note[0].upper() + note[1:] + "." for note in table.notes]
    if log.unfinished:
        notes.insert(0, f"{_count(log.unfinished, 'run')} not finished yet, and not shown.")
    return {
        "anchor": anchor,
        "title": _space_title(table.settings) + suffix,
        "subtitle": f"Space {table.space}: classes {classes}. {str(table.protocol).capitalize()}.",
        "notes": notes,
        "ranking": _ranking(table),
        "failure_score": table.failure_score,
        "optimism": drawn.get("told-and-confirmed"),
        "curves": drawn.get("confirmed-over-evaluations"),
        "facets": [
            {
                "searcher": group.searcher,
                "svg": Markup(charts.told_and_confirmed_curves(group, limits).svg(f"{anchor}-facet-{i}")),
            }
            for i, group in enumerate(groups)
            if group.members
        ],
        "matrix": _matrix(table),
        "sprite": _sprite(log.pixels) if log.pixels is not None and log.labels else None,
        "pictures": _pictures(rows, log),
        "runs": rows,
        "failures": [run.row for run in _runs(table) if run.failed],
        "references": sorted(table.references, key=lambda line: -line.mean),
        "settings": _settings(rows),
    }


def _ranking(table: SpaceTable) -> list[dict[str, Any]]:
    """Searchers and, among them by score, the summaries of the reference tasks."""
    ranking = [_ranked(standing) for standing in table.standings]
    for line in table.reference_summary:
        blank = dict.fromkeys(("rank", "told", "optimism", "distinct", "seeds", "failed"))
        none = Estimate(math.nan, math.nan, math.nan, 0)
        score = Estimate(line.mean, math.nan, math.nan, 0)
        ranking.append({**blank, "name": line.name, "mark": "", "confirmed": score, "anytime": none, "reference": True})
    return sorted(ranking, key=lambda entry: -entry["confirmed"].value)


def _ranked(standing: Standing) -> dict[str, Any]:
    return {
        "rank": standing.rank,
        "name": standing.searcher,
        "mark": "sees images" if standing.sees_images else "",
        "confirmed": standing.confirmed,
        "told": standing.told,
        "optimism": standing.optimism,
        "anytime": standing.anytime,
        "distinct": standing.distinct,
        "seeds": len(standing.runs),
        "failed": standing.failed,
        "reference": False,
    }


def _matrix(table: SpaceTable) -> dict[str, Any] | None:
    if len(table.standings) < 2:
        return None
    names = [standing.searcher for standing in table.standings]
    rows = [
        {"name": name, "cells": [None if i == j else cell for j, cell in enumerate(table.improvement[i])]}
        for i, name in enumerate(names)
    ]
    return {"names": names, "rows": rows}


def _overall(table: OverallTable, anchor: str, suffix: str, colours: dict[str, int]) -> dict[str, Any]:
    names = [standing.searcher for standing in table.standings]
    diagram = None
    if table.ranks is not None:
        ranks = table.ranks
        chart = charts.critical_difference(names, ranks.average_ranks, ranks.critical_difference, ranks.n_spaces)
        diagram = Markup(chart.svg(anchor))
    drawn = {name: Markup(c.svg(f"{anchor}-{name}")) for name, c in _overall_charts(table, colours).items()}
    return {
        "anchor": anchor,
        "title": f"Over {len(table.tables)} spaces{suffix}",
        "table": table,
        "optimism": drawn.get("told-and-confirmed"),
        "curves": drawn.get("confirmed-over-evaluations"),
        "diagram": diagram,
    }


def _settings(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Each setting with its value; where runs differ, with how many have which."""
    shown = []
    for name in _SETTINGS:
        counts = Counter(str(getattr(row, name)) for row in rows)
        several = "; ".join(f"{value or '-'} ({_count(n, 'run')})" for value, n in counts.most_common())
        shown.append((name.replace("_", " "), several if len(counts) > 1 else next(iter(counts)) or "-"))
    versions = sorted({f"{row.searcher} {row.searcher_version}".strip() for row in rows})
    return [*shown, ("searchers", ", ".join(versions))]


def _pictures(rows: Sequence[Row], log: SpaceLog) -> list[dict[str, Any]]:
    """The discovered task of each run, best confirmed first: indices of the images on each side."""
    shown = []
    for row in sorted(rows, key=lambda r: -np.nan_to_num(r.confirmed, nan=-9)):
        if row.run not in log.labels:
            continue
        card: dict[str, Any] = {"row": row}
        for name, value in (("positives", 1), ("negatives", 0)):
            index = np.flatnonzero(log.labels[row.run] == value).tolist()
            card |= {name: index[:MOST_IMAGES], f"all_{name}": len(index)}
        shown.append(card)
    return shown


def _sprite(pixels: NDArray[np.uint8]) -> Markup:
    """All images of a space in one PNG, as a data URI; large sets at half size."""
    side = pixels.shape[1] // (2 if len(pixels) > _LARGE_SET else 1)
    rows = -(-len(pixels) // COLUMNS)
    sheet = np.zeros((rows, side, COLUMNS, side, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
        sheet[i // COLUMNS, :, i % COLUMNS] = small
    png = image_png(sheet.reshape(rows * side, COLUMNS * side, 3))
    return Markup("data:image/png;base64," + base64.b64encode(png).decode())


def _rounded(value: float, digits: int = 2) -> str:
    """A number for people; nothing where there is none."""
    if value is None or not math.isfinite(value):
        return "" if value is None or math.isnan(value) else "∞"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _exact(value: float) -> str:
    """A number for sorting; nothing where there is none."""
    return "" if value is None or not math.isfinite(value) else repr(float(value))
