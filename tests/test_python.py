"""tdbench in Python and in a notebook: stopping a run, typed settings, and how results show themselves."""

from __future__ import annotations

import sys
import typing
from pathlib import Path

import numpy as np
import pytest
from helpers import CHEAP, ROOT, called, one_error, run_options, table
from mypy import api as mypy

import tdbench
from tdbench import RunProgress, Stopped, TaskSpace, UserError
from tdbench.keywords import BenchKeywords, DiscoverKeywords, RunKeywords
from tdbench.settings import Options, RunSettings

# Of these, users may give more than what the settings then hold.
WIDER = {"classes", "cluster", "data", "plugins"}
NAMED = {"searcher", "tasks"}  # arguments of their own


def run(out: Path, **settings: object) -> tdbench.campaign.Result:  # type: ignore[name-defined]
    return tdbench.run(**{"searcher": "random", "out": out, **CHEAP, **settings})


# --- stopping a run


def test_on_batch_is_told_how_far_a_run_has_come(tmp_path: Path) -> None:
    heard: list[RunProgress] = []
    result = run(tmp_path, seed=3, on_batch=heard.append)
    assert [progress.evaluations for progress in heard] == [10, 20, 30, 40, 50, 60]
    assert {(p.run, p.searcher, p.seed, p.budget) for p in heard} == {(result.row.run, "random", 3, 60)}
    assert heard[-1].best_told == result.row.told


def test_a_run_that_on_batch_stops_is_kept_and_goes_on_to_the_same_result(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"by on_batch after 30 of 60 evaluations.*resume=True"):
        run(tmp_path / "stopped", searcher="cmaes", on_batch=lambda progress: progress.evaluations < 30)
    assert len(tdbench.load(tmp_path / "stopped").evaluations) == 30
    heard: list[RunProgress] = []
    run(tmp_path / "stopped", searcher="cmaes", resume=True, on_batch=heard.append)
    run(tmp_path / "whole", searcher="cmaes")
    assert [progress.evaluations for progress in heard] == [40, 50, 60]  # what was evaluated is not reported again
    assert table(tmp_path / "stopped") == table(tmp_path / "whole")


def test_a_run_stops_when_its_time_is_over_and_can_go_on(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"after 0\.5 seconds"):
        run(tmp_path, budget=100_000, max_seconds=0.5)
    runs = tdbench.load(tmp_path).runs
    assert list(runs["status"]) == ["interrupted"]
    with pytest.raises(UserError, match=r"go on with resume=True"):
        run(tmp_path, budget=100_000)


def test_what_on_batch_raises_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, on_batch=lambda progress: 1 / 0)
    assert run(tmp_path, resume=True).row.status == "ok"


def test_on_batch_stops_a_whole_bench(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        tdbench.bench(["random"], seeds=2, **CHEAP, out=tmp_path, on_batch=lambda progress: False)
    assert set(tdbench.load(tmp_path).runs["status"]) == {"interrupted"}


def test_the_time_limit_of_the_command_line_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tdbench", "run", "--max-seconds", "0.5"])
    arguments = run_options(tmp_path, "--budget", "100000", "--max-seconds", "0.5")
    code, _, error = called(capsys, "run", *arguments)
    assert code == 124
    assert "everything evaluated is kept. Go on with: tdbench run --max-seconds 0.5 --resume" in error
    code, _, error = called(capsys, "run", *run_options(tmp_path, "--budget", "100000"))
    assert one_error(code, error).endswith("go on with --resume")


def test_the_command_line_says_that_a_run_was_finished_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, budget=400)
    code, printed, error = called(capsys, "run", *run_options(tmp_path))
    assert code == 0
    assert "confirmed" in printed
    assert "this run was finished before" in error and "--again" in error


