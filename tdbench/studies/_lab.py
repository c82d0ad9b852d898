"""Lab: trains for a study in large batches, and remembers every curve."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure

from tdbench.engine import Engine, make_engine
from tdbench.searchers.catalogue import find_plugins
from tdbench.searchers.registry import Plugins
from tdbench.settings import Options
from tdbench.space.sources import Source, load_source
from tdbench.store.curves import RememberedTrainings


@dataclass(frozen=True)
class Findings:
    """The results of a study.

    Attributes:
        table: one row for each point of the figure, and further rows of the study; becomes the CSV.
        figure: has axes with units, and intervals.
        paragraph: what was found and how certain that is, in words made from the numbers of this call.
    """

    table: pd.DataFrame
    figure: Figure
    paragraph: str


class Lab(RememberedTrainings):
    """Trains for studies and remembers the results in their folder.

    Attributes:
        folder: the folder of the study's files.
        engine: the engine that trains.
        options: the folder of data, threads and plugins, for studies that make runs.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        """Nothing is written before the first training."""
        super().__init__(options.folder, engine, options.progress)
        self.options = options
        self._sources: dict[str, Source] = {}

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def source(self, data: str) -> Source:
        """The source of that name or path, read once."""
        if data not in self._sources:
            self._sources[data] = load_source(data, self.options.data_dir, self.options.download)
        return self._sources[data]

    def run_options(self, folder: str) -> Options:
        """Options for runs of a study: their results are in this subfolder, and interrupted runs are continued."""
        return replace(self.options, out=self.folder / folder, resume=True, references="all")

    def plugins(self) -> Plugins:
        """Searchers and reductions for these runs. Raises UserError if a plugin of the options fails to load."""
        return find_plugins(self.options.plugins, extra_must_load=True)

    @property
    def engine_words(self) -> tuple[str, str]:
        """Engine and device as settings of a run: ``auto`` if that chooses the lab's engine."""
        auto = make_engine(threads=self.options.threads)
        words = self.engine.name, self.engine.device
        return ("auto", "auto") if words == (auto.name, auto.device) else words
