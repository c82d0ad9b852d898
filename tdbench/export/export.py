"""The evaluation log in the formats of other tools: IOHprofiler (IOHanalyzer, iohinspector), parquet, Optuna's journal.

What is exported is what searchers were told, loss = 1 - taskness, lower is better; confirmed scores go along as
attributes. Names of searchers become file names here, so they are spelled with harmless characters only.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tdbench.arena.race import search_budget
from tdbench.base.errors import UserError
from tdbench.leaderboard.boards import RunProtocol, latest_runs, space_name
from tdbench.store.log import Store
from tdbench.store.rows import Row, row_from_json, row_to_json

if TYPE_CHECKING:
    from optuna.storages import JournalStorage

FORMATS = ("ioh", "parquet", "optuna")
MANIFEST = "tdbench-export.txt"  # lists the files of an export, so that --force removes those and no others
_LARGEST_16_BITS = 2**16 - 1


@dataclass(frozen=True)
class Exported:
    """The files written, and what a user should know of them."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def export(out: Path, to: Path, form: str, *, force: bool = False) -> Exported:
    """Write the ended runs of an output folder's log; of runs with the same settings, the latest.

    Args:
        out: the output folder of `run` or `bench`.
        to: a folder for ``ioh`` and ``parquet``, a file for ``optuna``.
        form: one of `FORMATS`.
        force: replace an earlier export; nothing else is ever removed.

    Raises:
        UserError: there is no log or no ended run in it, or the target is in use.
    """
    with Store(out, read_only=True) as store:
        records = store.runs()
        ended = [row_from_json(record.row) for record in records if record.row is not None]
        rows = sorted(
            latest_runs(ended), key=lambda row: (space_name(row), row.searcher, RunProtocol.of(row), row.seed)
        )
        if not rows:
            raise UserError(f"no run in {out} has ended yet; see tdbench status")
        notes = []
        if running := len(records) - len(ended):
            notes.append(f"{running} run(s) that have not ended are left out")
        if earlier := len(ended) - len(rows):
            notes.append(f"{earlier} earlier run(s) of the same settings are left out")
        try:
            if form == "optuna":
                files = _to_optuna(store, rows, to, force)
            elif form == "parquet":
                files = _to_folder(to, force, lambda folder: _write_parquet(store, rows, folder))
            else:
                empty = [row for row in rows if not store.evaluated(row.run)]
                if empty:
                    notes.append(f"{len(empty)} run(s) without an evaluation are left out: {_named(empty)}")
                kept = [row for row in rows if row not in empty]
                if not kept:
                    raise UserError(f"no run in {out} has an evaluation; IOHprofiler's format cannot hold an empty run")
                files = _to_folder(to, force, lambda folder: _write_ioh(store, kept, folder))
        except OSError as error:
            raise UserError(f"{to} cannot be written: {error.strerror or error}") from error
    return Exported(tuple(files), tuple(notes))


def _named(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.searcher} seed {row.seed}" for row in rows)


