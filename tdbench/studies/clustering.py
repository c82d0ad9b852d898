"""Clustering: can clusters of label vectors make the space small? Their average ablation, and how low it can be.

The default is the four reference rows of k-means, and rows of mean-shift. --clusters, --samples, --n or --ratio give
rows of other sizes instead; with --clusters there are rows of k-means only. --full is the whole table: N = 20, 100 and
400, up to 12,000 clusters of 150,000 label vectors, on one thread, one repeat. Its time is an estimate: rows of N = 400
(K = 400 to 1,000, M = 10,000 and 20,000) and of N = 100 (K = 1,000, M = 20,000) took 1.8 to 2.9 ns of CPU times K M N.
So the whole table takes about an hour, half of it for the largest row, and at most 3 GB. Nothing is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd
import sklearn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from tdbench.base.errors import UserError
from tdbench.base.rng import random_labelings
from tdbench.base.stats import Estimate, mean_interval
from tdbench.report.style import INK, PALE_INK, SERIES
from tdbench.space.settings import check_seed, check_sizes
from tdbench.studies._common import interval_words, label_axes, panels, setting, shown
from tdbench.studies._lab import Findings, Lab
from tdbench.toolkit.clustering import ITERATIONS, Bound, average_ablation, bandwidth, kmeans, mean_shift

TOLERANCE = Fraction(1, 5)  # the ablation that a task tolerates; the study `ablation` measures it
MOST_VALUES = 400_000_000  # M N: about what fits into 16 GB
DEFAULT = {"n": 20, "ratio": 4, "clusters": 150, "samples": 5000}
QUICK = {"samples": (1000, 5000), "mean_shift": 200}


@dataclass(frozen=True)
class Row:
    """One clustering of `samples` label vectors of `n` images: by k-means into `clusters`, or by mean-shift.

    Attributes:
        percent: mean-shift's bandwidth is the distance of label vectors that differ in this share of their positives.
    """

    method: str
    n: int
    ratio: int
    samples: int
    clusters: int = 0
    percent: int = 0

    @property
    def n_positives(self) -> int:
        return self.n // (self.ratio + 1)

    @property
    def space(self) -> str:
        return f"N = {self.n}, 1:{self.ratio}"

    def labels(self, seed: int) -> NDArray[np.uint8]:
        """(M, N) label vectors; a larger M begins with the same ones."""
        return random_labelings(self.samples, self.n, self.n_positives, seed)

    def cluster(self, seed: int) -> NDArray[np.float64]:
        """(3,) average cluster ablation, clusters, distinct label vectors."""
        labels = self.labels(seed)
        distinct = len(np.unique(np.packbits(labels, axis=1), axis=0))
        if self.method == "kmeans":
            return np.array([average_ablation(labels, kmeans(labels, self.clusters, seed)[1]), self.clusters, distinct])
        found = mean_shift(labels, bandwidth(self.n_positives, self.percent / 100))
        return np.array([average_ablation(labels, found), found.max() + 1, distinct])


REFERENCE = {
    Row("kmeans", 20, 4, 1000, 150): 0.201,
    Row("kmeans", 20, 4, 5000, 150): 0.240,
    Row("kmeans", 20, 4, 100_000, 150): 0.257,
    Row("kmeans", 100, 9, 20_000, 1000): 0.51,
}
FULL = [
    Row("kmeans", n, ratio, samples, clusters)
    for n, ratio, all_clusters, all_samples in (
        (20, 4, (150, 500, 1000), (1000, 5000, 20_000, 100_000, 150_000)),
        (100, 9, (1000, 4000, 12_000), (20_000, 150_000)),
        (400, 9, (1000, 4000, 12_000), (20_000, 150_000)),
    )
    for clusters in all_clusters
    for samples in all_samples
]


@dataclass(frozen=True)
class Settings:
    """Which rows the table has, and the number of repeats of each.

    Raises:
        UserError: a setting that is out of range.
    """

    n: int | None = setting(None, f"Images N; {DEFAULT['n']} if only other sizes are given.")
    ratio: int | None = setting(None, f"Negatives per positive; {DEFAULT['ratio']} if only other sizes are given.")
    clusters: tuple[int, ...] | None = setting(None, "K of k-means, one or several. With it there is no mean-shift.")
    samples: tuple[int, ...] | None = setting(None, f"Label vectors M; {DEFAULT['samples']} or 10 for each cluster.")
    mean_shift: int = setting(500, "Label vectors for mean-shift, at most; time grows with the square.")
    bandwidths: tuple[int, ...] = setting((20, 40, 60, 80), "Ablations in % whose distance is mean-shift's bandwidth.")
    full: bool = setting(False, "The whole table, about an hour.")
    repeats: int | None = setting(None, "Independent samples for each row; 5, with --full 1.")
    seed: int = setting(0, "Seed of the first sample and its clustering; the others follow.")

    def __post_init__(self) -> None:
        if self.full and self._has_sizes:
            raise UserError("--full has sizes of its own; leave out --quick, --n, --ratio, --clusters and --samples")
        for name in ("repeats", "mean_shift"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name in ("clusters", "samples", "bandwidths"):
            values = getattr(self, name)
            if values is not None and (not values or min(values) < 1):
                raise UserError(f"{name} must be numbers of at least 1, got {','.join(map(str, values)) or 'none'}")
        check_seed("seed", self.seed)
        check_seed("seed + repeats - 1", self.seeds[-1])
        for row in self.rows():
            _check(row)

    @property
    def seeds(self) -> range:
        """The seed of each repeat."""
        return range(self.seed, self.seed + (self.repeats or (1 if self.full else 5)))

    @property
    def _has_sizes(self) -> bool:
        return any(value is not None for value in (self.n, self.ratio, self.clusters, self.samples))

    def rows(self) -> list[Row]:
        """The rows of the table: k-means, then mean-shift unless a number of clusters was given."""
        if self.full:
            rows = [row for row in FULL if row.clusters <= row.samples]
        elif not self._has_sizes:
            rows = list(REFERENCE)
        else:
            rows = self._chosen()
        if self.clusters is not None:
            return rows
        most = {(row.n, row.ratio): min(row.samples, self.mean_shift) for row in rows}
        return rows + [
            Row("meanshift", n, ratio, samples, percent=p)
            for (n, ratio), samples in most.items()
            for p in self.bandwidths
        ]

    def _chosen(self) -> list[Row]:
        n = DEFAULT["n"] if self.n is None else self.n
        ratio = DEFAULT["ratio"] if self.ratio is None else self.ratio
        rows = []
        for clusters in self.clusters or (0,):
            for samples in self.samples or (max(DEFAULT["samples"], 10 * clusters),):
                rows.append(Row("kmeans", n, ratio, samples, clusters or min(DEFAULT["clusters"], samples)))
        return list(dict.fromkeys(rows))


def _check(row: Row) -> None:
    check_sizes(row.n, row.ratio)
    if row.clusters > row.samples:
        raise UserError(
            f"expected at most as many clusters as samples, got {row.clusters} clusters of {row.samples} label "
            "vectors; raise --samples"
        )
    if row.samples * row.n > MOST_VALUES:
        raise UserError(
            f"{row.samples} label vectors of {row.n} images do not fit into 16 GB; the most at this N is "
            f"{MOST_VALUES // row.n}"
        )


def study(settings: Settings, lab: Lab) -> Findings:
    """Cluster independent samples of label vectors, and remember each clustering."""
    rows = settings.rows()
    results = []
    with lab.counting("clusterings", len(rows) * len(settings.seeds)) as advance:
        for row in rows:
            repeats = []
            for seed in settings.seeds:
                key = f"clustering {row} seed {seed}, {ITERATIONS} iterations, scikit-learn {sklearn.__version__}"
                repeats.append(lab.remembered(key, lambda row=row, seed=seed: row.cluster(seed)))  # type: ignore[misc]
                advance(1)
            results.append(np.stack(repeats))
    table = pd.DataFrame([_line(row, result) for row, result in zip(rows, results, strict=True)])
    return Findings(table, _figure(table), _paragraph(table))


def _line(row: Row, repeats: NDArray[np.float64]) -> dict[str, object]:
    """A line of the table from the (repeats, 3) results of a row; counts are rounded means."""
    ablation = mean_interval(repeats[:, 0])
    clusters, distinct = (round(count) for count in repeats[:, 1:].mean(axis=0))
    bound = Bound(row.n, row.n_positives)
    is_kmeans = row.method == "kmeans"
    return {
        "method": row.method,
        "n": row.n,
        "ratio": row.ratio,
        "clusters": clusters,
        "samples": row.samples,
        "distinct_samples": distinct,
        "bandwidth_percent": np.nan if is_kmeans else row.percent,
        "bandwidth": np.nan if is_kmeans else bandwidth(row.n_positives, row.percent / 100),
        "average_cluster_ablation": ablation.value,
        "low": ablation.low,
        "high": ablation.high,
        "repeats": ablation.n,
        "expected": REFERENCE.get(row, np.nan),
        "bound": bound.at(clusters),
        "clusters_for_20_percent": float(bound.clusters_for(TOLERANCE)),
        "labelings": float(bound.labelings),
    }


def _figure(table: pd.DataFrame) -> Figure:
    figure, grid = panels(1, 2, width=9.6, height=4.4, sharey=True)
    left, right = grid[0]
    spaces = list(table.groupby(["n", "ratio"], sort=False))
    for colour, ((n, ratio), rows) in zip(SERIES, spaces, strict=False):
        name = f"N = {n}, 1:{ratio}"
        means = rows[rows["method"] == "kmeans"]
        nearest_all = means.sort_values("samples").groupby("clusters", as_index=False).last()
        _points(left, nearest_all, "clusters", colour, f"{name}: k-means, {_ranged(nearest_all['samples'])} vectors")
        _draw_bound(left, n, ratio, float(table["clusters"].max()), colour)
        shifts = rows[rows["method"] == "meanshift"]
        if len(shifts):
            label = f"{name}: mean-shift, {_ranged(shifts['samples'])} vectors"
            left.plot(
                shifts["clusters"], shifts["average_cluster_ablation"], "x", color=colour, label=label, clip_on=False
            )
        fewest = means[means["clusters"] == means["clusters"].min()].sort_values("samples")
        _points(right, fewest, "samples", colour, f"{name}: {fewest['clusters'].iloc[0]:,} clusters")
        right.axhline(fewest["bound"].iloc[0], color=colour, linestyle="--", linewidth=1.2)
    for axes, x in ((left, "clusters K"), (right, "sampled label vectors M")):
        axes.axhline(float(TOLERANCE), color=PALE_INK, linestyle=":", linewidth=1.2)
        axes.plot([], [], color=INK, linestyle="--", linewidth=1.2, label="bound over all labelings")
        axes.plot([], [], color=PALE_INK, linestyle=":", linewidth=1.2, label="20 %")
        axes.set_xscale("log")
        label_axes(axes, x, "average cluster ablation (share of P)")
        axes.tick_params(labelleft=True)
        axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        axes.xaxis.set_minor_formatter(NullFormatter())
    left.set_ylim(0, 1)
    right.set_xlim(*_decades(table.loc[table["method"] == "kmeans", "samples"]))
    return figure


def _decades(values: pd.Series) -> tuple[float, float]:
    low = math.floor(math.log10(values.min() / 1.1))
    return 10.0**low, 10.0 ** max(math.ceil(math.log10(values.max() * 1.1)), low + 1)


def _points(axes: Axes, rows: pd.DataFrame, x: str, colour: str, label: str) -> None:
    rows = rows.sort_values(x)
    axes.plot(
        rows[x], rows["average_cluster_ablation"], color=colour, linewidth=1.8, marker="o", markersize=4, label=label
    )
    axes.vlines(rows[x], rows["low"], rows["high"], color=colour, linewidth=1.4, alpha=0.65)


def _draw_bound(axes: Axes, n: int, ratio: int, most: float, colour: str) -> None:
    bound = Bound(n, n // (ratio + 1))
    clusters = np.unique(np.geomspace(1, max(10 * most, 10_000), 120).round())
    axes.plot(clusters, [bound.at(int(k)) for k in clusters], color=colour, linestyle="--", linewidth=1.2)


def _ranged(values: Iterable[int]) -> str:
    low, high = min(values := list(values)), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _estimate(line: pd.Series) -> Estimate:
    return Estimate(100 * line["average_cluster_ablation"], 100 * line["low"], 100 * line["high"], int(line["repeats"]))


def _paragraph(table: pd.DataFrame) -> str:
    means, shifts = (table[table["method"] == method] for method in ("kmeans", "meanshift"))
    lines = [line for _, line in means.iterrows()]
    estimates = [_estimate(line) for line in lines]
    parts = [
        f"N = {line['n']}, 1:{line['ratio']}, {line['clusters']:,} clusters of {line['samples']:,} vectors: "
        f"{shown(e, 1)} %{_beside(line)}"
        for line, e in zip(lines, estimates, strict=True)
    ]
    count = int(table["repeats"].iloc[0])
    repeats = f"{count} independent sample{'s' if count > 1 else ''}"
    words = interval_words(estimates).replace("sets", "samples")
    text = f"Average cluster ablation of k-means (mean over {repeats}{words}): {'; '.join(parts)}. {_needs(table)}"
    text += _judged(means.dropna(subset=["expected"]))
    return text + (_mean_shift_words(shifts) if len(shifts) else "")


def _beside(line: pd.Series) -> str:
    expected = "" if np.isnan(line["expected"]) else f"expected {100 * line['expected']:.1f} %, "
    return f" ({expected}bound over all labelings {100 * line['bound']:.1f} %)"


def _needs(table: pd.DataFrame) -> str:
    spaces = table.drop_duplicates(["n", "ratio"])
    parts = [
        f"{_count(line['clusters_for_20_percent'])} of {_count(line['labelings'])} labelings at N = {line['n']}, "
        f"1:{line['ratio']}"
        for _, line in spaces.iterrows()
    ]
    return (
        "An average of 20 %, which a task tolerates, needs at least this many clusters with any clustering: "
        f"{', '.join(parts)}. "
    )


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e7 else f"{value:.1e}"


def _judged(referenced: pd.DataFrame) -> str:
    if not len(referenced):
        return ""
    off = (referenced["average_cluster_ablation"] - referenced["expected"]).abs()
    return (
        f"{int((off <= 0.015).sum())} of {len(referenced)} expected values are met within 1.5 points (the largest "
        f"difference is {100 * off.max():.1f}). "
    )


def _mean_shift_words(shifts: pd.DataFrame) -> str:
    alone, joined = shifts["clusters"] == shifts["distinct_samples"], shifts["clusters"] == 1
    parts = [
        f"N = {line['n']} at {line['bandwidth_percent']:.0f} %: {line['clusters']:,} of {line['distinct_samples']:,}"
        for _, line in shifts.iterrows()
    ]
    implied = shifts["bandwidth_percent"] == 20
    verdict = ""
    if implied.any():
        verdict = (
            f"That holds for {int((alone | joined)[implied].sum())} of {int(implied.sum())} spaces at 20 %, and for "
        )
        verdict += f"{int((alone | joined).sum())} of {len(shifts)} rows in all."
    return (
        f"Clusters that mean-shift finds among distinct vectors, with the bandwidth that an ablation implies: "
        f"{'; '.join(parts)}. Expected: one cluster, or a cluster for each vector. {verdict}"
    )
