"""Compare leaderboards: which differences are more than chance, and how large a difference could have been detected.

Boards are joined by space identity and run protocol. Between two boards, a searcher of both is compared with itself.
The newcomers, which are searchers of one board only, are compared with every searcher of the other board. If both
boards have some, the newcomers are those of the board with fewer, because each further comparison makes Holm's
correction harsher. With a single board, its searchers are compared with each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tdbench.base import stats
from tdbench.base.errors import UserError
from tdbench.base.stats import Estimate, Test
from tdbench.leaderboard.boards import PROTOCOL_FIELDS, Board, Group, group_rows, latest_runs
from tdbench.leaderboard.standings import FEW_SEEDS, CountedRun, counted_runs, failure_score
from tdbench.space.settings import SPACE_COLUMNS
from tdbench.store.confirmations import engine_tag
from tdbench.store.rows import Row, space_name

MIN_PAIRS = 6  # Wilcoxon's test cannot reach 0.05 with fewer
# In a sentence about a difference, the space seed comes before the classes, which follow from it.
_SPACE_ORDER = tuple(dict.fromkeys(("data", "n", "ratio", "space_seed", *SPACE_COLUMNS)))


@dataclass(frozen=True)
class Side:
    """One searcher of one board in one space; `board` is '' if there is only one board."""

    board: str
    searcher: str
    runs: tuple[CountedRun, ...]

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(run.confirmed for run in self.runs)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.row.seed for run in self.runs)

    @property
    def confirmed(self) -> float:
        return stats.iqm(self.values)

    def __str__(self) -> str:
        return f"{self.searcher} ({self.board})" if self.board else self.searcher


@dataclass(frozen=True)
class Comparison:
    """A minus B in confirmed taskness.

    Attributes:
        difference: of the interquartile means, with its interval over seeds.
        test: Wilcoxon's signed-rank test if a searcher is compared with itself on the same 6 or more seeds, else
            Mann-Whitney's.
        p_holm: its p-value after Holm's correction over the comparisons of the table.
        improvement: probability that a run of A confirms higher than one of B.
        detectable: smallest true difference that the test at this number of seeds and comparisons finds in 80 % of
            cases; inf if it can find none.
    """

    a: Side
    b: Side
    difference: Estimate
    test: Test
    p_holm: float
    improvement: Estimate
    detectable: float

    @property
    def verdict(self) -> str:
        """``higher`` or ``lower`` if the corrected test says so at the 5 % level, else ``undecided``."""
        if not self.p_holm < stats.ALPHA:
            return "undecided"
        # The test compares ranks, so their direction decides, not the direction of the means.
        return "higher" if self.improvement.value > 0.5 else "lower"


@dataclass(frozen=True)
class ComparisonTable:
    """The comparisons of one space, or of several that `force` joined."""

    name: str
    protocol: str
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class OverSpaces:
    """A minus B over spaces: the mean of the differences within each space, with an interval over spaces."""

    a: str
    b: str
    difference: Estimate
    higher_in: int


@dataclass(frozen=True)
class Compared:
    tables: tuple[ComparisonTable, ...]
    over_spaces: tuple[OverSpaces, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Unit:
    """Rows of several boards that may be compared, in the boards' order."""

    name: str
    protocol: str
    parts: tuple[tuple[str, tuple[Row, ...]], ...]
    forced: str = ""


_Groups = dict[Group, tuple[Row, ...]]


def compare(boards: Sequence[Board], *, force: bool = False) -> Compared:
    """Compare the searchers of leaderboards.

    Args:
        force: also compare results that differ in space, budget or protocol, with a warning.

    Raises:
        UserError: a board has no space and protocol in common with another; the message names what differs.
    """
    groups = [{key: tuple(rows) for key, rows in group_rows(latest_runs(board.rows)).items()} for board in boards]
    units, left = _units(boards, groups, force)
    tables = [_table(unit) for unit in units]
    warnings = [*left, *_environment_warnings(units)]
    return Compared(tuple(tables), tuple(_over_spaces(tables)), tuple(warnings))


def compare_sides(a: Side, b: Side, *, comparisons: int = 1, may_pair: bool = True) -> Comparison:
    """A against B, before Holm's correction; `comparisons` is the number of comparisons in the table."""
    paired = may_pair and a.searcher == b.searcher and a.seeds == b.seeds and len(a.seeds) >= MIN_PAIRS
    x, y = np.array(a.values), np.array(b.values)
    test = stats.paired_test(x, y) if paired else stats.rank_test(x, y)
    alpha = stats.ALPHA / comparisons
    sd = float(np.std(x - y, ddof=1)) if paired else stats.pooled_sd(x, y)
    n_b = None if paired else len(y)
    return Comparison(
        a,
        b,
        stats.difference(x, y, paired=paired),
        test,
        test.p,
        stats.improvement(x, y),
        stats.detectable_difference(sd, len(x), n_b, alpha=alpha, smallest_p=test.smallest_p),
    )


