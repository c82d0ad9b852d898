"""Pictures of discovered tasks: positives beside negatives, and the taskness that the searcher was told meanwhile."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from tdbench.base.files import write_bytes
from tdbench.report.style import CONFIRMED_COLOUR, INK, PALE_INK, TOLD_COLOUR, ZERO, style_axes
from tdbench.space.sources import SIDE

KINDS = ("png", "svg", "pdf")  # of files of figures
MOST_SHOWN = 100  # images of one side of a labeling in a picture
MOST_IN_STRIP = 16
SPRITE_COLUMNS = 25  # images in a row of a space's sprite
_LARGE_SET = 200  # images; sprites of larger sets have half the size, so that the page stays small
_DPI = 150
_WIDTH = 8.0  # inches
_MARGIN = 0.12
_GAP = 2  # pixels between images
_MOST_TITLE = 88  # characters in a line
_Pixels = NDArray[np.uint8]


class ShownFigure(Figure):
    """A figure that a notebook shows where pyplot, which would see to that, was never imported."""

    def _repr_png_(self) -> bytes:
        return figure_png(self)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches. pyplot knows nothing of it, so it needs no closing."""
    figure = ShownFigure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def write_run_picture(
    path: Path,
    pixels: _Pixels,
    labels: NDArray[Any],
    told_curve: NDArray[np.float64],
    *,
    title: str,
    told: float,
    confirmed: float,
    confirmed_se: float,
) -> None:
    """Write one PNG: the positives beside the negatives, above the taskness told over the run's evaluations.

    Args:
        path: the file; it appears complete or not at all. Its folder is created.
        pixels: (N, 32, 32, 3) image set.
        labels: (N,) of 0 and 1, the recommended labeling.
        told_curve: (evaluations,) taskness told for each evaluation; may be empty.
        title: plain text; nothing in it is read as markup.
        told, confirmed, confirmed_se: the run's two scores and the standard error of the second; NaN if unknown.

    Raises:
        UserError: the file cannot be written.
    """
    figure = run_figure(
        pixels, labels, told_curve, title=title, told=told, confirmed=confirmed, confirmed_se=confirmed_se
    )
    write_bytes(path, figure_png(figure))