def _told(store: Store, row: Row) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(n, N) label vectors and (n,) taskness of the evaluations of a run that its searcher was told."""
    labels, taskness = store.evaluations(row.run, row.n)
    searched = search_budget(row.recommend, row.budget)
    return labels[:searched], taskness[:searched]


def _text(labels: NDArray[np.uint8]) -> str:
    return "".join(map(str, labels.tolist()))


# --- the target


def _to_folder(to: Path, force: bool, write: typing.Callable[[Path], Iterable[Path]]) -> list[Path]:
    if to.exists() and not to.is_dir():
        raise UserError(f"{to} is a file; give a folder with --to")
    if to.is_dir() and any(to.iterdir()):
        manifest = to / MANIFEST
        if not force:
            raise UserError(f"{to} is not empty; give another --to, or --force to replace an earlier export there")
        if not manifest.is_file():
            raise UserError(f"{to} is not empty and no earlier export (it has no {MANIFEST}); give another --to")
        _remove_listed(to, manifest)
    to.mkdir(parents=True, exist_ok=True)
    files = list(write(to))
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


# --- IOHprofiler


def _write_ioh(store: Store, rows: Sequence[Row], folder: Path) -> Iterator[Path]:
    """One folder for each searcher, in it one JSON for each function and one .dat for each dimension.

    A function is a data source, ratio, training and run protocol; an instance is one of its spaces, and the dimension
    is N. Instances are 16-bit numbers and a space seed is not, so spaces are numbered, and ``spaces.csv`` says how.
    """
    if (largest := max(row.n for row in rows)) > _LARGEST_16_BITS:
        raise UserError(f"IOHprofiler's dimension ends at {_LARGEST_16_BITS}, but there is a space with n = {largest}")
    functions = _functions(rows)
    instances: dict[tuple[int, str], int] = {}
    for row in rows:
        number = functions[_function_key(row)][0]
        known = sum(1 for f, _ in instances if f == number)
        instances.setdefault((number, row.space), known + 1)
    folders = _file_names(row.searcher for row in rows)
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.searcher, functions[_function_key(row)][0]), []).append(row)
    names = dict(functions.values())
    for (searcher, number), members in groups.items():
        yield from _write_function(store, members, folder / folders[searcher], number, names[number], instances)
    yield _write_spaces(rows, functions, instances, folder / "spaces.csv")


def _function_key(row: Row) -> tuple[Any, ...]:
    return (row.data, row.ratio, row.split, row.steps, row.lr, RunProtocol.of(row))


def _functions(rows: Sequence[Row]) -> dict[tuple[Any, ...], tuple[int, str]]:
    """Key -> number from 1 and a unique name."""
    keys = list(dict.fromkeys(_function_key(row) for row in rows))
    plain = [_harmless(f"{key[0]}-r{key[1]}") for key in keys]
    return {
        key: (number, name if plain.count(name) == 1 else f"{name}-{number}")
        for number, (key, name) in enumerate(zip(keys, plain, strict=True), start=1)
    }


def _write_function(
    store: Store, rows: Sequence[Row], folder: Path, number: int, name: str, instances: dict[tuple[int, str], int]
) -> Iterator[Path]:
    scenarios = []
    data = folder / f"data_f{number}_{name}"
    data.mkdir(parents=True, exist_ok=True)
    for dimension in sorted({row.n for row in rows}):
        path = data / f"IOHprofiler_f{number}_DIM{dimension}.dat"
        runs = []
        with path.open("w", encoding="ascii", newline="\n") as file:
            file.write("evaluations raw_y\n")
            for row in (row for row in rows if row.n == dimension):
                labels, taskness = _told(store, row)
                losses = 1 - taskness
                file.writelines(f"{i} {loss!r}\n" for i, loss in enumerate(losses.tolist(), start=1))
                best = int(losses.argmin())
                runs.append(
                    {
                        "instance": instances[number, row.space],
                        "evals": len(losses),
                        "best": {"evals": best + 1, "y": float(losses[best]), "x": labels[best].tolist()},
                        "seed": row.seed,
                        "confirmed": None if math.isnan(row.confirmed) else row.confirmed,
                        "status": row.status,
                    }
                )
        yield path
        scenarios.append({"dimension": dimension, "path": path.relative_to(folder).as_posix(), "runs": runs})
    first = rows[0]
    attributes = {
        **dataclasses.asdict(RunProtocol.of(first)),
        "split": first.split,
        "steps": first.steps,
        "lr": first.lr,
    }
    page = folder / f"IOHprofiler_f{number}_{name}.json"
    description = {
        "version": "0.3.14",
        "suite": "tdbench",
        "function_id": number,
        "function_name": name,
        "maximization": False,
        "algorithm": {"name": first.searcher, "info": f"{first.searcher} {first.searcher_version}".strip()},
        # iohinspector evaluates these values as Python: numbers and words of ours only, no names from files or plugins
        "experiment_attributes": [{key: str(value)} for key, value in attributes.items()],
        "attributes": ["evaluations", "raw_y"],
        "scenarios": scenarios,
    }
    page.write_text(json.dumps(description, indent=1), encoding="utf-8")
    yield page


def _write_spaces(
    rows: Sequence[Row],
    functions: dict[tuple[Any, ...], tuple[int, str]],
    instances: dict[tuple[int, str], int],
    path: Path,
) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["function_id", "function_name", "instance", "dimension", "space", "space_seed"])
        lines = {
            (*functions[_function_key(row)], instances[functions[_function_key(row)][0], row.space], row.n, row.space)
            + (row.space_seed,)
            for row in rows
        }
        writer.writerows(sorted(lines))
    return path


def _harmless(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"


def _file_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> a file name of its own, also where capitals do not count."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        plain = candidate = _harmless(name)
        number = 2
        while candidate.lower() in {other.lower() for other in found.values()}:
            candidate, number = f"{plain}_{number}", number + 1
        found[name] = candidate
    return found


# --- parquet


def _write_parquet(store: Store, rows: Sequence[Row], folder: Path) -> Iterator[Path]:
    """``runs.parquet``: the leaderboard's columns. ``evaluations.parquet``: one row for each evaluation."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("--format parquet needs pyarrow: pip install 'tdbench[export]'") from None
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = pa.schema([(name, kinds[kind]) for name, kind in typing.get_type_hints(Row).items()])
    runs = folder / "runs.parquet"
    pq.write_table(pa.Table.from_pylist([row_to_json(row) for row in rows], schema=columns), runs)
    yield runs
    kept = pa.schema(
        [
            *((name, columns.field(name).type) for name in ("run", "space", "searcher", "seed")),
            ("evaluation", pa.int64()),
            ("labels", pa.string()),
            ("taskness", pa.float64()),
            ("loss", pa.float64()),
        ]
    )
    evaluations = folder / "evaluations.parquet"
    with pq.ParquetWriter(evaluations, kept) as writer:
        for row in rows:
            labels, taskness = _told(store, row)
            n = len(taskness)
            if n:
                same = {name: [getattr(row, name)] * n for name in ("run", "space", "searcher", "seed")}
                own = {
                    "evaluation": range(1, n + 1),
                    "labels": map(_text, labels),
                    "taskness": taskness,
                    "loss": 1 - taskness,
                }
                batch = {name: list(values) for name, values in {**same, **own}.items()}
                writer.write_table(pa.Table.from_pydict(batch, schema=kept))
    yield evaluations


