"""Lab: what a study works with. It trains in large batches and remembers every curve."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure

from tdbench.engine import Engine, make_engine
from tdbench.searchers.registry import Plugins, load_plugins
from tdbench.settings import Options
from tdbench.space.sources import Source, load_source
from tdbench.store.curves import RememberedTrainings


@dataclass(frozen=True)
class Findings:
    """What a study ends with.

    Attributes:
        table: one row per point of the figure, and what else belongs to it; becomes the CSV.
        figure: axes with units, intervals drawn.
        paragraph: what was found and how sure that is, made from the numbers of this very call.
    """

    table: pd.DataFrame
    figure: Figure
    paragraph: str


class Lab(RememberedTrainings):
    """Trains for studies and remembers the results in their folder.

    Attributes:
        folder: where the study's files go.
        engine: what trains.
        options: where data is found, threads and plugins, for studies that make runs.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        """Nothing is written before something is trained."""
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
        """Options for runs of a study: they go to this subfolder, and go on where they stopped."""
        return replace(self.options, out=self.folder / folder, resume=True, references="all")

    def plugins(self) -> Plugins:
        """Searchers and reductions for these runs. Raises UserError where one of the options' plugins fails."""
        return load_plugins(self.options.plugins, extra_must_load=True)

    @property
    def engine_words(self) -> tuple[str, str]:
        """Engine and device as a run asks for them: ``auto`` where that gives the lab's."""
        if self.engine is make_engine(threads=self.options.threads):
            return "auto", "auto"
        return self.engine.name, self.engine.device