def run_figure(
    pixels: _Pixels,
    labels: NDArray[Any],
    told_curve: NDArray[np.float64],
    *,
    title: str,
    told: float,
    confirmed: float,
    confirmed_se: float,
) -> Figure:
    """The figure that `write_run_picture` writes."""
    mask = np.asarray(labels).astype(bool)
    sides = [(pixels[mask], "positives"), (pixels[~mask], "negatives")]
    shown = [min(len(images), MOST_SHOWN) for images, _ in sides]
    rows = _grid_rows(shown)
    columns = [max(1, -(-count // rows)) for count in shown]
    cell = min(0.62, (_WIDTH - 2 * _MARGIN - 0.5) / sum(columns))
    grid_height, curve_height, head, between = rows * cell, 3.1, 0.92, 0.25
    height = head + grid_height + between + curve_height
    figure = new_figure(_WIDTH, height)

    def box(left: float, bottom: float, width: float, tall: float) -> Axes:
        return figure.add_axes((left / _WIDTH, bottom / height, width / _WIDTH, tall / height))

    _heading(figure, height, title, told, confirmed, confirmed_se)
    left = _MARGIN
    for (images, name), count, wide in zip(sides, shown, columns, strict=True):
        axes = box(left, curve_height + between, wide * cell, grid_height)
        axes.imshow(montage(images[:count], wide, rows), interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        number = f"{count}" if count == len(images) else f"{count} of {len(images)}"
        axes.set_title(f"{number} {name}", loc="left", fontsize=9, color=INK, pad=4)
        left += max(wide * cell + 0.35, 1.15)
    _draw_told(box(0.75, 0.5, _WIDTH - 0.9, curve_height - 0.8), told_curve, confirmed, confirmed_se)
    return figure


def strips_figure(strips: Sequence[tuple[str, _Pixels]]) -> Figure:
    """One row of images for each (title, (n, 32, 32, 3) images), the title above it."""
    shown = min(MOST_IN_STRIP, max(len(images) for _, images in strips))
    cell, head = 0.5, 0.24
    width, height = 2 * _MARGIN + shown * cell, _MARGIN + len(strips) * (cell + head)
    figure = new_figure(width, height)
    for i, (title, images) in enumerate(strips):
        bottom = height - (i + 1) * (cell + head)
        count = min(shown, len(images))
        axes = figure.add_axes((_MARGIN / width, bottom / height, count * cell / width, cell / height))
        axes.imshow(montage(images[:count], count, 1), interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        axes.set_title(one_line(title, 80), loc="left", fontsize=8.5, color=INK, pad=3, parse_math=False)
    return figure


def montage(images: _Pixels, columns: int, rows: int | None = None, gap: int = _GAP) -> _Pixels:
    """(height, width, 4) RGBA grid of (n, 32, 32, 3) images, row by row; gaps and empty cells are transparent."""
    rows = rows or max(1, -(-len(images) // columns))
    grid = np.zeros((rows, columns, SIDE + gap, SIDE + gap, 4), dtype=np.uint8)
    flat = grid.reshape(rows * columns, SIDE + gap, SIDE + gap, 4)
    flat[: len(images), :SIDE, :SIDE, :3] = images
    flat[: len(images), :SIDE, :SIDE, 3] = 255
    joined = grid.transpose(0, 2, 1, 3, 4).reshape(rows * (SIDE + gap), columns * (SIDE + gap), 4)
    return joined[: rows * (SIDE + gap) - gap, : columns * (SIDE + gap) - gap]


def sprite(pixels: _Pixels) -> str:
    """All images of a space in one PNG, as a data URI; large sets at half size."""
    side = pixels.shape[1] // (2 if len(pixels) > _LARGE_SET else 1)
    rows = -(-len(pixels) // SPRITE_COLUMNS)
    sheet = np.zeros((rows, side, SPRITE_COLUMNS, side, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
        sheet[i // SPRITE_COLUMNS, :, i % SPRITE_COLUMNS] = small
    png = image_png(sheet.reshape(rows * side, SPRITE_COLUMNS * side, 3))
    return "data:image/png;base64," + base64.b64encode(png).decode()


def image_png(image: _Pixels) -> bytes:
    """An (height, width, 3 or 4) image as the bytes of a PNG file."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "png", optimize=True)
    return out.getvalue()


def figure_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file, at its own resolution."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # characters that the font lacks are drawn as boxes
        figure.savefig(out, format="png")
    return out.getvalue()


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a file of one of `KINDS`, the same for the same figure."""
    if kind == "png":
        return figure_png(figure)
    out = io.BytesIO()
    metadata: Any = {"Date": None} if kind == "svg" else {"CreationDate": None}
    # Global settings only have these; they are restored after it. Text stays text.
    fonts: Any = {"svg.fonttype": "none", "svg.hashsalt": "tdbench", "pdf.fonttype": 42}
    with mpl.rc_context(fonts), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def best_so_far(told: NDArray[np.float64]) -> NDArray[np.float64]:
    """(evaluations,) the best value up to and including each evaluation; NaN is ignored."""
    return np.asarray(np.fmax.accumulate(told), dtype=np.float64) if len(told) else np.zeros(0)


def scores_text(told: float, confirmed: float, confirmed_se: float) -> str:
    """``told 0.98, confirmed 0.36 ± 0.02``, or words that say what is unknown."""
    error = f" ± {confirmed_se:.2f} (standard error)" if np.isfinite(confirmed_se) else ""
    second = f"confirmed {confirmed:.2f}{error}" if np.isfinite(confirmed) else "not confirmed"
    return f"{f'told {told:.2f}' if np.isfinite(told) else 'nothing told'}, {second}"


def one_line(text: str, most: int = _MOST_TITLE) -> str:
    """Text without line breaks and control characters; if it is too long, an ellipsis replaces a part of it."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    end = most // 3  # names such as cmaes+features:20 differ in their last part
    return line if len(line) <= most else f"{line[: most - 1 - end]}…{line[-end:]}"


def _heading(figure: Figure, height: float, title: str, told: float, confirmed: float, se: float) -> None:
    x = _MARGIN / _WIDTH
    line = one_line(title)
    size = 12 if len(line) <= 66 else 9
    figure.text(x, 1 - 0.12 / height, line, fontsize=size, weight="bold", color=INK, va="top", parse_math=False)
    figure.text(x, 1 - 0.38 / height, scores_text(told, confirmed, se), fontsize=10, color=INK, va="top")


def _grid_rows(counts: list[int]) -> int:
    """Rows of two grids side by side: together about three times as wide as high, with few empty cells."""
    near = max(2, round(math.sqrt(sum(counts) / 3)))

    def empty(rows: int) -> int:
        return sum(-count % rows for count in counts)

    return min((rows for rows in (near, near + 1, near - 1) if rows > 1), key=empty)


def _draw_told(axes: Axes, told: NDArray[np.float64], confirmed: float, se: float) -> None:
    evaluations = np.arange(1, len(told) + 1)
    size = 9 if len(told) <= 500 else 4
    axes.scatter(evaluations, told, s=size, color=PALE_INK, alpha=0.35, linewidths=0, label="told, each evaluation")
    axes.plot(
        evaluations, best_so_far(told), color=TOLD_COLOUR, linewidth=1.8, drawstyle="steps-post", label="best told"
    )
    if np.isfinite(confirmed):
        if np.isfinite(se):
            axes.axhspan(confirmed - se, confirmed + se, color=CONFIRMED_COLOUR, alpha=0.18, linewidth=0)
        axes.axhline(confirmed, color=CONFIRMED_COLOUR, linewidth=1.5, label="confirmed ± standard error")
    axes.set_xlabel("evaluations", color=INK, fontsize=9)
    axes.set_ylabel("taskness (0 noise, 1 perfect)", color=INK, fontsize=9)
    axes.set_xlim(0, max(len(told), 1) * 1.01 + 0.5)
    axes.set_ylim(*_taskness_limits(told, confirmed))
    below = int((told < axes.get_ylim()[0]).sum())
    if below:
        text = f"{below} told below"
        axes.annotate(text, (0.005, 0.02), xycoords="axes fraction", fontsize=7.5, color=PALE_INK)
    style_axes(axes, grid="y")
    axes.axhline(0, color=ZERO, linewidth=0.8, zorder=1)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, frameon=False, ncols=3, markerscale=math.sqrt(12 / size)
    )


def _taskness_limits(told: NDArray[np.float64], confirmed: float) -> tuple[float, float]:
    values = [float(v) for v in (*told, confirmed) if np.isfinite(v)]
    low, high = min([0.0, *values]), max([0.2, *values])
    return max(low, -0.75) - 0.12, min(high, 1.0) + 0.06
