"""An experiment plan in Nevergrad's registry: `task_discovery`. Importing this module registers it.

Nevergrad's benchmarks need more than Nevergrad itself: the extra `interop-nevergrad` brings it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tdbench.problems.nevergrad import NevergradFunction
from tdbench.space.sources import torchvision_datasets
from tdbench.space.task_space import TaskSpace

torchvision_datasets()  # Nevergrad imports torchvision, which a CPU-only torch needs a remedy for

from nevergrad.benchmark import registry  # noqa: E402
from nevergrad.benchmark.xpbase import Experiment, create_seed_generator  # noqa: E402

OPTIMIZERS = ("RandomSearch", "OnePlusOne", "DE", "TwoPointsDE", "PSO", "CMA", "NGOpt")


def task_discovery(seed: int | None = None) -> Iterator[Experiment]:
    """Digits, N = 50, 1:4, space seeds 0 to 4, budgets 400 and 4000, 32 workers."""
    seeds = create_seed_generator(seed)
    for space_seed in range(5):
        function = NevergradFunction(TaskSpace("digits", seed=space_seed))
        for budget in (400, 4000):
            for optimizer in OPTIMIZERS:
                drawn = next(seeds)
                drawn = None if drawn is None else int(drawn)  # Python's `random` takes no seed of numpy's types
                yield Experiment(function, optimizer, budget, num_workers=32, seed=drawn)


registry.register(task_discovery)
