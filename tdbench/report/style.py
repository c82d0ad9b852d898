"""The look that all figures of the project share: colours, markers and axes. The page has its own in report.css."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes

TOLD_COLOUR, CONFIRMED_COLOUR, INK, PALE_INK = "#c2410c", "#1d4ed8", "#1f2937", "#6b7280"
GRID, ZERO = "#e5e7eb", "#9ca3af"
# Colours and markers of searchers, or of other series of a figure.
SERIES = ("#0f62a8", "#c8501e", "#0a7f5c", "#a63d88", "#8a6a00", "#5b5bd6", "#3d7a94", "#b0304f")
MARKERS = "osD^vPX*"


def style_axes(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """The look that all axes of the project share."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom", "top"]].set_color(ZERO)
    axes.tick_params(labelsize=8.5, colors=INK)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
