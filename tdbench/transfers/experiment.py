"""A transfer from libraries to targets: draw the spaces, plan, train, and describe what was measured."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tdbench.base import environment
from tdbench.base.arguments import path_text
from tdbench.base.errors import UserError, echo
from tdbench.space.settings import SpaceSettings
from tdbench.space.sources import Source, load_source
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import tag_of
from tdbench.store.curves import RememberedTrainings
from tdbench.store.library import TaskLibrary
from tdbench.tasks.scoring import space_of
from tdbench.transfers.protocol import measure
from tdbench.transfers.result import TransferResult
from tdbench.transfers.settings import TransferSettings
from tdbench.transfers.sources import Plan, plan
from tdbench.transfers.words import before

CLASSES = "classes"


def transfer_between(
    library: TaskLibrary | None,
    targets: TaskLibrary | None,
    settings: TransferSettings,
    trainings: RememberedTrainings,
    *,
    space: SpaceSettings | None = None,
    data: str | None = None,
    data_dir: str | None = None,
    download: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> TransferResult:
    """Measure what sources on one image set add to targets on others.

    Args:
        library: found tasks; None has only the controls, on the image set of `space`.
        targets: a library whose tasks are the targets; None has class tasks of new image sets.
        data: the path of the images, where libraries were made from a file.
        say: is called with what a run of this size can detect, before it trains.

    Raises:
        UserError: what cannot be measured, see `sources.plan`.
    """
    engine = trainings.engine
    where: dict[str, Any] = {"data": data, "data_dir": data_dir, "download": download}
    if library is not None:
        source_space, source = space_of(library, engine, **where)
    else:
        chosen = SpaceSettings() if space is None else space
        source = load_source(chosen.data, data_dir, download)
        source_space = TaskSpace.of(chosen, source, engine)
    target = None if targets is None else (targets, space_of(targets, engine, **where)[0])
    made = plan(source_space, source, library, settings, trainings, target)
    say(before(len(made.targets)))
    return TransferResult(
        tuple(measure(made, settings, trainings)), about(source_space, source, made, settings, trainings)
    )


def about(
    space: TaskSpace, source: Source, made: Plan, settings: TransferSettings, trainings: RememberedTrainings
) -> dict[str, Any]:
    """What was measured and on what, as plain numbers and texts."""
    first = made.targets[0].space
    engine = trainings.engine
    return {
        "sources": f"{space.n} images of {source.name}, 1:{space.ratio}, seed {space.seed}",
        "targets": f"{first.n} images of {first.source}, 1:{first.ratio}",
        "source_n": space.n,
        "pretrain_steps": settings.pretrain_steps or space.protocol.steps,
        "steps": first.protocol.steps,
        "replicates": settings.replicates,
        "engine": tag_of(engine),
        "version": environment.version("tdbench"),
        "hardware": environment.hardware(engine.device),
    }


def load_targets(targets: TaskLibrary | str | os.PathLike[str]) -> TaskLibrary | None:
    """The library of the targets, or None for ``classes``. Raises UserError for anything else."""
    if isinstance(targets, TaskLibrary):
        return targets
    name = path_text("targets", targets)
    if name == CLASSES:
        return None
    if not name.endswith(".npz"):
        raise UserError(f"targets must be {CLASSES} or the .npz of a task library, got {echo(name)}")
    return TaskLibrary.load(name)
