"""A searcher's process stays light: it loads none of the large libraries that tdbench itself uses."""

from __future__ import annotations

from pathlib import Path

from helpers import CHEAP

from tdbench import run

HEAVY = {"matplotlib", "pandas", "rich", "scipy", "torch"}
SEARCHER = """
import sys
from pathlib import Path

import numpy as np
from tdbench import hookimpl

class Watching:
    def __init__(self, problem):
        self.dim, self.rng = problem.dim, np.random.default_rng(problem.seed)
    def ask(self, n):
        return self.rng.random((n, self.dim))
    def tell(self, scores, loss):
        Path({seen!r}).write_text("\\n".join(sorted(sys.modules)))

@hookimpl
def register_searchers(register):
    register("watching", Watching)
"""


def test_the_process_of_a_plain_searcher_loads_no_large_library(tmp_path: Path) -> None:
    plugin, seen = tmp_path / "watching.py", tmp_path / "modules.txt"
    plugin.write_text(SEARCHER.format(seen=str(seen)))
    result = run("watching", plugins=[str(plugin)], out=tmp_path / "out", **{**CHEAP, "budget": 20})
    assert result.row.status == "ok"
    loaded = set(seen.read_text().splitlines())
    assert {"numpy", "tdbench.searchers.loading"} <= loaded
    assert not {name for name in loaded if name.startswith("tdbench_plugins")}  # no other plugin is loaded
    assert not HEAVY & loaded
