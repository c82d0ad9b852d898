"""The picture of extended tasks: what the networks of each task call most and least positive outside of its set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.base.files import check_target, write_bytes
from tdbench.report.pictures import figure_bytes, montage, new_figure, one_line
from tdbench.report.style import INK, PALE_INK
from tdbench.store.library import TaskLibrary
from tdbench.store.worth import confirmed_interval
from tdbench.tasks.extend import ENDS, Extension

SUFFIXES = (".png", ".svg")
MOST_POSITIVES = 10  # images of the set in a row
_CELL, _ROW, _GAP, _MARGIN, _HEAD, _SCORES = 0.36, 0.44, 0.25, 0.15, 0.75, 1.75  # inches
_Pixels = NDArray[np.uint8]


def check_picture_path(path: Path) -> None:
    """Raises UserError unless the name ends with ``.png`` or ``.svg``, and a file can be written there."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"a picture is a .png or an .svg: name it {path.name}.png, not {path.name}")
    check_target(path)


def write_extended_picture(
    path: Path, library: TaskLibrary, extension: Extension, pixels: _Pixels, source: _Pixels, title: str
) -> None:
    """Write `extended_figure` as PNG or SVG, by the ending of the name. Raises UserError if it cannot be written."""
    check_picture_path(path)
    figure = extended_figure(library, extension, pixels, source, title)
    write_bytes(path, figure_bytes(figure, path.suffix.removeprefix(".")))


def extended_figure(library: TaskLibrary, extension: Extension, pixels: _Pixels, source: _Pixels, title: str) -> Figure:
    """A row for each task: its positives, confirmed taskness, agreement, and the unseen images at both ends.

    Args:
        library, extension: of the same labelings.
        pixels: (N, 32, 32, 3) of the set.
        source: (n, 32, 32, 3) images of the source.
        title: plain text.
    """
    shown = min(MOST_POSITIVES, library.positives)
    ends = min(ENDS, len(extension.unseen))
    lefts = np.cumsum([_MARGIN, shown * _CELL + _GAP, _SCORES, ends * _CELL + _GAP])
    width, height = lefts[-1] + ends * _CELL + _MARGIN, _HEAD + len(library) * _ROW + _MARGIN
    figure = new_figure(width, height)

    def say(left: float, top: float, text: str, size: float = 8.5, colour: str = INK, weight: str = "normal") -> None:
        place = (left / width, 1 - top / height)
        figure.text(*place, text, fontsize=size, color=colour, weight=weight, va="center", parse_math=False)

    say(_MARGIN, 0.2, one_line(title), size=11, weight="bold")
    more = f" (first {shown} of {library.positives})" if shown < library.positives else ""
    heads = (f"positives in the set{more}", "confirmed, agreement", "most positive unseen", "least positive unseen")
    for left, head in zip(lefts.tolist(), heads, strict=True):
        say(left, 0.55, head, colour=PALE_INK)
    low, high = confirmed_interval(library.confirmed, library.confirmed_se, library.confirm)
    for i, labels in enumerate(library.labels):
        top = _HEAD + i * _ROW
        positives = np.flatnonzero(labels)[:shown]
        strips = (pixels[positives], source[extension.most_positive(i)], source[extension.least_positive(i)])
        for left, images in zip(lefts[[0, 2, 3]].tolist(), strips, strict=True):
            box = (left / width, 1 - (top + _CELL) / height, len(images) * _CELL / width, _CELL / height)
            _strip(figure.add_axes(box), images)
        say(float(lefts[1]), top + 0.3 * _CELL, f"{i + 1}: " + _interval(library.confirmed[i], low[i], high[i]))
        agreement = _interval(*extension.agreement[i].tolist())
        say(float(lefts[1]), top + 0.75 * _CELL, f"agreement {agreement}", size=7, colour=PALE_INK)
    return figure


def _strip(axes: Axes, images: _Pixels) -> None:
    axes.imshow(montage(images, len(images), 1), interpolation="nearest", aspect="auto")
    axes.set_axis_off()


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(low) else f"{value:.2f}"
