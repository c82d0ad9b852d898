"""Size and class ratio: taskness of one class against others over the number of images N and the ratio 1:R.

Negatives are spread evenly over the other classes, the same ones in every cell. Cells that the source cannot fill are
listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tdbench.base.stats import Estimate
from tdbench.studies._cells import (
    Cell,
    CellSettings,
    Measured,
    cell_figure,
    cell_table,
    check_sizes,
    explain,
    explained_words,
    measure,
    opening_words,
    skipped_words,
)
from tdbench.studies._common import setting, shown
from tdbench.studies._lab import Findings, Lab

EXPECTED_N, EXPECTED_RATIO = 400, 19
QUICK = {"n": (50, 100), "ratios": (1, 4, 9, 24), "replicates": 3, "steps": 50}


@dataclass(frozen=True)
class Settings(CellSettings):
    n: tuple[int, ...] = setting((100, 200, 400), "Images in a set.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes("n", self.n)


def study(settings: Settings, lab: Lab) -> Findings:
    """Measure every cell. Find up to which ratio each N generalizes, and what explains that."""
    cells = [Cell(n, ratio) for n in sorted(settings.n) for ratio in sorted(settings.ratios)]
    measured = measure(cells, settings, lab, {})
    explained = explain(measured)
    sizes = sorted({cell.n for cell in measured.cells})
    limits = " ".join(_limit_words(measured, n) for n in sizes)
    paragraph = (
        f"{opening_words(measured, settings)}; a cell counts as "
        f"generalizing if its whole interval lies above 0. {limits} "
        f"{explained_words(explained, len(measured.cells))} "
        f"Expected: at N = {EXPECTED_N} generalization is lost beyond 1:{EXPECTED_RATIO}"
        f"{_verdict(measured)}.{skipped_words(measured)}"
    )
    return Findings(cell_table(measured, explained), cell_figure(measured, ("n", "N = {}"), ("n", "N = {}")), paragraph)


def _limit_words(measured: Measured, n: int) -> str:
    row = {cell: measured.estimate(cell) for cell in measured.cells if cell.n == n}
    clear = [cell for cell, e in row.items() if e.low > 0]
    rest = [cell for cell, e in row.items() if not e.low > 0]
    if not all(e.has_interval for e in row.values()):
        return f"N = {n}: {_listed(row, list(row))}."
    if not rest:
        return f"N = {n} generalizes at every ratio: {_listed(row, clear)}."
    if not clear:
        return f"N = {n} generalizes nowhere: {_listed(row, rest)}."
    return f"N = {n} generalizes at {_listed(row, clear)}; not at {_listed(row, rest)}."


def _listed(row: Mapping[Cell, Estimate], cells: Sequence[Cell]) -> str:
    return ", ".join(f"1:{cell.ratio} {shown(row[cell])}" for cell in cells)


def _verdict(measured: Measured) -> str:
    row = {cell.ratio: measured.estimate(cell) for cell in measured.cells if cell.n == EXPECTED_N}
    beyond = [e for ratio, e in row.items() if ratio > EXPECTED_RATIO]
    within = [e for ratio, e in row.items() if ratio <= EXPECTED_RATIO]
    if not beyond or not within or not all(e.has_interval for e in row.values()):
        return ", which these sizes do not test"
    if any(e.low > 0 for e in beyond):
        return ", which was not found: some cells beyond it generalize"
    return ", as found here" if within[-1].low > 0 else ", but here it is lost before that"
