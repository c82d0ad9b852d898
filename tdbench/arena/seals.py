"""Whether the key that was given is the one that the runs were sealed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tdbench.base.errors import UserError
from tdbench.settings import Options, RunSettings
from tdbench.store.log import RunRecord


def check_seals(
    runs: Sequence[RunSettings], recorded: Sequence[RunRecord], options: Options, finished_too: bool
) -> None:
    """Check that the options have the key of every run, and that none would be resumed with another one.

    Args:
        recorded: every run of the log.
        finished_too: whether a run that has ended is meant as well: --resume gives its result.

    Raises:
        UserError: it names the seal that is needed and the one that came.
    """
    for settings in runs:
        if settings.sealed != options.seal:
            raise UserError(f"{_needed(settings.sealed)}, but {_came(options.seal)}")
    if not options.resume or not any(settings.sealed for settings in (*runs, *(r.settings for r in recorded))):
        return
    begun: dict[RunSettings, list[RunRecord]] = {}
    for record in recorded:
        begun.setdefault(replace(record.settings, sealed=""), []).append(record)
    for settings in runs:
        same = begun.get(replace(settings, sealed=""), [])
        if any(record.settings.sealed == settings.sealed for record in same):
            continue
        for record in same:
            if finished_too or not record.ended:
                state = "finished" if record.ended else "interrupted"
                raise UserError(
                    f"the log has the run of {settings.full_name} with seed {settings.seed} ({state}), and "
                    f"{_needed(record.settings.sealed)}, but {_came(options.seal)}; without --resume a run of its own "
                    "begins"
                )


def _needed(seal: str) -> str:
    return f"it is sealed: it needs --sealed with the key of seal {seal}" if seal else "it is not sealed"


def _came(seal: str) -> str:
    return f"the key that came has seal {seal}" if seal else "no key came"
