"""The evaluation log in the formats of other tools: which runs are written, and where. Each format has its own module.

An export holds what searchers were told, as loss = 1 - taskness, lower is better. Confirmed scores are attributes of
the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tdbench.base.errors import UserError
from tdbench.base.files import whole_file
from tdbench.export import ioh, optuna, parquet
from tdbench.export._runs import EndedRun
from tdbench.leaderboard.boards import RunProtocol, latest_runs
from tdbench.store.log import Store
from tdbench.store.rows import space_name

MANIFEST = "tdbench-export.txt"  # lists the files of an export, so that --force removes no other files


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Attributes:
        write: takes the runs and the folder or file to write; gives the paths of the files that it wrote.
        folder: whether it writes several files into a folder; otherwise it writes one file.
        empty_runs: whether it can hold a run without an evaluation.
    """

    write: Callable[[Sequence[EndedRun], Path], Iterable[Path]]
    folder: bool
    empty_runs: bool


FORMATS = {
    "ioh": Format(ioh.write, folder=True, empty_runs=False),
    "parquet": Format(parquet.write, folder=True, empty_runs=True),
    "optuna": Format(optuna.write, folder=False, empty_runs=True),
}


@dataclass(frozen=True)
class Exported:
    """The files that were written, and notes for the user."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def export(out: Path, to: Path, form: str, *, force: bool = False) -> Exported:
    """Write the ended runs of an output folder's log; of several runs with the same settings, only the latest.

    Args:
        out: the output folder of `run` or `bench`.
        to: a folder for ``ioh`` and ``parquet``, a file for ``optuna``.
        form: one of `FORMATS`.
        force: replace an earlier export; nothing else is ever removed.

    Raises:
        UserError: there is no log or no ended run in it, or the target is in use.
    """
    chosen = FORMATS[form]
    with Store(out, read_only=True) as store:
        runs, notes = _ended_runs(store)
        if not runs:
            raise UserError(f"no run in {out} has ended yet; see tdbench status")
        evaluated = store.all_evaluated()
        kept = [run for run in runs if chosen.empty_runs or run.row.run in evaluated]
        if not kept:
            raise UserError(f"no run in {out} has an evaluation; the format {form} cannot hold an empty run")
        if len(kept) < len(runs):
            ids = {run.row.run for run in kept}
            named = ", ".join(f"{run.row.searcher} seed {run.row.seed}" for run in runs if run.row.run not in ids)
            notes.append(f"{len(runs) - len(kept)} run(s) without an evaluation are left out: {named}")
        try:
            files = (_to_folder if chosen.folder else _to_file)(kept, to, force, form)
        except OSError as error:
            raise UserError(f"{to} cannot be written: {error.strerror or error}") from error
    return Exported(tuple(files), tuple(notes))


def _ended_runs(store: Store) -> tuple[list[EndedRun], list[str]]:
    """The latest ended run of each setting, sorted; and notes about the runs that are left out."""
    records = store.runs()
    ended = {record.id: EndedRun(store.row(record), record, store) for record in records if record.row}
    rows = sorted(
        latest_runs(run.row for run in ended.values()),
        key=lambda row: (space_name(row), row.searcher, RunProtocol.of(row), row.seed),
    )
    notes = []
    if running := len(records) - len(ended):
        notes.append(f"{running} run(s) that have not ended are left out")
    if earlier := len(ended) - len(rows):
        notes.append(f"{earlier} earlier run(s) of the same settings are left out")
    return [ended[row.run] for row in rows], notes


def _to_file(runs: Sequence[EndedRun], to: Path, force: bool, form: str) -> list[Path]:
    if to.is_dir():
        raise UserError(f"{to} is a folder; --format {form} writes one file, give its name with --to")
    if to.exists() and not force:
        raise UserError(f"{to} exists; give another --to, or --force to replace it")
    with whole_file(to) as partial:
        list(FORMATS[form].write(runs, partial))
    return [to]


def _to_folder(runs: Sequence[EndedRun], to: Path, force: bool, form: str) -> list[Path]:
    if to.exists() and not to.is_dir():
        raise UserError(f"{to} is a file; give a folder with --to")
    if to.is_dir() and any(to.iterdir()):
        manifest = to / MANIFEST
        if not force:
            raise UserError(f"{to} is not empty; give another --to, or --force to replace an earlier export there")
        if not manifest.is_file():
            raise UserError(f"{to} is not empty, and it is no earlier export (it has no {MANIFEST}); give another --to")
        _remove_listed(to, manifest)
    to.mkdir(parents=True, exist_ok=True)
    files = list(FORMATS[form].write(runs, to))
    manifest = to / MANIFEST
    manifest.write_text("".join(f"{file.relative_to(to).as_posix()}\n" for file in files), encoding="utf-8")
    return [*files, manifest]


def _remove_listed(folder: Path, manifest: Path) -> None:
    for line in manifest.read_text(encoding="utf-8").splitlines():
        file = (folder / line).resolve()
        if file.is_relative_to(folder.resolve()) and file.is_file():
            file.unlink()
            for parent in file.parents:
                if parent == folder.resolve() or any(parent.iterdir()):
                    break
                parent.rmdir()
    manifest.unlink()