# --- errors and types


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budget": 5}, "lower batch"),
        ({"n": 10, "budget": 60, "max_similarity": 0.9}, "max_similarity is for runs that discover several"),
        ({"ask_timeout": 0}, "ask_timeout must be a number above 0"),
    ],
)
def test_errors_in_python_name_its_arguments(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        run(tmp_path, **settings)
    assert "--" not in str(error.value)


@pytest.mark.parametrize("keywords", [RunKeywords, DiscoverKeywords, BenchKeywords])
def test_every_keyword_is_a_setting_with_the_same_type(keywords: type) -> None:
    settings = {**typing.get_type_hints(RunSettings), **typing.get_type_hints(Options)}  # users give sealed as a file
    for name, kind in typing.get_type_hints(keywords).items():
        assert name in settings
        assert kind == settings[name] or name in WIDER


def test_every_setting_is_a_keyword() -> None:
    settings = {*typing.get_type_hints(RunSettings), *typing.get_type_hints(Options)}
    assert {*typing.get_type_hints(DiscoverKeywords), *NAMED} == settings
    assert settings - {*typing.get_type_hints(RunKeywords)} == {*NAMED, "protocol", "max_similarity"}
    varied = {"data", "n", "ratio", "space_seed", "seed", "reduction"}
    assert settings - {*typing.get_type_hints(BenchKeywords)} == {*NAMED, *varied}


SNIPPET = """
import tdbench

def stop(progress: tdbench.RunProgress) -> bool:
    return progress.evaluations < 10

tdbench.run("random", n=10, classes=["a", "b"], on_batch=stop, plugins=["mine.py"], data="mine.npz")
tdbench.run("random", budgte=10)
tdbench.discover("random", tasks=2, max_similarity="high")
tdbench.bench(["random"], seed=3)
"""


def test_a_misspelled_setting_is_an_error_for_a_type_checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    monkeypatch.chdir(ROOT)
    printed, _, code = mypy.run(["--follow-imports=silent", str(tmp_path / "snippet.py")])
    errors = [line.partition("snippet.py:")[2] for line in printed.splitlines() if ": error: " in line]
    assert code == 1
    assert [error.partition(":")[0] for error in errors] == ["8", "9", "10"]
    assert "budgte" in errors[0] and "max_similarity" in errors[1] and "seed" in errors[2]


# --- in a notebook


def test_a_result_says_in_one_line_what_was_found(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.confirmed == result.row.confirmed
    assert repr(result) == (
        f"Result(random on {result.space.name}, seed 0: told {result.row.told:.3f}, "
        f"confirmed {result.confirmed:.3f} ± {result.confirmed_se:.3f})"
    )


def test_a_result_shows_its_numbers_and_its_picture(tmp_path: Path) -> None:
    shown = run(tmp_path)._repr_html_()
    assert "over 4 fresh replicates" in shown and "data:image/png;base64," in shown
    assert "10 images" not in shown


def test_a_library_shows_a_row_of_images_for_each_labeling(tmp_path: Path) -> None:
    result = tdbench.discover("random", tasks=3, max_similarity=0.5, **CHEAP, out=tmp_path)
    assert len(result.plot().axes) == 3 + 1  # and the intervals of their scores
    assert "confirmed QD" in result._repr_html_()
    assert "data:image/png" in result._repr_html_()


def test_a_failed_result_shows_why_and_has_no_picture(tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "import tdbench\n\nclass Broken:\n    def __init__(self, problem): raise ValueError('<b>no</b>')\n\n"
        "@tdbench.hookimpl\ndef register_searchers(register):\n    register('broken', Broken)\n"
    )
    result = run(tmp_path / "out", searcher="broken", plugins=[plugin])
    assert "crash" in repr(result)
    assert "&lt;b&gt;no" in result._repr_html_() and "<img" not in result._repr_html_()
    with pytest.raises(UserError, match="nothing to draw"):
        result.plot()


def test_a_space_shows_its_classes_and_labelings() -> None:
    space = TaskSpace("digits", n=10, steps=5)
    assert len(space.plot().axes) == len(space.classes)
    labels = space.random_labelings(3)
    assert len(space.show(labels).axes) == 3
    titles = [axes.get_title(loc="left") for axes in space.show(labels[0]).axes]
    assert titles == ["2 positives", "8 negatives"]
    assert all(name in space._repr_html_() for name in space.classes)
    with pytest.raises(ValueError, match="exactly P=2 ones"):
        space.show(np.ones(10))
    with pytest.raises(UserError, match="1 to 20 labelings"):
        space.show(space.random_labelings(21))


def test_a_row_that_has_no_room_for_all_images_says_so() -> None:
    space = TaskSpace("digits", n=30, ratio=2, steps=5)
    titles = [axes.get_title(loc="left") for axes in space.show(space.random_labelings(1)[0]).axes]
    assert titles == ["10 positives", "16 of 20 negatives"]


def test_figures_show_themselves_where_pyplot_was_never_imported() -> None:
    assert TaskSpace("digits", n=10, steps=5).plot()._repr_png_().startswith(b"\x89PNG")


# --- results as DataFrames


def test_a_folder_gives_runs_leaderboard_and_evaluations(tmp_path: Path) -> None:
    results = tdbench.bench(["random", "umda"], seeds=2, **CHEAP, out=tmp_path)
    folder = tdbench.load(tmp_path)
    assert sorted(folder.runs["confirmed"]) == sorted(result.confirmed for result in results)
    assert set(folder.leaderboard["searcher"]) == {"random", "umda"}
    told = folder.evaluations[folder.evaluations["run"] == results[0].row.run]
    assert np.array_equal(told["taskness"], results[0].told)
    assert list(told["evaluation"]) == list(range(1, 61))
    assert set(told["labels"].str.count("1")) == {2}
    assert repr(folder).endswith("4 runs, 0 of them not finished)")
    assert "umda" in folder._repr_html_() and "<table>" in folder._repr_html_()
    assert len(folder.plot().axes) == 1


def test_a_run_that_is_not_finished_is_among_the_runs_and_not_in_the_leaderboard(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, on_batch=lambda progress: False)
    folder = tdbench.load(tmp_path)
    assert folder.runs[["status", "evaluations", "budget"]].values.tolist() == [["interrupted", 10, 60]]
    assert "1 of them not finished" in folder._repr_html_()
    with pytest.raises(UserError):
        folder.leaderboard  # noqa: B018 - it is read when it is asked for


def test_shipped_leaderboards_can_be_loaded_without_their_log() -> None:
    folder = tdbench.load(ROOT / "leaderboards" / "comparison")
    assert len(folder.runs) > len(folder.leaderboard) > 1
    with pytest.raises(UserError, match=r"no log\.sqlite"):
        folder.evaluations  # noqa: B018


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        tdbench.load(tmp_path / "nowhere")


def test_a_batch_that_nobody_gave_fits_the_budget(tmp_path: Path) -> None:
    result = tdbench.run("random", n=10, steps=5, budget=8, confirm=2, references="none", out=tmp_path)
    assert (result.row.batch, result.row.evaluations) == (8, 8)
    with pytest.raises(UserError, match="at least one batch of 10"):
        tdbench.run("random", n=10, steps=5, budget=8, batch=10, confirm=2, references="none", out=tmp_path)
