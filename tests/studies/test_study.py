"""The studies as a user has them: the command, what it writes, and going on after an interruption."""

from __future__ import annotations

import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
from helpers import command, environment, tdbench

from tdbench.engine import make_engine
from tdbench.settings import Options
from tdbench.space.executor import study_request
from tdbench.space.sources import load_source
from tdbench.space.task_space import TaskSpace
from tdbench.studies import NAMES, load_study
from tdbench.studies._lab import Lab

TINY = {"--sets": 4, "--replicates": 2, "--steps": 5}


def options(settings: dict[str, object]) -> list[object]:
    return [part for pair in settings.items() for part in pair]


def class_tasks(out, *more):
    return ["study", "class-tasks", "--n", 12, *options(TINY), "--out", out, *more]


def test_a_study_writes_a_table_a_figure_and_a_text(tmp_path):
    done = tdbench(*class_tasks(tmp_path))
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "class-tasks.csv")
    assert table["class"].nunique() == 4
    assert len(table) == 4 * 5  # a row for each step
    assert (tmp_path / "class-tasks.png").read_bytes().startswith(b"\x89PNG")
    assert "taskness" in (tmp_path / "class-tasks.md").read_text()
    assert (table["low"] <= table["validation_loss"]).all()
    assert (table["validation_loss"] <= table["high"]).all()


def test_a_second_call_trains_nothing_and_finds_the_same(tmp_path):
    tdbench(*class_tasks(tmp_path))
    first = (tmp_path / "class-tasks.csv").read_bytes()
    again = tdbench(*class_tasks(tmp_path))
    assert again.returncode == 0
    assert "/16" not in again.stderr  # no progress bar: nothing was left to train
    assert (tmp_path / "class-tasks.csv").read_bytes() == first


def test_a_killed_study_goes_on_and_ends_as_if_nothing_had_happened(tmp_path):
    arguments = ["study", "class-tasks", "--n", 40, "--sets", 4, "--replicates", 16, "--steps", 20]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert tdbench(*arguments, "--out", whole).returncode == 0
    process = subprocess.Popen(command(*arguments, "--out", killed), env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (killed / "studies.sqlite").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "class-tasks.csv").exists()
    assert tdbench(*arguments, "--out", killed).returncode == 0
    assert (killed / "class-tasks.csv").read_bytes() == (whole / "class-tasks.csv").read_bytes()


def test_more_replicates_reuse_nothing_wrongly(tmp_path):
    space = TaskSpace(n=10, steps=5)
    labels = space.random_labelings(3)
    with Lab(Options(out=tmp_path), make_engine()) as lab:
        two = lab.taskness([study_request(space, labels, 0, 2)])[0]
        three = lab.taskness([study_request(space, labels, 0, 3)])[0]
        other = lab.taskness([study_request(TaskSpace(n=10, steps=6), labels, 0, 2)])[0]
        assert (lab.taskness([study_request(space, labels, 0, 2)])[0] == two).all()
    assert (three[:, :2] == two).all()  # the same first replicates
    assert (other != two).any()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["clas-tasks"], "unknown study 'clas-tasks'; did you mean 'class-tasks'?"),
        (["class-tasks", "--n", 41], "nearest valid n"),
        (["class-tasks", "--sets", 0], "sets must be at least 1"),
        (["class-tasks", "--replicates", 0], "replicates must be at least 1"),
        (["class-tasks", "--n", 4000], "1000 are needed"),
        (["class-tasks", "--n", 30, "--classes", "1,2,x"], "no class 'x'"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, arguments, expected):
    done = tdbench("study", *arguments, *(["--out", tmp_path / "out"] if len(arguments) > 1 else []))
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_quick_settings_are_settings_of_the_study(name):
    study = load_study(name)
    study.settings(**study.quick)
    assert study.help


def test_all_studies_run_with_one_command(tmp_path):
    done = tdbench("study", "all", "--quick", *options({**TINY, "--replicates": 2}), "--out", tmp_path, timeout=280)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert len(pd.read_csv(tmp_path / f"{name}.csv")) > 0
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}: " in done.stdout


def test_a_study_that_cannot_be_run_does_not_keep_the_others_from_it(tmp_path):
    two_classes = tmp_path / "two.npz"
    digits = load_source("digits")
    kept = digits.labels < 2
    np.savez(two_classes, images=digits.images[kept], labels=digits.labels[kept])
    tiny = options({**TINY, "--sets": 1, "--data": two_classes, "--out": tmp_path / "out"})
    done = tdbench("study", "all", "--quick", *tiny, timeout=280)
    assert done.returncode == 2
    assert "class-tasks: not run: two has 2 classes, 4 are needed" in done.stderr
    assert "real-vs-random: not run: " in done.stderr  # its settings alone forbid it
    assert "studies were not run" in done.stderr.strip().splitlines()[-1]
    assert (tmp_path / "out" / "clustering.csv").exists()
