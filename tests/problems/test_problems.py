"""A space as a problem of other tools, each used with the real library, and the page that shows them.

Tests skip where a library is missing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nevergrad as ng
import numpy as np
import pytest
from helpers import ROOT, environment

from tdbench import TaskSpace, UserError, problems

NEEDS = "needs the extra interop: pip install 'tdbench[interop]'"
REGISTRY = ROOT / "docs" / "optunahub" / "package"
PAGE = (ROOT / "docs" / "other-tools.md").read_text(encoding="utf-8")
SNIPPETS = {
    heading.strip(): re.findall(r"^```python\n(.*?)^```", section, flags=re.M | re.S)
    for heading, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S)
}
LIBRARY = {"Optuna": "optunahub", "pymoo": "pymoo", "IOHexperimenter": "ioh", "pyribs": "ribs"}


@pytest.fixture(scope="module")
def space() -> TaskSpace:
    return TaskSpace("digits", n=10, steps=5)


def told(space: TaskSpace, vectors: Any) -> Any:
    """The losses of these vectors as the first evaluations of a run with seed 0."""
    return 1 - space.taskness(space.decode(np.asarray(vectors)))


def confirmed(space: TaskSpace, vector: Any) -> float:
    return float(1 - space.confirm(space.decode(np.asarray(vector)[None])[0]).mean())


def test_an_optuna_study_minimizes_the_told_loss(space: TaskSpace) -> None:
    optuna = pytest.importorskip("optuna")
    pytest.importorskip("optunahub", reason=NEEDS)
    problem = problems.OptunaProblem(space.objective())
    study = optuna.create_study(directions=problem.directions, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(problem, n_trials=5)
    vectors = [[trial.params[f"x{i}"] for i in range(10)] for trial in study.trials]
    np.testing.assert_array_equal([trial.value for trial in study.trials], told(space, vectors))
    best = [study.best_params[f"x{i}"] for i in range(10)]
    assert problem.confirm(study.best_params) == confirmed(space, best)


def test_the_package_for_optunahub_loads_as_the_registry_does_it() -> None:
    optuna = pytest.importorskip("optuna")
    optunahub = pytest.importorskip("optunahub", reason=NEEDS)
    package = optunahub.load_local_module("benchmarks/task_discovery", registry_root=str(REGISTRY))
    problem = package.Problem(n=10, noise="frozen")
    study = optuna.create_study(directions=problem.directions)
    study.optimize(problem, n_trials=2)
    assert len(problem.search_space) == 10
    assert study.best_value == problem.evaluate(study.best_params)


def test_the_package_for_optunahub_has_what_its_registry_wants() -> None:
    package = REGISTRY / "benchmarks" / "task_discovery"
    _, front, text = (package / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in front.splitlines())
    assert list(fields) == ["author", "title", "description", "tags", "optuna_versions", "license"]
    assert fields["tags"].startswith("[benchmark, ")
    for heading in ("## Abstract", "## APIs", "## Installation", "## Example"):
        assert f"\n{heading}\n" in text
    compile((package / "example.py").read_text(encoding="utf-8"), "example.py", "exec")
    assert (package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_nevergrad_minimizes_it_and_judges_by_the_confirmed_loss(space: TaskSpace) -> None:
    function = problems.NevergradFunction(space)
    optimizer = ng.optimizers.OnePlusOne(function.parametrization, budget=4)
    recommendation = optimizer.minimize(function)
    assert function.objective.evaluations == 4
    assert function.evaluation_function(recommendation) == confirmed(space, recommendation.value)


def test_copies_for_nevergrads_experiments_are_the_same_problem_with_counts_of_their_own(space: TaskSpace) -> None:
    function = problems.NevergradFunction(space, replicates=2)
    function(np.zeros(10))
    copy = function.copy()
    assert copy.equivalent_to(function)
    assert copy.descriptors["name"] == space.name
    assert (copy.objective.replicates, copy.objective.evaluations, function.objective.evaluations) == (2, 0, 1)
    assert copy.objective.seed != function.objective.seed


def test_the_plan_in_nevergrads_registry_runs(tmp_path: Path) -> None:
    reason = "needs the extra interop-nevergrad: pip install 'tdbench[interop-nevergrad]'"
    for module in ("cv2", "pyproj"):
        pytest.importorskip(module, reason=reason)
    (shown,) = [code for code in SNIPPETS["Nevergrad"] if "nevergrad_experiment" in code]
    code = f"""
