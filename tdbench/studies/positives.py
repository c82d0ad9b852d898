"""Fixed positives: the number of positives P fixed, the ratio 1:R varied. Does the ratio matter, or the number?

N = P (R + 1) images of one class against others, the same others in every cell. Large cells are skipped because of
their cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdbench.base.errors import UserError
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

QUICK = {"positives": (5, 10, 20), "ratios": (1, 4, 9), "replicates": 3, "steps": 50}


@dataclass(frozen=True)
class Settings(CellSettings):
    positives: tuple[int, ...] = setting((5, 10, 20, 40), "Positives in a set.")
    most: int = setting(400, "Images in the largest set; larger cells are skipped because of their cost.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes("positives", self.positives, least=2)
        if self.most < 1:
            raise UserError(f"most must be at least 1 image, got {self.most}")


def study(settings: Settings, lab: Lab) -> Findings:
    """Measure every cell up to the largest size; regress taskness on the number of positives and on the ratio."""
    cells = [Cell(p * (ratio + 1), ratio) for p in sorted(settings.positives) for ratio in sorted(settings.ratios)]
    large = {cell: f"more than {settings.most} images" for cell in cells if cell.n > settings.most}
    measured = measure(cells, settings, lab, large)
    explained = explain(measured)
    paragraph = (
        f"{opening_words(measured, settings)}. "
        f"{' '.join(_range_words(measured, p) for p in sorted({c.positives for c in measured.cells}))} "
        f"{explained_words(explained, len(measured.cells))} Expected: mainly the number of positives matters, "
        f"not the ratio{_verdict(explained.advantage) if explained else ''}.{skipped_words(measured)}"
    )
    return Findings(
        cell_table(measured, explained), cell_figure(measured, ("positives", "P = {}"), ("ratio", "1:{}")), paragraph
    )


def _range_words(measured: Measured, positives: int) -> str:
    row = [cell for cell in measured.cells if cell.positives == positives]
    values = [f"{shown(measured.estimate(cell))} at 1:{cell.ratio}" for cell in (row[0], row[-1])]
    return f"With {positives} positives, {' and '.join(dict.fromkeys(values))}."


def _verdict(advantage: Estimate) -> str:
    if not advantage.has_interval or advantage.low <= 0 <= advantage.high:
        return ", which is neither confirmed nor denied"
    return ", as found" if advantage.low > 0 else ", which was not found"