# --- Optuna


def _to_optuna(store: Store, rows: Sequence[Row], to: Path, force: bool) -> list[Path]:
    if to.is_dir():
        raise UserError(f"{to} is a folder; --format optuna writes one file, give its name with --to")
    if to.exists() and not force:
        raise UserError(f"{to} exists; give another --to, or --force to replace it")
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.partial")
    partial.unlink(missing_ok=True)
    _write_journal(store, rows, partial)
    partial.replace(to)
    return [to]


def _write_journal(store: Store, rows: Sequence[Row], path: Path) -> None:
    """One study for each run, one trial for each evaluation: its value is the told loss, its labels an attribute."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

    class Buffered(BaseJournalBackend):
        """Keeps the log in memory until it is whole: the file backend syncs the disk at every trial."""

        def __init__(self) -> None:
            self.logs: list[dict[str, Any]] = []

        def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
            return self.logs[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self.logs.extend(json.loads(json.dumps(logs)))

    backend = Buffered()
    storage = JournalStorage(backend)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    try:
        _fill(storage, store, rows)
    finally:
        optuna.logging.set_verbosity(verbosity)
    JournalFileBackend(str(path)).append_logs(backend.logs)


def _fill(storage: JournalStorage, store: Store, rows: Sequence[Row]) -> None:
    from optuna.study import StudyDirection
    from optuna.trial import create_trial

    for row in rows:
        name = f"{space_name(row)} {row.searcher} seed {row.seed} ({row.run})"
        study = storage.create_new_study([StudyDirection.MINIMIZE], name)
        for key, value in row_to_json(row).items():
            storage.set_study_user_attr(study, key, value)
        for vector, taskness in zip(*_told(store, row), strict=True):
            attributes = {"labels": _text(vector), "taskness": float(taskness)}
            trial = create_trial(value=float(1 - taskness), user_attrs=attributes)
            storage.create_new_trial(study, template_trial=trial)
