"""Data frames: two parquet files, which pandas and polars read. It needs pyarrow, which is optional."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

from tdbench.base.errors import UserError
from tdbench.export._runs import EndedRun, label_text
from tdbench.store.rows import DEFAULTS, Row, row_to_json


def write(runs: Sequence[EndedRun], folder: Path) -> Iterator[Path]:
    """``runs.parquet``: the leaderboard's columns. ``evaluations.parquet``: one row for each evaluation."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("--format parquet needs pyarrow: pip install 'tdbench[export]'") from None
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = pa.schema([(name, kinds[kind]) for name, kind in typing.get_type_hints(Row).items()])
    runs_file = folder / "runs.parquet"
    rows = [{**DEFAULTS, **row_to_json(run.row)} for run in runs]
    pq.write_table(pa.Table.from_pylist(rows, schema=columns), runs_file)
    yield runs_file
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
        for run in runs:
            labels, taskness = run.told()
            n = len(taskness)
            if n:
                same = {name: [getattr(run.row, name)] * n for name in ("run", "space", "searcher", "seed")}
                own = {
                    "evaluation": range(1, n + 1),
                    "labels": map(label_text, labels),
                    "taskness": taskness,
                    "loss": 1 - taskness,
                }
                batch = {name: list(values) for name, values in {**same, **own}.items()}
                writer.write_table(pa.Table.from_pydict(batch, schema=kept))
    yield evaluations