def _units(boards: Sequence[Board], groups: Sequence[_Groups], force: bool) -> tuple[list[_Unit], list[str]]:
    """What may be compared, and a line for each space of a board that cannot be."""
    fewest = min(2, len(boards))
    keys = list(dict.fromkeys(key for board_groups in groups for key in board_groups))
    units = []
    used: set[tuple[int, Group]] = set()
    for key in keys:
        members = [(i, key) for i, board_groups in enumerate(groups) if key in board_groups]
        if len(members) >= fewest:
            units.append(_unit(boards, groups, members))
            used.update(members)
    left = [(i, key) for i, board_groups in enumerate(groups) for key in board_groups if (i, key) not in used]
    if force and left:
        for members in _forced_members(left, every=not units):
            units.append(_unit(boards, groups, members))
            used.update(members)
        left = [member for member in left if member not in used]
    for i, board in enumerate(boards):
        if not any(member[0] == i for member in used):
            reason = _why_not(boards, groups, i)
            hint = "each board must hold one space and protocol for --force" if force else "--force compares them"
            raise UserError(f"{board.label} cannot be compared: {reason}; {hint}")
    lines = [
        f"not compared: {space_name(groups[i][key][0])} of {boards[i].label}, {key[1]}"
        + (f" ({_why_not(boards, groups, i, key)})" if len(boards) > 1 else "")
        for i, key in left
    ]
    return units, lines


def _unit(boards: Sequence[Board], groups: Sequence[_Groups], members: Sequence[tuple[int, Group]]) -> _Unit:
    parts = tuple((boards[i].label if len(boards) > 1 else "", groups[i][key]) for i, key in members)
    rows = [part[0] for _, part in parts]
    fields = _differing(rows)
    forced = "; ".join(_difference_text(field, [boards[i].label for i, _ in members], rows) for field in fields)
    names, protocols = (
        list(dict.fromkeys(values)) for values in (map(space_name, rows), (str(k[1]) for _, k in members))
    )
    return _Unit(" / ".join(names), " / ".join(protocols), parts, forced)


def _forced_members(left: Sequence[tuple[int, Group]], every: bool) -> Iterable[list[tuple[int, Group]]]:
    """Groups without a partner that `force` joins: those of one space, else all; at most one of each board."""

    def one_each(members: Sequence[tuple[int, Group]]) -> bool:
        indices = [i for i, _ in members]
        return len(indices) > 1 and len(set(indices)) == len(indices)

    found = False
    for space in dict.fromkeys(key[0] for _, key in left):
        members = [member for member in left if member[1][0] == space]
        if one_each(members):
            found = True
            yield members
    if every and not found and one_each(left):
        yield list(left)


def _differing(rows: Sequence[Row]) -> list[str]:
    fields = [f for f in (*_SPACE_ORDER, *PROTOCOL_FIELDS) if len({getattr(row, f) for row in rows}) > 1]
    same_space = len({row.space for row in rows}) == 1
    return fields if same_space or any(f in SPACE_COLUMNS for f in fields) else ["space", *fields]


def _difference_text(field: str, labels: Sequence[str], rows: Sequence[Row]) -> str:
    values = ", ".join(
        f"{'no' if (value := getattr(row, field)) == '' else value} in {label}"
        for label, row in zip(labels, rows, strict=True)
    )
    name = "the images (space identity)" if field == "space" else field.replace("_", "-")
    return f"{name} differs: {values}"


def _why_not(boards: Sequence[Board], groups: Sequence[_Groups], i: int, key: Group | None = None) -> str:
    """What differs between a board and the group of another board that differs least."""
    own = [groups[i][key]] if key is not None else list(groups[i].values())
    pairs = [
        (_differing([mine[0], theirs[0]]), mine[0], theirs[0], j)
        for mine in own
        for j, other in enumerate(groups)
        if j != i
        for theirs in other.values()
    ]
    fields, mine, theirs, j = min(pairs, key=lambda pair: (pair[1].space != pair[2].space, len(pair[0])))
    return "; ".join(_difference_text(f, [boards[i].label, boards[j].label], [mine, theirs]) for f in fields)


