"""`tdbench bench --shard`: every run of a campaign is in one shard, which the campaign alone decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import CHEAP, as_options, called, one_error
from hypothesis import given
from hypothesis import strategies as st

import tdbench
from tdbench import UserError
from tdbench.arena.shards import Shard, first_of_spaces
from tdbench.settings import RunSettings

AXIS = st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True)
CAMPAIGNS = st.tuples(AXIS, AXIS, st.lists(st.sampled_from(["random", "umda", "cga"]), min_size=1, unique=True)).map(
    lambda axes: [
        RunSettings(**CHEAP, space_seed=space, searcher=searcher, seed=seed)
        for space in axes[0]
        for searcher in axes[2]
        for seed in axes[1]
    ]
)


@given(CAMPAIGNS, st.integers(1, 40))
def test_shards_have_every_run_once_and_as_many_as_each_other(campaign: list[RunSettings], count: int) -> None:
    parts = [Shard(i, count).part(campaign) for i in range(1, count + 1)]
    assert [run for part in parts for run in part] == campaign
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(CAMPAIGNS, st.integers(1, 40))
def test_one_shard_trains_the_references_of_a_space(campaign: list[RunSettings], count: int) -> None:
    first = first_of_spaces(campaign)
    assert {run.space for run in first} == {run.space for run in campaign}
    owners = [run.space for i in range(1, count + 1) for run in Shard(i, count).part(campaign) if run in first]
    assert len(owners) == len(set(owners))


def test_spaces_are_divided_first(tmp_path: Path) -> None:
    campaign = [RunSettings(**CHEAP, space_seed=space, seed=seed) for seed in range(3) for space in range(4)]
    parts = [Shard(i, 4).part(campaign) for i in range(1, 5)]
    assert [{run.space_seed for run in part} for part in parts] == [{0}, {1}, {2}, {3}]


@pytest.mark.parametrize("shard", ["0/4", "5/4", "-1/4", "1/0", "3", "1/2/3", "a/b", "", "1.5/4", "1/9999999"])
def test_a_shard_that_is_none_is_one_clear_line(shard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = as_options({**CHEAP, "searchers": "random", "out": tmp_path / "out"})
    code, _, error = called(capsys, "bench", *options, f"--shard={shard}")
    assert "shard must be I/K with I from 1 to K, such as 3/16" in one_error(code, error)
    assert not (tmp_path / "out").exists()


def test_a_shard_in_python_is_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shard must be I/K"):
        tdbench.bench("random", shard=3, out=tmp_path, **CHEAP)  # type: ignore[arg-type]


def test_a_shard_says_which_runs_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = as_options({**CHEAP, "searchers": "random,umda", "seeds": 2, "out": tmp_path})
    code, out, error = called(capsys, "bench", *options, "--shard", "2/2")
    assert code == 0
    assert "2 runs ended well, 0 failed" in out
    assert "random" not in out
    line = next(line for line in error.splitlines() if line.startswith("shard"))
    where = "on digits, n=10, ratio=4, space seed 0"
    assert line == f"shard 2/2: 2 of 4 runs, from umda with seed 0 {where} to umda with seed 1 {where}"


@pytest.mark.parametrize("form", ["table", "json"])
def test_an_empty_shard_says_so_and_ends_well(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = as_options({**CHEAP, "searchers": "random", "seeds": 2, "out": tmp_path, "format": form})
    code, out, error = called(capsys, "bench", *options, "--shard", "1/5")
    assert code == 0
    assert "shard 1/5: none of the 2 runs of the campaign; it has fewer runs than shards" in error
    assert "0 runs ended well, 0 failed" in (out if form == "table" else error)
    assert called(capsys, "status", "--out", tmp_path)[0] == 0


def test_a_config_file_may_name_the_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = tmp_path / "campaign.toml"
    campaign.write_text('searchers = ["random"]\nseeds = 4\nshard = "1/4"\n')
    code, out, _ = called(capsys, "bench", campaign, *as_options({**CHEAP, "out": tmp_path / "out"}))
    assert code == 0
    assert "1 runs ended well" in out
