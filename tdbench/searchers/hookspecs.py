"""The hooks: all that a plugin can do, on one page.

A plugin is a module with functions marked `@tdbench.hookimpl`, made known by one entry-point line:

    [project.entry-points.tdbench]
    mine = "mine"
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence

import pluggy

from tdbench.searchers.reduction import ReductionFactory
from tdbench.searchers.searcher import Factory, VariantFactory

PROJECT = "tdbench"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class RegisterSearcher(typing.Protocol):
    """What a plugin calls, once for each of its searchers."""

    def __call__(
        self,
        name: str,
        factory: Factory | VariantFactory,
        *,
        summary: str = "",
        version: str | None = None,
        sees_images: bool = False,
        baseline: bool = False,
        reducible: bool = True,
        takes_start: bool = False,
        batch: int | None = None,
        variants: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """Register a searcher.

        Args:
            name: what `--searcher` takes.
            factory: ``factory(problem) -> Searcher``; with `variants`, ``factory(problem, variant)``.
            summary: one line for `tdbench searchers`; the factory's first docstring line by default.
            version: shown in leaderboards; the version of the plugin's distribution by default.
            sees_images: the searcher uses `problem.images`.
            baseline: it does not learn, so its contract only asks that it be no worse than random.
            reducible: it runs in any `problem.dim`. With False its vectors must be scores of the images themselves, so
                a reduction is refused before a run begins, and `problem.dim` is always `problem.n_images`.
            takes_start: it uses `problem.start`. For others ``--start`` is refused, before a run begins.
            batch: how many vectors it prefers to be asked for at a time, such as its population. Runs whose user gives
                no batch have this one, or the budget of their search where that is less. Without it they have 32.
            variants: names V for which ``name:V`` is a searcher of its own (all optimizers of a library, say).

        Raises:
            UserError: an empty or unprintable name, one with a ``+``, or one registered twice by the same plugin.
        """
        ...


@hookspec
def register_searchers(register: RegisterSearcher) -> None:
    """Called once when plugins are loaded: call ``register(name, factory, ...)`` for each searcher."""


class RegisterReduction(typing.Protocol):
    """What a plugin calls, once for each of its reductions."""

    def __call__(
        self,
        name: str,
        factory: ReductionFactory,
        *,
        summary: str = "",
        version: str | None = None,
        sees_images: bool = False,
        takes_dim: bool = True,
    ) -> None:
        """Register a reduction.

        Args:
            name: what `--reduction` takes, written ``name:D``: letters, digits, ``-`` and ``_``, a letter first.
            factory: ``factory(problem) -> Reduction``.
            summary: one line for `tdbench searchers`; the factory's first docstring line by default.
            version: shown in leaderboards; the version of the plugin's distribution by default.
            sees_images: the reduction uses `problem.images`.
            takes_dim: its length D is the user's choice. With False it has one of its own and is written ``name``.

        Raises:
            UserError: a name of other characters, ``identity``, or one registered twice by the same plugin.
        """
        ...


@hookspec
def register_reductions(register: RegisterReduction) -> None:
    """Called once when plugins are loaded: call ``register(name, factory, ...)`` for each reduction."""