def _table(unit: _Unit) -> ComparisonTable:
    failure = failure_score(row for _, rows in unit.parts for row in rows)
    boards = [
        {
            name: Side(label, name, tuple(counted_runs([row for row in rows if row.searcher == name], failure)))
            for name in sorted({row.searcher for row in rows})
        }
        for label, rows in unit.parts
    ]
    pairs = list(_pairs(boards))
    raw = [compare_sides(a, b, comparisons=len(pairs), may_pair=not unit.forced) for a, b in pairs]
    adjusted = stats.holm([comparison.test.p for comparison in raw])
    comparisons = tuple(replace(c, p_holm=p) for c, p in zip(raw, adjusted, strict=True))
    return ComparisonTable(unit.name, unit.protocol, comparisons, tuple(_warnings(unit, boards, comparisons, failure)))


def _pairs(boards: Sequence[dict[str, Side]]) -> Iterable[tuple[Side, Side]]:
    if len(boards) == 1:
        yield from itertools.combinations(boards[0].values(), 2)
    for first, second in itertools.combinations(boards, 2):
        own = (
            [side for name, side in first.items() if name not in second],
            [side for name, side in second.items() if name not in first],
        )
        newcomers = min((sides for sides in own if sides), key=len, default=[])
        for a, b in itertools.product(first.values(), second.values()):
            if a.searcher == b.searcher or a in newcomers or b in newcomers:
                yield a, b


def _warnings(
    unit: _Unit, boards: Sequence[dict[str, Side]], comparisons: Sequence[Comparison], failure: float
) -> Iterable[str]:
    if unit.forced:
        yield f"compared by force: {unit.forced}"
    sides = [side for board in boards for side in board.values()]
    if few := [f"{side} has {len(side.runs)}" for side in sides if len(side.runs) < FEW_SEEDS]:
        yield f"fewer than {FEW_SEEDS} seeds: {', '.join(few)}"
    if failed := [
        f"{sum(r.failed for r in side.runs)} of {side}" for side in sides if any(r.failed for r in side.runs)
    ]:
        yield f"failed runs count as taskness {failure:.3g}: {', '.join(failed)}"
    for name in sorted({side.searcher for side in sides}):
        versions = {
            side.board: sorted({run.row.searcher_version for run in side.runs})
            for side in sides
            if side.searcher == name
        }
        if len({v for values in versions.values() for v in values}) > 1:
            yield f"versions of {name} differ: {_by_board(versions)}"
    if any(math.isinf(comparison.detectable) for comparison in comparisons):
        yield (
            f"with {len(comparisons)} comparisons at these numbers of seeds no difference, however large, can reach "
            f"p < {stats.ALPHA} after correction (detectable: none); run more seeds"
        )


def _environment_warnings(units: Sequence[_Unit]) -> Iterable[str]:
    """Engines, hardware and versions that are not the same for all compared rows."""
    rows = {
        label: [row for unit in units for other, part in unit.parts if other == label for row in part]
        for label in dict.fromkeys(label for unit in units for label, _ in unit.parts)
    }
    engines = {
        label: sorted({engine_tag(row.engine, row.device, row.engine_detail) for row in part})
        for label, part in rows.items()
    }
    hardware = {label: sorted({row.hardware for row in part}) for label, part in rows.items()}
    for what, found in (("engines", engines), ("hardware", hardware)):
        if len({value for values in found.values() for value in values}) > 1:
            yield f"{what} differ: {_by_board(found)}"
    packages = {label: _packages(part) for label, part in rows.items()}
    for package in sorted({name for found in packages.values() for name in found}):
        versions = {label: sorted(found.get(package, {"none"})) for label, found in packages.items()}
        if len({value for values in versions.values() for value in values}) > 1:
            yield f"versions of {package} differ: {_by_board(versions)}"


def _packages(rows: Iterable[Row]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        for pair in row.versions.split():
            package, _, version = pair.partition("=")
            found.setdefault(package, set()).add(version)
    return found


def _by_board(found: dict[str, list[str]]) -> str:
    return ", ".join(
        " and ".join(value or "unknown" for value in values) + (f" in {board}" if board else "")
        for board, values in found.items()
    )


def _over_spaces(tables: Sequence[ComparisonTable]) -> Iterable[OverSpaces]:
    differences: dict[tuple[str, str], list[float]] = {}
    for table in tables:
        for comparison in table.comparisons:
            differences.setdefault((str(comparison.a), str(comparison.b)), []).append(comparison.difference.value)
    for (a, b), values in differences.items():
        if len(values) > 1:
            yield OverSpaces(a, b, stats.mean_interval(values), sum(value > 0 for value in values))
