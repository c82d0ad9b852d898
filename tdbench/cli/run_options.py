"""The options that `tdbench run`, `discover` and `bench` share; their defaults are those of the settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from tdbench.cli.options import PATH, names, plugin_option, with_options
from tdbench.engine.protocol import SPLITS
from tdbench.settings import DEFAULT_BATCH, PROTOCOLS, Options, RunSettings
from tdbench.space.references import CHOICES as REFERENCES
from tdbench.space.task_space import NOISE_MODES

_DEFAULTS = {field.name: field.default for kind in (Options, RunSettings) for field in dataclasses.fields(kind)}


def default(name: str) -> dict[str, Any]:
    """The default of a setting, and that the help page shows it."""
    return {"default": _DEFAULTS[name], "show_default": True}


# Options of several commands, by the setting that they give.
_COMMON: dict[str, Callable[[Any], Any]] = {
    "data": click.option("--data", help="digits, cifar10, cifar100 or the path of an .npz.", **default("data")),
    "n": click.option("--n", type=int, help="Images in the space.", **default("n")),
    "ratio": click.option("--ratio", type=int, help="Negatives per positive.", **default("ratio")),
    "space_seed": click.option("--space-seed", type=int, help="Draws the image set.", **default("space_seed")),
    "classes": click.option("--classes", callback=names,
                            help="Class names, the first one class A; random ones by default."),
    "split": click.option("--split", type=click.Choice(SPLITS), help="Train/validation split.", **default("split")),
    "steps": click.option("--steps", type=int, help="Adam steps of a training.", **default("steps")),
    "lr": click.option("--lr", type=float, help="Adam's learning rate.", **default("lr")),
    "engine": click.option("--engine", help="auto, native, cuda, batched or reference.", **default("engine")),
    "device": click.option("--device", help="auto, cpu or cuda.", **default("device")),
    "threads": click.option("--threads", type=int, help="CPU threads of the engine; one per core by default."),
    "cluster": click.option("--cluster", metavar="local:N|ADDRESS", envvar="DASK_SCHEDULER_ADDRESS", show_envvar=True,
                            help="Train on N worker processes of this machine, or on the workers of a Dask scheduler."),
    "data_dir": click.option("--data-dir", type=click.Path(),
                             help="Folder of the CIFAR sets, in torchvision's layout."),
    "download": click.option("--download", is_flag=True, help="Fetch a CIFAR set that is not there."),
}  # fmt: skip


def common(name: str) -> Callable[[Any], Any]:
    """The option that gives this setting, the same in every command that has it."""
    return _COMMON[name]


# Options of `run`, `discover` and `bench`, in the order of the help page.
_SHARED: list[Callable[[Any], Any]] = [
    common("classes"),
    click.option("--budget", type=int, help="Evaluations in a run.", **default("budget")),
    click.option("--batch", type=int,
                 help=f"Labelings asked at a time; what the searcher prefers by default, or else {DEFAULT_BATCH}."),
    click.option("--replicates", type=int, help="Trainings per evaluation.", **default("replicates")),
    click.option("--noise", type=click.Choice(NOISE_MODES), help="Replicates: new each time, or the same ones.",
                 **default("noise")),
    common("split"),
    click.option("--confirm", type=int, help="Fresh replicates that score the result.", **default("confirm")),
    click.option("--sealed", type=PATH, metavar="KEYFILE",
                 help="Draw these replicates from the secret key in a file of `tdbench new-key`."),
    common("steps"),
    common("lr"),
    click.option("--recommend", metavar="searcher|best|race:F",
                 help="What is confirmed: the searcher's own recommendation where it makes one, the best told, or the "
                      "winner of a race of the leading candidates that takes the last fraction F of the budget.",
                 **default("recommend")),
    click.option("--start", type=PATH, metavar="FILE",
                 help="Begin from the labelings of a CSV or .npz file, such as a task library."),
    click.option("--references", type=click.Choice(REFERENCES),
                 help="Reference tasks to confirm beside the result; auto: all where they cost no more trainings than "
                      "the search, else few.",
                 **default("references")),
    common("engine"),
    common("device"),
    common("threads"),
    common("cluster"),
    click.option("--out", type=PATH, help="Folder for log, leaderboards and pictures.",
                 **default("out")),
    click.option("--resume", is_flag=True, help="Go on with what was interrupted."),
    click.option("--again", is_flag=True, help="Run what is finished once more."),
    click.option("--max-seconds", type=float, help="Stop after so many seconds; --resume goes on."),
    common("data_dir"),
    common("download"),
    plugin_option,
    click.option("--searcher-log", type=PATH, metavar="FILE", help="Append what searchers print and log to this file."),
    click.option("--ask-timeout", type=float, help="Seconds a searcher may take to answer.", **default("ask_timeout")),
    click.option("--start-timeout", type=float, help="Seconds it may take to start.", **default("start_timeout")),
    click.option("--memory-limit", type=int, help="MiB a searcher may take.", **default("memory_limit")),
    click.option("--workers", type=int, help="Most searchers alive at a time.", **default("workers")),
]  # fmt: skip


# Options of the commands that run one searcher on one space.
_ONE_RUN: list[Callable[[Any], Any]] = [
    click.option("--searcher", help="As `tdbench searchers` lists it.", **default("searcher")),
    click.option("--reduction", help="Search fewer dimensions, such as ntk:20; as `tdbench searchers` lists them.",
                 **default("reduction")),
    common("data"),
    common("n"),
    common("ratio"),
    common("space_seed"),
    click.option("--seed", type=int, help="Of the searcher and its replicates.", **default("seed")),
    click.option("--threshold", metavar="auto|NUMBER",
                 help="Say whether what was found counts as a task: whether it confirms above this taskness. auto "
                      "calibrates it on random labelings, once for a setting: 2560 trainings at --confirm 32."),
]  # fmt: skip
_DISCOVERY: list[Callable[[Any], Any]] = [
    click.option("--protocol", type=click.Choice(PROTOCOLS),
                 help="How several tasks are discovered: in one joint search, or in rounds, a search for each.",
                 **default("protocol")),
    click.option("--max-similarity", type=float,
                 help="The most that two discovered labelings may be alike, from 0 (chance) to 1.",
                 **default("max_similarity")),
]  # fmt: skip


one_run_options = with_options(_ONE_RUN)  # of the commands that run one searcher on one space
discovery_options = with_options(_DISCOVERY)  # of `discover`, which `bench` has too
shared_options = with_options(_SHARED)  # of `run`, `discover` and `bench`
