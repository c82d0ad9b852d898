"""The format of IOHprofiler, which IOHanalyzer and iohinspector read.

Each searcher has a folder, with one JSON file for each function and one .dat file for each dimension. Names of
searchers become file names, so unusual characters in them are replaced.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from tdbench.base.errors import UserError
from tdbench.export._runs import EndedRun
from tdbench.leaderboard.boards import RunProtocol
from tdbench.store.rows import Row

_LARGEST_16_BITS = 2**16 - 1


def write(runs: Sequence[EndedRun], folder: Path) -> Iterator[Path]:
    """Write a folder for each searcher, with one JSON file for each function and one .dat file for each dimension.

    A function is a data source with a ratio, a training protocol and a run protocol. An instance is one of its spaces,
    and the dimension is N. Instances must be 16-bit numbers, so spaces are numbered, and ``spaces.csv`` lists them.
    """
    rows = [run.row for run in runs]
    if (largest := max(row.n for row in rows)) > _LARGEST_16_BITS:
        raise UserError(f"IOHprofiler's dimension ends at {_LARGEST_16_BITS}, but there is a space with n = {largest}")
    functions = _functions(rows)
    instances: dict[tuple[int, str], int] = {}
    for row in rows:
        number = functions[_function_key(row)][0]
        known = sum(1 for f, _ in instances if f == number)
        instances.setdefault((number, row.space), known + 1)
    folders = _file_names(row.searcher for row in rows)
    groups: dict[tuple[str, int], list[EndedRun]] = {}
    for run in runs:
        groups.setdefault((run.row.searcher, functions[_function_key(run.row)][0]), []).append(run)
    names = dict(functions.values())
    for (searcher, number), members in groups.items():
        yield from _write_function(members, folder / folders[searcher], number, names[number], instances)
    yield _write_spaces(rows, functions, instances, folder / "spaces.csv")


def _function_key(row: Row) -> tuple[Any, ...]:
    return (row.data, row.ratio, row.split, row.steps, row.lr, RunProtocol.of(row))


def _functions(rows: Sequence[Row]) -> dict[tuple[Any, ...], tuple[int, str]]:
    """Key of a function -> its number, from 1, and its unique name."""
    keys = list(dict.fromkeys(_function_key(row) for row in rows))
    plain = [_harmless(f"{key[0]}-r{key[1]}") for key in keys]
    return {
        key: (number, name if plain.count(name) == 1 else f"{name}-{number}")
        for number, (key, name) in enumerate(zip(keys, plain, strict=True), start=1)
    }


def _write_function(
    runs: Sequence[EndedRun], folder: Path, number: int, name: str, instances: dict[tuple[int, str], int]
) -> Iterator[Path]:
    """Write the files of one searcher on one function: a .dat for each dimension, then the JSON that describes them."""
    scenarios = []
    data = folder / f"data_f{number}_{name}"
    data.mkdir(parents=True, exist_ok=True)
    for dimension in sorted({run.row.n for run in runs}):
        path = data / f"IOHprofiler_f{number}_DIM{dimension}.dat"
        with path.open("w", encoding="ascii", newline="\n") as file:
            file.write("evaluations raw_y\n")
            entries = [
                _write_run(run, instances[number, run.row.space], file) for run in runs if run.row.n == dimension
            ]
        yield path
        scenarios.append({"dimension": dimension, "path": path.relative_to(folder).as_posix(), "runs": entries})
    page = folder / f"IOHprofiler_f{number}_{name}.json"
    page.write_text(json.dumps(_description(runs[0].row, number, name, scenarios), indent=1), encoding="utf-8")
    yield page


def _write_run(run: EndedRun, instance: int, file: TextIO) -> dict[str, Any]:
    """Write the losses of a run into the .dat file, and return the run's entry for the JSON."""
    row, (labels, taskness) = run.row, run.told()
    losses = 1 - taskness
    file.writelines(f"{i} {loss!r}\n" for i, loss in enumerate(losses.tolist(), start=1))
    best = int(losses.argmin())
    return {
        "instance": instance,
        "evals": len(losses),
        "best": {"evals": best + 1, "y": float(losses[best]), "x": labels[best].tolist()},
        "seed": row.seed,
        "confirmed": None if math.isnan(row.confirmed) else row.confirmed,
        "status": row.status,
    }


def _description(first: Row, number: int, name: str, scenarios: Sequence[dict[str, Any]]) -> dict[str, Any]:
    attributes = {
        **RunProtocol.of(first).record(),
        "split": first.split,
        "steps": first.steps,
        "lr": first.lr,
    }
    return {
        "version": "0.3.14",
        "suite": "tdbench",
        "function_id": number,
        "function_name": name,
        "maximization": False,
        "algorithm": {"name": first.searcher, "info": f"{first.searcher} {first.searcher_version}".strip()},
        # iohinspector evaluates these values as Python, so they must not come from files or plugins
        "experiment_attributes": [{key: str(value)} for key, value in attributes.items()],
        "attributes": ["evaluations", "raw_y"],
        "scenarios": scenarios,
    }


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
    """Name -> a file name; all differ, also on file systems that ignore case."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        plain = candidate = _harmless(name)
        number = 2
        while candidate.lower() in {other.lower() for other in found.values()}:
            candidate, number = f"{plain}_{number}", number + 1
        found[name] = candidate
    return found
