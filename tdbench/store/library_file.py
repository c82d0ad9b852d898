"""The files of a task library: an `.npz` of plain arrays without pickles, and a CSV file that people can read.

docs/libraries.md describes both. This module turns the fields of a `TaskLibrary` into arrays and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.errors import UserError, echo
from tdbench.base.files import check_target, read_npz, whole_file
from tdbench.space.references import ReferenceTask
from tdbench.space.settings import SpaceSettings
from tdbench.store import csv_file
from tdbench.store.rows import cell_text

FORMAT, VERSION = "tdbench task library", 1
COLUMNS = ("confirmed", "confirmed_se", "told", "evaluations", "searcher", "run", "positives", "labels")
_ARRAYS = ("labels", "confirmed_values", "told", "evaluations")
_STRINGS = ("searchers", "runs", "reference_names", "reference_kinds", "classes")
_SINGLE = {"space": str, "engine": str, "tasks": int, "max_similarity": float}
_OF_SPACE: dict[str, type] = {
    **{"data": str, "n": int, "ratio": int, "space_seed": int},
    **{"split": str, "steps": int, "lr": float},
}
_KEYS = ("format", "version", *_ARRAYS, *_STRINGS, *_SINGLE, *_OF_SPACE, "source_index", "reference_labels")
_KINDS = {str: "U", int: "iu", float: "f"}


def write(path: Path, fields: dict[str, Any], records: Sequence[dict[str, Any]]) -> Path:
    """Write the fields to `path` and the records beside it as CSV, both whole or not at all.

    Raises:
        UserError: the name does not end with ``.npz``, or the files cannot be written.
    """
    check_path(path)
    arrays = _packed(fields)
    # Spaces between the labels keep spreadsheets and pandas from reading them as one huge number.
    between = {"positives": "|", "labels": " "}
    lines = [COLUMNS, *([cell(record[name], between.get(name, "")) for name in COLUMNS] for record in records)]
    write_both(path, arrays, csv_file.text_of(lines))
    return path


def write_both(path: Path, arrays: dict[str, NDArray[Any]], table: str) -> None:
    """An `.npz`, and a CSV file of the same name. Neither appears if one cannot be written; then raises UserError."""
    try:
        with whole_file(path.with_suffix(".csv")) as readable, whole_file(path) as partial:
            readable.write_text(table, encoding="utf-8", newline="")
            with partial.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def check_path(path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Raises UserError where no library could be written there, before any work is done.

    Args:
        columns: of the CSV file; another file of that name is not replaced.
    """
    if path.suffix != ".npz":
        raise UserError(f"a task library is an .npz file: name it {path.name}.npz, not {path.name}")
    check_target(path)
    table = path.with_suffix(".csv")
    if table.exists() and not _has_header(table, columns):
        raise UserError(
            f"{table} would be replaced by the table of {path.name}, but holds something else; name another"
        )


def _has_header(table: Path, columns: Sequence[str]) -> bool:
    header = ",".join(columns).encode()
    try:
        with table.open("rb") as file:
            return file.read(len(header) + 1).rstrip() == header
    except OSError:
        return False


def read(path: Path) -> dict[str, Any]:
    """The fields that `write` was given; their values are checked by `TaskLibrary`.

    Raises:
        UserError: the file cannot be read, is no task library, or was written by a later version.
    """
    if path.suffix != ".npz":
        raise UserError(f"{path} is no task library, which is an .npz file; `tdbench tasks score` makes one of a CSV")
    arrays = read_npz(path, _KEYS, "; expected a task library")
    if "format" not in arrays or arrays["format"].shape != () or str(arrays["format"]) != FORMAT:
        raise UserError(f"{path} is no task library (tdbench discover and tdbench tasks score write them)")
    try:
        return _unpacked(arrays)
    except ValueError as error:
        raise UserError(f"{path} is no proper task library: {error}") from error
    except UserError as error:
        raise UserError(f"{path} is no proper task library: {error}") from error


def same(a: object, b: object) -> bool:
    """Whether two values of a field are equal; NaN equals NaN."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, ReferenceTask) and isinstance(b, ReferenceTask):
        return (a.name, a.kind) == (b.name, b.kind) and same(a.labels, b.labels)
    return type(a) is type(b) and a == b


def _packed(fields: dict[str, Any]) -> dict[str, NDArray[Any]]:
    settings: SpaceSettings = fields["settings"]
    references: tuple[ReferenceTask, ...] = fields["references"]
    arrays: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    arrays |= {name: fields[name] for name in (*_SINGLE, *_ARRAYS)}
    arrays |= {name: getattr(settings, name) for name in _OF_SPACE}
    arrays |= {name: np.array(fields[name], dtype=np.str_) for name in ("searchers", "runs")}
    arrays["classes"] = np.array(settings.classes or (), dtype=np.str_)
    if fields["source_index"] is not None:
        arrays["source_index"] = fields["source_index"]
    arrays["reference_names"] = np.array([task.name for task in references], dtype=np.str_)
    arrays["reference_kinds"] = np.array([task.kind for task in references], dtype=np.str_)
    arrays["reference_labels"] = np.array([task.labels for task in references], np.uint8).reshape(-1, settings.n)
    return {name: np.asarray(value) for name, value in arrays.items()}


def _unpacked(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    version = _single(arrays, "version", int)
    if version > VERSION:
        raise ValueError(f"it has version {version}, this tdbench reads up to {VERSION}; use a later tdbench")
    fields: dict[str, Any] = {name: _of(arrays, name) for name in _ARRAYS}
    fields |= {name: _single(arrays, name, kind) for name, kind in _SINGLE.items()}
    words = {name: _words(arrays, name) for name in _STRINGS}
    settings = {name: _single(arrays, name, kind) for name, kind in _OF_SPACE.items()}
    labels = _of(arrays, "reference_labels")
    if labels.ndim != 2 or len({len(labels), len(words["reference_names"]), len(words["reference_kinds"])}) != 1:
        raise ValueError("reference tasks need a name, a kind and labels each")
    return {
        **fields,
        "searchers": words["searchers"],
        "runs": words["runs"],
        "settings": SpaceSettings(**settings, classes=words["classes"] or None),
        "source_index": arrays.get("source_index"),
        "references": tuple(map(ReferenceTask, words["reference_names"], words["reference_kinds"], labels)),
    }


def _of(arrays: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"it has no array {name!r}")
    return arrays[name]


def _single(arrays: dict[str, NDArray[Any]], name: str, kind: type) -> Any:
    array = _of(arrays, name)
    if array.shape != () or array.dtype.kind not in _KINDS[kind]:
        raise ValueError(f"{name} must be a single {kind.__name__}, got {echo(array)}")
    return array.item()


def _words(arrays: dict[str, NDArray[Any]], name: str) -> tuple[str, ...]:
    array = _of(arrays, name)
    if array.ndim != 1 or array.dtype.kind != "U":
        raise ValueError(f"{name} must be a list of strings, got {echo(array)}")
    return tuple(array.tolist())


def cell(value: Any, between: str = "|") -> str:
    """A value as text that spreadsheets and pandas leave as it is; `between` joins the values of a list."""
    return between.join(map(str, value)) if isinstance(value, list) else cell_text(value)
