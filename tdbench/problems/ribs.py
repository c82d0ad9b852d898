"""A quality-diversity search of a space with pyribs. It needs ribs, which is optional."""

from __future__ import annotations

import numpy as np
from ribs.archives import GridArchive
from ribs.emitters import GaussianEmitter
from ribs.schedulers import Scheduler

from tdbench.base.errors import UserError, echo, nearest
from tdbench.space.objective import Objective


def ribs_search(
    objective: Objective,
    evaluations: int,
    references: tuple[str, str] = ("brightest", "bright top"),
    *,
    batch: int = 32,
    seed: int = 0,
) -> GridArchive:
    """The best labeling found for each overlap with two reference tasks: MAP-Elites on a grid of (P + 1, P + 1) cells.

    A cell (i, j) is for labelings that share i positives with the first reference task and j with the second. The
    archive's objective is taskness as told, so with fresh noise its elites are partly luck: confirm them.

    Args:
        evaluations: how many, rounded up to whole batches.
        references: names of two of the space's `reference_tasks`.

    Raises:
        UserError: a name that none of the reference tasks has.
    """
    space = objective.space
    tasks = {task.name: task.labels for task in space.reference_tasks}
    if unknown := [name for name in references if name not in tasks]:
        raise UserError(f"{space.name} has no reference task {echo(unknown[0])}{nearest(unknown[0], tasks)}")
    positives = np.stack([tasks[name] for name in references], axis=1).astype(np.float64)
    sizes = [space.n_positives + 1] * 2
    archive = GridArchive(solution_dim=space.n, dims=sizes, ranges=[(-0.5, size - 0.5) for size in sizes], seed=seed)
    middle = objective.bounds.mean(axis=1)
    emitter = GaussianEmitter(archive, sigma=0.2, x0=middle, bounds=objective.bounds, batch_size=batch, seed=seed)
    scheduler = Scheduler(archive, [emitter])
    for _ in range(0, evaluations, batch):
        scores = scheduler.ask()
        scheduler.tell(1.0 - objective.batch(scores), space.decode(scores) @ positives)
    return archive
