"""The journal of Optuna, which its dashboard reads. Optuna is imported only when needed, since that takes 0.4 s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdbench.export._runs import EndedRun, label_text
from tdbench.store.rows import row_to_json, space_name

if TYPE_CHECKING:
    from optuna.storages import JournalStorage


def write(runs: Sequence[EndedRun], path: Path) -> list[Path]:
    """Write a study for each run and a trial for each evaluation, with the told loss as value and its labels."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

    class Buffered(BaseJournalBackend):
        """Keeps the log in memory until it is complete, because the file backend syncs the disk at every trial."""

        def __init__(self) -> None:
            self.logs: list[dict[str, Any]] = []

        def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
            return self.logs[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self.logs.extend(json.loads(json.dumps(logs)))

    backend = Buffered()
    storage = JournalStorage(backend)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # otherwise it prints a line for every study
    try:
        _fill(storage, runs)
    finally:
        optuna.logging.set_verbosity(verbosity)
    JournalFileBackend(str(path)).append_logs(backend.logs)
    return [path]


def _fill(storage: JournalStorage, runs: Sequence[EndedRun]) -> None:
    from optuna.study import StudyDirection
    from optuna.trial import create_trial

    for run in runs:
        row = run.row
        name = f"{space_name(row)} {row.searcher} seed {row.seed} ({row.run})"
        study = storage.create_new_study([StudyDirection.MINIMIZE], name)
        for key, value in row_to_json(row).items():
            storage.set_study_user_attr(study, key, value)
        for vector, taskness in zip(*run.told(), strict=True):
            attributes = {"labels": label_text(vector), "taskness": float(taskness)}
            trial = create_trial(value=float(1 - taskness), user_attrs=attributes)
            storage.create_new_trial(study, template_trial=trial)