import pandas
import tdbench.problems.nevergrad_experiment as plan
from nevergrad.benchmark import registry
from nevergrad.benchmark.xpbase import Experiment
from tdbench import TaskSpace
from tdbench.problems import NevergradFunction
assert len(list(registry["task_discovery"](0))) == 70
function = NevergradFunction(TaskSpace("digits", n=10, steps=5))
results = [Experiment(function, "OnePlusOne", 10, seed=seed).run() for seed in (0, 0, 1)]
assert [r["error"] for r in results] == ["", "", ""], results
assert results[0]["loss"] == results[1]["loss"], results
plan.TaskSpace = lambda data, seed: TaskSpace(data, n=10, steps=5, seed=seed)
{shown}
table = pandas.read_csv("task_discovery.csv")
assert table["loss"].notna().tolist() == [True], table
assert table["error"].isna().all(), table
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_pymoo_evaluates_a_population_as_one_batch(space: TaskSpace) -> None:
    pytest.importorskip("pymoo", reason=NEEDS)
    from pymoo.algorithms.soo.nonconvex.de import DE
    from pymoo.optimize import minimize

    problem = problems.PymooProblem(space.objective())
    vectors = np.random.default_rng(0).random((6, 10))
    np.testing.assert_array_equal(problem.evaluate(vectors)[:, 0], told(space, vectors))
    result = minimize(problem, DE(pop_size=8), ("n_eval", 16), seed=1, save_history=True)
    assert problem.objective.evaluations == 6 + 16
    assert result.F.shape == (1,)
    assert ((result.X >= 0) & (result.X <= 1)).all()


def test_ioh_counts_and_keeps_the_best(space: TaskSpace, tmp_path: Path) -> None:
    ioh = pytest.importorskip("ioh", reason=NEEDS)
    problem = problems.ioh_problem(space.objective())
    logger = ioh.logger.Analyzer(root=str(tmp_path), folder_name="runs", algorithm_name="random")
    problem.attach_logger(logger)
    vectors = np.random.default_rng(0).random((5, 10))
    losses = [problem(vector) for vector in vectors]
    np.testing.assert_array_equal(losses, told(space, vectors))
    assert problem.state.evaluations == 5
    assert problem.state.current_best.y == min(losses)
    assert problem.meta_data.name == space.name
    problem.reset()
    assert list(tmp_path.glob("runs/*.json"))


def test_pyribs_keeps_the_best_labeling_of_each_overlap(space: TaskSpace) -> None:
    pytest.importorskip("ribs", reason=NEEDS)
    f = space.objective()
    archive = problems.ribs_search(f, 50, ("brightest", "sharpest"), batch=20)
    assert f.evaluations == 60  # whole batches
    tasks = {task.name: task.labels for task in space.reference_tasks}
    elites = archive.data()
    labels = space.decode(elites["solution"])
    for column, name in enumerate(("brightest", "sharpest")):
        np.testing.assert_array_equal(elites["measures"][:, column], labels @ tasks[name].astype(float))
    assert len(np.unique(elites["measures"], axis=0)) == len(labels) > 1
    np.testing.assert_allclose(archive.best_elite["objective"], elites["objective"].max())


def test_pyribs_says_which_reference_tasks_there_are(space: TaskSpace) -> None:
    pytest.importorskip("ribs", reason=NEEDS)
    with pytest.raises(UserError, match="no reference task 'brighest'; did you mean 'brightest'"):
        problems.ribs_search(space.objective(), 10, ("brighest", "sharpest"))


def test_a_missing_tool_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymoo.core.problem", None)
    monkeypatch.delitem(sys.modules, "tdbench.problems.pymoo", raising=False)
    with pytest.raises(UserError, match=r"PymooProblem needs pymoo.*: pip install 'tdbench\[interop\]'"):
        _ = problems.PymooProblem


def test_tools_are_loaded_only_when_their_names_are_used() -> None:
    tools = {"optuna", "nevergrad", "pymoo", "ioh", "ribs"}
    code = f"import sys, tdbench.problems; sys.exit(not {tools}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0


@pytest.mark.parametrize("heading", SNIPPETS)
def test_the_examples_of_the_page_run(heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if heading in LIBRARY:
        pytest.importorskip(LIBRARY[heading], reason=NEEDS)
    monkeypatch.chdir(tmp_path)
    assert SNIPPETS[heading]
    for code in SNIPPETS[heading]:
        if "nevergrad_experiment" not in code:  # it needs another extra, and is run above
            exec(compile(code, heading, "exec"), {})
