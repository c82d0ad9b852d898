"""What the public Python API takes beside plain Python: numpy's numbers, arrays of other libraries, and paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CHEAP

from tdbench import TaskSpace, bench, run
from tdbench.settings import Options, RunSettings
from tdbench.space.sources import Source, load_source

MINE = Source("mine", np.zeros((60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 6, tuple("abcdef"))
SPACE = TaskSpace(MINE, n=12, ratio=2, steps=6, engine="batched", device="cpu")
LABELS = SPACE.random_labelings(2)


def test_numpy_scalars_are_numbers_and_truth_values() -> None:
    plain = RunSettings(n=20, seed=3, budget=64, lr=0.5, confirm=4)
    numpy = RunSettings(n=np.int32(20), seed=np.uint8(3), budget=np.int64(64), lr=np.float32(0.5), confirm=np.int16(4))
    assert numpy == plain
    assert numpy.key(SPACE) == plain.key(SPACE)
    assert Options(resume=np.bool_(True), workers=np.int64(2), ask_timeout=np.float32(2)).resume is True
    assert np.array_equal(SPACE.random_labelings(np.int64(2), seed=np.uint32(0)), LABELS)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.tolist(),
        LABELS.astype(bool),
        LABELS.astype(np.float16),
        torch.tensor(LABELS),
        pd.DataFrame(LABELS),
        np.asfortranarray(LABELS),
    ],
    ids=["lists", "bool", "float16", "tensor", "frame", "by column"],
)
def test_labels_of_other_libraries_are_worth_the_same(labels: object) -> None:
    assert np.array_equal(SPACE.taskness(labels), SPACE.taskness(LABELS))


def test_one_labeling_may_be_a_series() -> None:
    assert np.array_equal(SPACE.confirm(pd.Series(LABELS[0]), 2), SPACE.confirm(LABELS[0], 2))


def test_no_labelings_are_worth_nothing() -> None:
    assert SPACE.taskness(np.empty((0, 12))).shape == (0,)
    assert SPACE.confirm(np.empty((0, 12)), 3).shape == (0, 3)


def test_paths_are_taken_where_strings_are(tmp_path: Path) -> None:
    plugin, data = tmp_path / "mine.py", tmp_path / "mine.npz"
    np.savez(data, images=MINE.images, labels=MINE.labels)
    plugin.write_text("")
    assert load_source(data).name == TaskSpace(data, n=12, ratio=2).source == "mine"
    chosen = {**CHEAP, "n": 12, "ratio": 2, "data": data, "plugins": [plugin], "data_dir": tmp_path}
    result = run("random", out=tmp_path / "a", **chosen)
    (again,) = bench("random", seeds=1, out=str(tmp_path / "b"), **{**chosen, "data": str(data)})
    assert (result.row.status, result.row.run) == ("ok", again.row.run)
