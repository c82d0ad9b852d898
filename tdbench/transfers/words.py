"""What a transfer found, in words and tables made from its numbers."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from tdbench.base.stats import ALPHA, LEVEL, MIN_FOR_INTERVAL, POWER, Estimate
from tdbench.base.table import Table, number
from tdbench.transfers.gain import EXPECTED_SD, Contrast, Gain, detectable_before
from tdbench.transfers.result import TransferResult

FORMULA = (
    "P(|T| > t_crit) = power for T noncentral t with n - 1 degrees of freedom and noncentrality gain sqrt(n) / sd, "
    "n sets with standard deviation sd"
)
_CERTAIN = f"{100 * LEVEL:.0f} % interval"


def before(sets: int) -> str:
    """The line that is said before anything is trained: what a run of this size can be expected to detect."""
    smallest = detectable_before(sets)
    size = f"{smallest:.3f} taskness" if math.isfinite(smallest) else "unknown (4 sets are needed)"
    return (
        f"the smallest gain that {_sets(sets)} can be expected to detect: {size}, at alpha {100 * ALPHA:.0f} % "
        f"and power {100 * POWER:.0f} %, if the gains of sets have a standard deviation of {EXPECTED_SD:g}"
    )


def shown(estimate: Estimate, digits: int = 3) -> str:
    """``0.043 [0.012, 0.071]``, or the value alone if it has no interval."""
    value = number(estimate.value, digits)
    if not estimate.has_interval:
        return value
    return f"{value} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def verdict(estimate: Estimate) -> str:
    """What its interval says about a difference."""
    if not estimate.has_interval:
        return "undecided without an interval"
    if estimate.low > 0:
        return "more"
    return "less" if estimate.high < 0 else "no difference found"


def paragraph(result: TransferResult) -> str:
    """The findings in one paragraph, zero included."""
    about, parts = result.about, []
    for mode in result.modes:
        found = [gain for gain in result.gains if gain.mode == mode and gain.shots == result.all_shots]
        listed = "; ".join(f"{gain.kind} {shown(gain.gain)}" for gain in found)
        parts.append(f"{mode.capitalize()}, gain over training from scratch by kind of source: {listed}.")
        answers = "; ".join(_answer(one) for one in result.contrasts(mode))
        if answers:
            parts.append(f"Differences: {answers}.")
        ranked = result.rank_correlation(mode)
        if math.isfinite(ranked.value):
            parts.append(f"Found tasks, rank correlation of confirmed taskness and gain: {shown(ranked, 2)}.")
    after = [gain.detectable for gain in result.gains if gain.shots == result.all_shots]
    after = [value for value in after if math.isfinite(value)]
    detected = f"{min(after):.3f} to {max(after):.3f} by the deviations that were found" if after else "unknown"
    intervals = f"with {_CERTAIN}s over sets" if result.sets >= MIN_FOR_INTERVAL else "an interval needs 4 sets"
    return (
        f"Sources: {about['sources']}, trained {about['pretrain_steps']} steps. Targets: {about['targets']}, "
        f"{about['steps']} steps. Means over {_sets(result.sets)} of {about['replicates']} replicates, {intervals}. "
        + " ".join(parts)
        + f" The smallest gain that this run could detect (alpha {100 * ALPHA:.0f} %, power {100 * POWER:.0f} %): "
        f"{number(detectable_before(result.sets))} expected beforehand, {detected}."
    )


def gain_table(result: TransferResult) -> Table:
    """Gain by kind of source, mode and shots."""
    return Table(
        "Gain over training from scratch",
        ("source", "mode", "shots", "gain", "detectable", "win rate", "sets", "pairs"),
        tuple(_row(gain) for gain in result.gains),
        (
            f"gain: taskness after the source minus taskness from scratch, mean over sets with its {_CERTAIN}",
            f"detectable: the smallest true gain that would be found, alpha {100 * ALPHA:.0f} %, power "
            f"{100 * POWER:.0f} %: {FORMULA}",
            "win rate: share of replicates that are better than from scratch, ties counting 1/2",
        ),
        (0, 1),
    )


def contrast_table(result: TransferResult) -> Table:
    """Which kinds of sources gain more than others."""
    rows = [
        (one.better, one.worse, mode, shown(one.difference), number(one.detectable), verdict(one.difference))
        for mode in result.modes
        for one in result.contrasts(mode)
    ]
    return Table(
        "Differences of gains",
        ("source", "than", "mode", "difference", "detectable", "it gains"),
        tuple(rows),
        ("set by set, so that both have the same targets and replicates",),
        (0, 1, 2, 5),
    )


def taxonomy_table(result: TransferResult, mode: str) -> Table | None:
    """The best sources of the first image set for b = 1, 2, ..., 8."""
    found = result.affinities(mode)
    if found is None:
        return None
    rows = tuple(
        (str(b), number(choice.total / len(found.targets)), ", ".join(found.sources[i] for i in choice.sources))
        for b, choice in enumerate(found.taxonomy, start=1)
    )
    title = f"Taxonomy, {mode}: the best sources for {len(found.targets)} targets"
    return Table(title, ("b", "mean affinity", "sources"), rows, (), (2,))


def document(result: TransferResult) -> dict[str, Any]:
    """Everything as plain values, for JSON."""
    return {
        "about": dict(result.about),
        "paragraph": paragraph(result),
        "gains": [asdict(gain) for gain in result.gains],
        "modes": {mode: _mode_document(result, mode) for mode in result.modes},
        "pairs": result.records(),
    }


def _mode_document(result: TransferResult, mode: str) -> dict[str, Any]:
    found = result.affinities(mode)
    return {
        "contrasts": [asdict(one) for one in result.contrasts(mode)],
        "rank_correlation": asdict(result.rank_correlation(mode)),
        "affinity": found
        and {
            "sources": found.sources,
            "targets": found.targets,
            "gain": found.gain.tolist(),
            "affinity": found.affinity.tolist(),
            "taxonomy": [
                {"sources": [found.sources[i] for i in one.sources], "serves": one.serves.tolist(), "total": one.total}
                for one in found.taxonomy
            ],
        },
    }


def page(result: TransferResult, pictures: list[str]) -> str:
    """The Markdown page: the paragraph, the tables, and pictures by their file names."""
    tables = [gain_table(result), contrast_table(result)]
    tables += [table for mode in result.modes if (table := taxonomy_table(result, mode)) is not None]
    parts = ["# Transfer", paragraph(result), *(_markdown(table) for table in tables)]
    parts += [f"![{name}]({name})" for name in pictures]
    parts.append(f"tdbench {result.about['version']}, engine {result.about['engine']}, {result.about['hardware']}.")
    return "\n\n".join(parts) + "\n"


def _sets(count: int) -> str:
    return "1 set" if count == 1 else f"{count} sets"


def _row(gain: Gain) -> tuple[str, ...]:
    cells = (gain.kind, gain.mode, str(gain.shots), shown(gain.gain), number(gain.detectable), shown(gain.win_rate, 2))
    return (*cells, str(gain.gain.n), str(gain.pairs))


def _answer(one: Contrast) -> str:
    return f"{one.better} over {one.worse} {shown(one.difference)} ({verdict(one.difference)})"


def _markdown(table: Table) -> str:
    lines = [f"## {table.title}", "", "| " + " | ".join(table.columns) + " |"]
    lines.append("|" + "|".join("---" if i in table.text else "---:" for i in range(len(table.columns))) + "|")
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip()
