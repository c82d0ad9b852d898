"""The study of clustering: what ablation is, how low it can be, and what a user may ask for."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from helpers import tdbench
from hypothesis import given, settings
from hypothesis import strategies as st

from tdbench.base.errors import UserError
from tdbench.base.rng import random_labelings
from tdbench.engine import make_engine
from tdbench.settings import Options
from tdbench.studies._lab import Lab
from tdbench.studies.clustering import FULL, MOST_VALUES, Row, Settings, study
from tdbench.toolkit.clustering import Bound, average_ablation, bandwidth, kmeans, mean_shift


def everything(n: int, n_positives: int) -> np.ndarray:
    """All label vectors of a small space."""
    ones = list(itertools.combinations(range(n), n_positives))
    labels = np.zeros((len(ones), n), dtype=np.uint8)
    np.put_along_axis(labels, np.array(ones), 1, axis=1)
    return labels


def by_the_letter(labels: np.ndarray, cluster_of: np.ndarray) -> float:
    """Average ablation as the definition has it, member by member."""
    n_positives, ablations = int(labels[0].sum()), []
    for c in np.unique(cluster_of):
        members = labels[cluster_of == c]
        centre = [Fraction(int(column.sum()), len(members)) for column in members.T]
        top = sorted(range(len(centre)), key=lambda i: (-centre[i], i))[:n_positives]
        ablations += [1 - sum(int(member[i]) for i in top) / n_positives for member in members]
    return float(np.mean(ablations))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([(6, 2), (10, 2), (12, 4), (20, 10)]))
def test_ablation_is_what_the_definition_says_for_any_clusters(seed, clusters, size):
    labels = random_labelings(30, *size, seed)
    cluster_of = np.random.default_rng(seed).integers(clusters, size=30)
    assert average_ablation(labels, cluster_of) == pytest.approx(by_the_letter(labels, cluster_of))


def test_a_tie_goes_to_the_lower_index():
    labels = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=np.uint8)  # every image as often: the representative is 0, 1
    assert average_ablation(labels, np.array([0, 0])) == 0.5


def test_a_cluster_of_equal_vectors_loses_nothing():
    labels = random_labelings(20, 12, 3, 0)
    assert average_ablation(labels, np.arange(20)) == 0
    assert average_ablation(np.repeat(labels[:1], 5, axis=0), np.zeros(5, dtype=int)) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([(6, 2), (8, 4), (9, 3)]))
def test_no_clustering_of_all_labelings_is_below_the_bound(seed, clusters, size):
    labels = everything(*size)
    bound = Bound(*size).at(clusters)
    random_clusters = np.random.default_rng(seed).integers(clusters, size=len(labels))
    assert average_ablation(labels, random_clusters) >= bound - 1e-12
    if clusters <= len(labels):
        assert average_ablation(labels, kmeans(labels, clusters, seed)[1]) >= bound - 1e-12


def test_the_bound_of_the_reference_rows():
    assert Bound(20, 4).at(150) == pytest.approx(0.242, abs=5e-4)
    assert Bound(20, 4).at(math.comb(20, 4)) == 0


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([(20, 4), (100, 10), (400, 40)]), st.integers(0, 99))
def test_clusters_needed_is_the_first_number_that_the_bound_allows(size, percent):
    bound, ablation = Bound(*size), Fraction(percent, 100)
    needed = bound.clusters_for(ablation)
    assert bound._exact(needed) <= ablation
    assert needed == 1 or bound._exact(needed - 1) > ablation


def test_bandwidth_is_the_distance_of_exchanged_positives():
    a, b = np.zeros(50), np.zeros(50)
    a[:10], b[2:12] = 1, 1  # 2 of 10 exchanged
    assert bandwidth(10, 0.2) == np.linalg.norm(a - b)


def test_mean_shift_leaves_each_vector_alone_or_joins_them_all():
    labels = random_labelings(100, 100, 10, 0)
    assert len(np.unique(mean_shift(labels, bandwidth(10, 0.2)))) == 100
    assert len(np.unique(mean_shift(labels, bandwidth(10, 0.8)))) == 1


def test_kmeans_is_the_same_again_and_leaves_the_global_generator_alone():
    labels = random_labelings(300, 20, 4, 0)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - to see that it is untouched
    one, again = kmeans(labels, 30, 5), kmeans(labels, 30, 5)
    assert (one[0] == again[0]).all()
    assert (one[1] == again[1]).all()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_the_command_makes_one_row_of_the_sizes_asked_for(tmp_path):
    sizes = ("--n", 20, "--ratio", 4, "--clusters", 150, "--samples", 2000)
    done = tdbench("study", "clustering", *sizes, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "clustering.csv")
    assert [path.name for path in tmp_path.glob("*.csv")] == ["clustering.csv"]
    assert table[["method", "n", "ratio", "clusters", "samples"]].to_numpy().tolist() == [["kmeans", 20, 4, 150, 2000]]
    row = table.iloc[0]
    assert 0.201 < row["average_cluster_ablation"] < 0.24  # between the reference rows of 1,000 and 5,000 samples
    assert row["low"] <= row["average_cluster_ablation"] <= row["high"]
    assert row["clusters_for_20_percent"] == 969


def test_reference_rows_are_reproduced_and_a_second_call_clusters_nothing(tmp_path, monkeypatch):
    sizes = Settings(samples=(1000, 5000), mean_shift=100, repeats=1)
    with Lab(Options(out=tmp_path), make_engine()) as lab:
        first = study(sizes, lab)
    monkeypatch.setattr(Row, "cluster", None)
    with Lab(Options(out=tmp_path), make_engine()) as lab:
        again = study(sizes, lab)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert first.paragraph == again.paragraph
    means = first.table[first.table["method"] == "kmeans"].set_index("samples")
    assert means["average_cluster_ablation"][1000] == pytest.approx(0.201, abs=0.015)
    assert means["average_cluster_ablation"][5000] == pytest.approx(0.240, abs=0.015)
    shifts = first.table[first.table["method"] == "meanshift"]
    at_20 = shifts[shifts["bandwidth_percent"] == 20].iloc[0]
    assert at_20["clusters"] == at_20["distinct_samples"]
    assert shifts["clusters"].iloc[-1] == 1


def test_the_full_table_has_the_original_sizes():
    rows = Settings(full=True).rows()
    means = [row for row in rows if row.method == "kmeans"]
    assert {row.n for row in means} == {20, 100, 400}
    assert max(row.clusters for row in means) == 12_000
    assert max(row.samples for row in means) == 150_000
    assert max(row.samples * row.n for row in FULL) <= MOST_VALUES


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"clusters": (300,), "samples": (200,)}, "300 clusters of 200 label vectors"),
        ({"n": 21}, "nearest valid n"),
        ({"n": 0}, "n must be a positive number"),
        ({"ratio": 0}, "ratio must be at least 1"),
        ({"n": 20, "ratio": 19}, "leaves one positive"),
        ({"clusters": (0,)}, "clusters must be numbers of at least 1"),
        ({"samples": (-5,)}, "samples must be numbers of at least 1"),
        ({"bandwidths": ()}, "bandwidths must be numbers"),
        ({"samples": (10**9,)}, "do not fit into 16 GB"),
        ({"full": True, "n": 20}, "full has sizes of its own"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"mean_shift": 0}, "mean-shift must be at least 1"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_bad_sizes_are_one_clear_line(sizes, expected):
    with pytest.raises(UserError, match=expected) as error:
        Settings(**sizes)
    assert len(str(error.value).splitlines()) == 1
