"""How spaces, results and tables look in a notebook: figures, and short pieces of HTML with a picture in them."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tdbench.base.errors import UserError, in_python
from tdbench.base.table import Table, number
from tdbench.report.libraries import tasks_figure
from tdbench.report.pictures import MOST_IN_STRIP, figure_png, run_figure, strips_figure
from tdbench.space.task_space import TaskSpace
from tdbench.store.result import Result

MOST_LABELINGS = 20  # rows of one figure


def space_figure(space: TaskSpace) -> Figure:
    """A row of images for each class of the set, class A first."""
    classes = [(name, space.pixels[space.class_of == i]) for i, name in enumerate(space.classes)]
    return strips_figure([(f"{name}: {_count(images)} images", images) for name, images in classes])


def labelings_figure(space: TaskSpace, labels: NDArray[np.uint8]) -> Figure:
    """The positives of each of (B, N) label vectors in a row; of one alone its negatives as well.

    Raises:
        UserError: no label vector, or more than `MOST_LABELINGS`.
    """
    if not 1 <= len(labels) <= MOST_LABELINGS:
        raise UserError(f"a figure shows 1 to {MOST_LABELINGS} labelings, got {len(labels)}; choose some of them")
    sides = labels.astype(bool)
    if len(labels) > 1:
        return strips_figure([(f"labeling {i}", space.pixels[positive]) for i, positive in enumerate(sides)])
    kept = [("positives", space.pixels[sides[0]]), ("negatives", space.pixels[~sides[0]])]
    return strips_figure([(f"{_count(images)} {name}", images) for name, images in kept])


def _count(images: NDArray[np.uint8]) -> str:
    """How many images there are, and how many of them a row has room for."""
    return f"{len(images)}" if len(images) <= MOST_IN_STRIP else f"{MOST_IN_STRIP} of {len(images)}"


def result_figure(result: Result) -> Figure:
    """What a run has found, beside its scores; a library has a row for each labeling.

    Raises:
        UserError: the run has failed, and found nothing.
    """
    row = result.row
    title = f"{row.searcher} on {row.data}, N = {row.n}, 1:{row.ratio}"
    if result.library is not None:
        return tasks_figure(result.library, result.space.pixels, title)
    if result.labels is None:
        raise UserError(f"the run found nothing, so there is nothing to draw: {row.status}: {in_python(row.error)}")
    return run_figure(
        result.space.pixels,
        result.labels,
        result.told,
        title=title,
        told=row.told,
        confirmed=row.confirmed,
        confirmed_se=row.confirmed_se,
    )


def space_html(space: TaskSpace) -> str:
    """The settings of a space and the images of its classes."""
    protocol = space.protocol
    rows = (
        ("source", space.source),
        ("images", f"{space.n}: {space.n_positives} positives and {space.n - space.n_positives} negatives"),
        ("classes", ", ".join(space.classes)),
        ("space seed", str(space.seed)),
        ("training", f"{protocol.steps} steps, learning rate {protocol.lr:g}, {protocol.split} split"),
    )
    return _html(f"TaskSpace {space.identity}", rows, space_figure(space))


def result_html(result: Result) -> str:
    """The scores of a run, and the picture of what it found."""
    row = result.row
    if row.status != "ok":
        failed = (("status", row.status), ("error", in_python(row.error)), ("evaluations", str(row.evaluations)))
        return _html(_title(result), failed, None)
    quality = " QD" if row.tasks else ""
    rows = [
        (f"told{quality}", f"{number(row.told)}, what the searcher was told in {row.evaluations} evaluations"),
        (
            f"confirmed{quality}",
            f"{number(row.confirmed)} ± {number(row.confirmed_se)}, over {row.confirm} fresh replicates",
        ),
        ("optimism", f"{number(row.optimism)}, told - confirmed"),
    ]
    random = [score.mean for score in result.reference("random")]
    if random:
        rows.append(("random labelings", f"{number(float(np.mean(random)))} confirmed, the mean of {len(random)}"))
    known = [*result.reference("class"), *result.reference("pixel")]
    if known:
        best = max(known, key=lambda score: score.mean)
        rows.append(("best reference task", f"{number(best.mean)} confirmed: {best.task.name}"))
    if result.threshold is not None and not row.tasks:
        answer = "yes" if result.is_task else "no"
        rows.append(("a task?", f"{answer}, T_task is {number(result.threshold.value)}"))
    return _html(_title(result), rows, result_figure(result))


def _title(result: Result) -> str:
    row = result.row
    return f"{row.searcher} on {result.space.name}, seed {row.seed}"


def _html(title: str, rows: Sequence[tuple[str, str]], figure: Figure | None) -> str:
    table = Table(title, ("", ""), tuple(rows), text=(0, 1))._repr_html_()
    return table if figure is None else f"{table}{figure_html(figure, title)}"


def figure_html(figure: Figure, alt: str) -> str:
    """A figure as an image within a page."""
    data = base64.b64encode(figure_png(figure)).decode()
    return f'<img style="max-width: 50em; width: 100%" alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
