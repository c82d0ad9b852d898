"""`tdbench.load`: the results of an output folder as pandas DataFrames, each read when it is first asked for."""

from __future__ import annotations

import dataclasses
import functools
import html
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from tdbench.base.arguments import path_text
from tdbench.base.errors import UserError, echo, nearest
from tdbench.leaderboard.boards import load_boards
from tdbench.leaderboard.records import standing_records
from tdbench.leaderboard.standings import Standings
from tdbench.leaderboard.tables import standings_tables
from tdbench.report.charts import told_against_confirmed
from tdbench.report.figures import groups_of
from tdbench.report.results import read_results
from tdbench.store.log import FILE_NAME, RunRecord, Store
from tdbench.store.rows import COLUMNS
from tdbench.store.status import UNFINISHED

if TYPE_CHECKING:
    import pandas as pd

EVALUATION_COLUMNS = ("run", "space", "searcher", "seed", "evaluation", "labels", "taskness", "loss")


class ResultsFolder:
    """What is in the output folder of runs, or in a folder of leaderboards. Nothing in it is changed.

    >>> import tempfile, tdbench
    >>> out = tempfile.mkdtemp()
    >>> small = {"n": 10, "steps": 5, "budget": 8, "batch": 4, "confirm": 2}
    >>> results = tdbench.bench(["random", "umda"], seeds=2, **small, out=out)
    >>> folder = tdbench.load(out)
    >>> len(folder.runs), len(folder.leaderboard), len(folder.evaluations)
    (4, 2, 32)

    Attributes:
        folder: where the results are.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(path_text("folder", folder))
        if not self.folder.is_dir():
            raise UserError(f"there is no folder {self.folder}; give the --out folder of runs")

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """A row for each run, with the columns of a leaderboard; `status` of one that has not ended says so."""
        import pandas as pd

        rows = [dataclasses.asdict(row) for board in load_boards([self.folder], empty=True) for row in board.rows]
        if self._has_log:
            with Store(self.folder, read_only=True) as store:
                ended = {row["run"] for row in rows}
                evaluated, held = store.all_evaluated(), store.held()
                records = [record for record in store.runs() if record.id not in ended]
                rows += [_row_so_far(r, evaluated.get(r.id, 0), r.key in held, store) for r in records]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    @functools.cached_property
    def leaderboard(self) -> pd.DataFrame:
        """A row for each searcher of each space, the best first, as `tdbench leaderboard --format csv` gives it.

        Raises:
            UserError: no run has ended yet.
        """
        import pandas as pd

        return pd.DataFrame(standing_records(self._standings))

    @functools.cached_property
    def evaluations(self) -> pd.DataFrame:
        """A row for each evaluation that a searcher was told, also of runs that have not ended.

        `evaluation` counts from 1 in each run, `labels` has a 0 or 1 for each image, and `loss` is 1 - `taskness`.

        Raises:
            UserError: the folder has leaderboards, but no evaluation log.
        """
        import pandas as pd

        if not self._has_log:
            raise UserError(
                f"{self.folder} has no {FILE_NAME}, so it has no evaluations; give the --out folder of runs"
            )
        with Store(self.folder, read_only=True) as store:
            frames = [_evaluations(record, store) for record in store.runs()]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(EVALUATION_COLUMNS))

    def plot(self, space: str | None = None) -> Figure:
        """Told against confirmed taskness of every run in one space, searcher by searcher.

        Args:
            space: identity of the space; None where the folder has one only.

        Raises:
            UserError: no run has ended yet; there are several spaces or protocols, and none was named.
        """
        ranked, logs = read_results(self.folder)
        named = {f"{t.space}": i for i, t in enumerate(ranked.tables)}
        if space is None and len(ranked.tables) > 1:
            known = ", ".join(f"{table.name} ({table.space})" for table in ranked.tables)
            raise UserError(f"there are several tables, say which space is meant: {known}")
        if space is not None and space not in named:
            raise UserError(f"there is no space {echo(space)}{nearest(space, named)}")
        i = 0 if space is None else named[space]
        table = ranked.tables[i]
        colours = {standing.searcher: i for i, standing in enumerate(table.standings)}
        return told_against_confirmed(groups_of(table, logs[i], colours), [], "run").figure

    def __repr__(self) -> str:
        unfinished = int(self.runs["status"].isin(UNFINISHED).sum())
        return f"ResultsFolder({str(self.folder)!r}: {len(self.runs)} runs, {unfinished} of them not finished)"

    def _repr_html_(self) -> str:
        tables = standings_tables(self._standings) if (self.runs["status"] == "ok").any() else []
        return f"<p>{html.escape(repr(self))}</p>" + "".join(table._repr_html_() for table in tables)

    @property
    def _has_log(self) -> bool:
        return (self.folder / FILE_NAME).is_file()

    @functools.cached_property
    def _standings(self) -> Standings:
        return read_results(self.folder)[0]


def _row_so_far(record: RunRecord, evaluations: int, held: bool, store: Store) -> dict[str, Any]:
    """What is known of a run that has no row in a leaderboard: the columns of one, the rest missing."""
    if record.row is not None:  # killed between the log and the leaderboard
        return dataclasses.asdict(store.row(record))
    settings = {k: v for k, v in dataclasses.asdict(record.settings).items() if k in COLUMNS}
    classes, _ = store.classes(record.space)
    return {
        **settings,
        "space": record.space,
        "classes": "|".join(classes),
        "searcher": record.settings.full_name,
        "searcher_version": record.searcher_version,
        "engine": record.engine,
        "device": record.device,
        "engine_detail": record.engine_detail,
        "evaluations": evaluations,
        "seconds": record.seconds,
        "status": UNFINISHED[0] if held else UNFINISHED[1],
        "error": "",
        "confirmed": math.nan,
        "run": record.id,
    }


def _evaluations(record: RunRecord, store: Store) -> pd.DataFrame:
    import pandas as pd

    labels, taskness = store.told(record)
    columns = {
        "run": record.id,
        "space": record.space,
        "searcher": record.settings.full_name,
        "seed": record.settings.seed,
        "evaluation": range(1, len(taskness) + 1),
        "labels": ["".join(map(str, one)) for one in labels.tolist()],
        "taskness": taskness,
        "loss": 1 - taskness,
    }
    return pd.DataFrame(columns, columns=list(EVALUATION_COLUMNS))
