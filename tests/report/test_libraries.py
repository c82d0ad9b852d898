"""Task libraries in the report: which labelings it shows, what its figures say, and the kinds of their files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import CHEAP

import tdbench as td
from tdbench.report.libraries import quality_over_evaluations, recall_chart, similarity_chart, tasks_figure
from tdbench.report.page import write_figures, write_report
from tdbench.report.results import read_results
from tdbench.store.library import TaskLibrary

SETTINGS = {**CHEAP, "n": 20, "threads": 1}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discoveries of two searchers and ordinary runs of them, in one folder; for reading only."""
    out = tmp_path_factory.mktemp("discoveries")
    td.bench(["random", "umda"], seeds=2, tasks=[0, 4], out=out, **SETTINGS)
    return out


def the_best(out: Path) -> TaskLibrary:
    return max((TaskLibrary.load(path) for path in (out / "libraries").glob("*.npz")), key=lambda lib: lib.confirmed_qd)


def test_the_page_shows_the_best_library_of_each_searcher(results: Path, tmp_path: Path) -> None:
    page = write_report(results, tmp_path / "report.html").read_text()
    section = page[page.index("Task libraries") :]
    assert re.findall(r"<summary>(random|umda), seed \d: 4 labelings, confirmed QD", section)
    assert section.count("never told") + section.count('class="told">told') >= 8
    assert "4 tasks, joint, similarity at most 0.25" in page


def test_figures_of_libraries_are_written_in_every_kind(results: Path, tmp_path: Path) -> None:
    written = write_figures(results, tmp_path, ("png", "svg", "pdf"))
    for name in ("tasks", "by-rank", "quality", "similarity", "recall"):
        kinds = {path.suffix for path in written if path.stem.endswith(f"-{name}")}
        assert kinds == {".png", ".svg", ".pdf"}
    again = write_figures(results, tmp_path / "again", ("svg",))
    for path in again:
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_an_ordinary_run_has_no_section_of_libraries(tmp_path: Path) -> None:
    td.run("random", out=tmp_path, **SETTINGS)
    assert "Task libraries" not in write_report(tmp_path).read_text()


def test_quality_ends_at_what_the_run_was_told_and_confirmed(results: Path) -> None:
    """The curves of a figure end at the QD of greedy choice from all that was told, and of what was evaluated."""
    _, logs = read_results(results)
    (log,) = [log for log in logs if log.libraries]
    library = the_best(results)
    labels, told = log.evaluated[library.runs[0]], log.told[library.runs[0]]
    chart = quality_over_evaluations(library, labels, told, "a run")
    by_told, confirmed = (line.get_ydata() for line in chart.figure.axes[0].get_lines()[:2])
    seen = np.array([(labels == own).all(axis=1).any() for own in library.labels])
    assert confirmed[-1] == pytest.approx(library.confirmed[seen].clip(0).sum() / library.tasks)
    assert by_told[-1] >= library.told_qd - 1e-9  # the run's own greedy choice, or what its searcher recommended
    assert len(by_told) == len(confirmed)


def test_figures_hold_where_a_library_is_small_or_half_empty(results: Path) -> None:
    library = the_best(results)
    pixels = np.zeros((20, 32, 32, 3), dtype=np.uint8)
    for kept in (1, 2, 3):
        part = library.filter(np.arange(len(library)) < kept)
        tasks_figure(part, pixels, "a <title> with $markup$")
        similarity_chart(part).png()
        recall_chart(part).png()
