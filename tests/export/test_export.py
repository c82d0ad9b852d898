"""Exports, read back by the tools that they are for."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from synthetic import failed, row

from tdbench import TaskSpace, UserError
from tdbench.cli.export import export as command
from tdbench.export.export import FORMATS, MANIFEST, export
from tdbench.settings import RunSettings
from tdbench.space.sources import Source
from tdbench.store.log import Asked, Store, digest
from tdbench.store.rows import COLUMNS, row_to_json

EVALUATIONS = 12
BAD_NAME = "../<b>:x"


def blank_source(seed):
    """Random images, so that a space is made without reading anything."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (30, 32, 32, 3), dtype=np.uint8)
    return Source("noise", images, np.repeat(np.arange(5), 6), tuple("abcde"))


def add_run(store, space, key, searcher, seed, evaluations=EVALUATIONS, **changes):
    """A run in the log with made-up evaluations; returns its (n, N) labels and (n,) taskness."""
    rng = np.random.default_rng([seed, len(searcher)])
    settings = RunSettings(searcher="random", n=10, steps=5, budget=max(evaluations, 32), batch=4, seed=seed)
    store.begin(key, 1, space.identity, settings, "1.0", ("reference", "cpu", ""))
    labels = np.array([rng.permutation([1] * 2 + [0] * (space.n - 2)) for _ in range(evaluations)], dtype=np.uint8)
    taskness = rng.normal(0.2, 0.1, evaluations)
    for first in range(0, evaluations, 4):
        part = slice(first, first + 4)
        store.append([(f"{key}-1", Asked(first, digest(labels[part] * 1.0), labels[part], taskness[part]))], {})
    make = failed if changes.get("status", "ok") != "ok" else row
    of_space = {"space": space.identity, "space_seed": space.seed, "n": space.n, "data": space.source}
    done = make(searcher, seed, **of_space, run=f"{key}-1", **changes)
    store.finish(f"{key}-1", done.status, done.error, 1.0, row_to_json(done))
    return labels, taskness


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """An output folder with runs of three searchers in two spaces, and what was told in each."""
    folder = tmp_path_factory.mktemp("out")
    spaces = [TaskSpace(blank_source(s), n=10, ratio=4, seed=s, steps=5) for s in (0, 1)]
    told = {}
    with Store(folder) as store:
        for s, space in enumerate(spaces):
            store.add_space(space)
            for searcher in ("random", "cmaes", BAD_NAME):
                for seed in (0, 1):
                    key = f"{s}{searcher}{seed}"
                    told[f"{key}-1"] = add_run(store, space, key, searcher, seed)
        told["gone-1"] = add_run(store, spaces[0], "gone", "random", 7, evaluations=0, status="crash")
        store.begin("running", 1, spaces[0].identity, RunSettings(n=10), "1.0", ("reference", "cpu", ""))
    return folder, told


# --- IOHprofiler


def load_ioh(folder):
    inspector = pytest.importorskip("iohinspector")
    manager = inspector.DataManager()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(folder.rglob("*.json")):
            manager.add_json(str(path))
        return manager.overview, manager.load(monotonic=False, include_meta_data=True)


def test_iohinspector_reads_every_evaluation_of_every_run(log, tmp_path):
    folder, told = log
    export(folder, tmp_path / "ioh", "ioh")
    overview, data = load_ioh(tmp_path / "ioh")
    assert len(overview) == 12  # the run without an evaluation cannot be held by this format
    assert set(overview["algorithm_name"]) == {"random", "cmaes", BAD_NAME}
    assert set(overview["dimension"]) == {10}
    assert set(overview["instance"]) == {1, 2}
    assert len(data) == 12 * EVALUATIONS
    losses = sorted(1 - told[key][1][i] for key in told if key != "gone-1" for i in range(EVALUATIONS))
    assert sorted(data["raw_y"]) == losses  # to the bit
    firsts = data.filter(data["evaluations"] == 1)
    assert len(firsts) == 12


def test_iohinspector_finds_the_best_told_where_it_was(log, tmp_path):
    folder, told = log
    export(folder, tmp_path / "ioh", "ioh")
    page = json.loads(next((tmp_path / "ioh" / "cmaes").glob("*.json")).read_text())
    (scenario,) = page["scenarios"]
    for run in scenario["runs"]:
        key = f"{run['instance'] - 1}cmaes{run['seed']}-1"
        labels, taskness = told[key]
        assert run["best"]["y"] == 1 - taskness.max()
        assert run["best"]["evals"] == taskness.argmax() + 1
        assert run["best"]["x"] == labels[taskness.argmax()].tolist()
        assert run["evals"] == EVALUATIONS
    assert page["maximization"] is False


def test_best_so_far_falls_as_iohinspector_computes_it(log, tmp_path):
    inspector = pytest.importorskip("iohinspector")
    export(log[0], tmp_path / "ioh", "ioh")
    manager = inspector.DataManager()
    manager.add_json(str(next((tmp_path / "ioh" / "random").glob("*.json"))))
    for (_,), run in manager.load(monotonic=True).group_by(["data_id"]):
        assert (np.diff(run.sort("evaluations")["raw_y"].to_numpy()) < 0).all()


def test_no_name_leaves_the_folder(log, tmp_path):
    written = export(log[0], tmp_path / "a" / "ioh", "ioh")
    assert all(path.resolve().is_relative_to((tmp_path / "a" / "ioh").resolve()) for path in written.files)
    assert all("<" not in path.name and ":" not in path.name for path in tmp_path.rglob("*"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_left_out_is_said(log, tmp_path):
    notes = export(log[0], tmp_path / "ioh", "ioh").notes
    assert notes == (
        "1 run(s) that have not ended are left out",
        "1 run(s) without an evaluation are left out: random seed 7",
    )


def test_runs_of_different_protocols_are_different_functions(tmp_path):
    space = TaskSpace(blank_source(0), n=10, ratio=4, steps=5)
    with Store(tmp_path / "out") as store:
        store.add_space(space)
        add_run(store, space, "k1", "random", 0)
        add_run(store, space, "k2", "random", 0, budget=200)
    export(tmp_path / "out", tmp_path / "ioh", "ioh")
    overview, _ = load_ioh(tmp_path / "ioh")
    assert set(overview["function_id"]) == {1, 2}
    assert len(set(overview["function_name"])) == 2
    assert sorted(overview["budget"]) == [100, 200]


# --- parquet


def test_parquet_holds_runs_and_evaluations_to_the_bit(log, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder, told = log
    export(folder, tmp_path / "parquet", "parquet")
    runs = parquet.read_table(tmp_path / "parquet" / "runs.parquet").to_pandas()
    evaluations = parquet.read_table(tmp_path / "parquet" / "evaluations.parquet").to_pandas()
    assert tuple(runs.columns) == COLUMNS
    assert len(runs) == 13
    assert runs.set_index("run").loc["gone-1", "status"] == "crash"
    for key, (labels, taskness) in told.items():
        own = evaluations[evaluations.run == key]
        np.testing.assert_array_equal(own.taskness, taskness)
        np.testing.assert_array_equal(own.loss, 1 - taskness)
        assert own.labels.tolist() == ["".join(map(str, vector)) for vector in labels.tolist()]
        assert own.evaluation.tolist() == list(range(1, len(taskness) + 1))


# --- Optuna


def test_optuna_loads_a_study_for_each_run(log, tmp_path):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder, told = log
    before = optuna.logging.get_verbosity()
    export(folder, tmp_path / "runs.journal", "optuna")
    assert optuna.logging.get_verbosity() == before
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "runs.journal")))
    summaries = optuna.get_all_study_summaries(storage)
    assert len(summaries) == 13
    for summary in summaries:
        study = optuna.load_study(study_name=summary.study_name, storage=storage)
        labels, taskness = told[study.user_attrs["run"]]
        assert study.direction == optuna.study.StudyDirection.MINIMIZE
        assert [trial.value for trial in study.trials] == (1 - taskness).tolist()
        assert [t.user_attrs["labels"] for t in study.trials] == ["".join(map(str, v)) for v in labels.tolist()]
        if len(taskness):
            assert study.best_value == 1 - taskness.max()
            assert study.user_attrs["confirmed"] == 0.3
        else:
            assert study.user_attrs["confirmed"] is None


# --- the target


@pytest.mark.parametrize("form", ["ioh", "parquet"])
def test_an_earlier_export_is_replaced_only_by_force_and_nothing_else_is_touched(log, tmp_path, form):
    to = tmp_path / "to"
    first = export(log[0], to, form)
    with pytest.raises(UserError, match="is not empty"):
        export(log[0], to, form)
    (to / "notes.txt").write_text("mine")
    stale = to / "stale" / "old.dat"
    stale.parent.mkdir()
    stale.write_text("")
    (tmp_path / "outside.txt").write_text("mine")
    with (to / MANIFEST).open("a") as manifest:
        manifest.write("stale/old.dat\n../outside.txt\n")
    assert export(log[0], to, form, force=True).files == first.files
    assert (to / "notes.txt").read_text() == "mine"
    assert (tmp_path / "outside.txt").exists()
    assert not stale.parent.exists()


def test_force_refuses_a_folder_that_is_no_export(log, tmp_path):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="no earlier export"):
        export(log[0], tmp_path / "to", "ioh", force=True)


def test_a_journal_is_replaced_only_by_force(log, tmp_path):
    to = tmp_path / "runs.journal"
    export(log[0], to, "optuna")
    size = to.stat().st_size
    with pytest.raises(UserError, match="force=True to replace it"):
        export(log[0], to, "optuna")
    export(log[0], to, "optuna", force=True)
    assert to.stat().st_size == pytest.approx(size, rel=0.01)  # replaced, not appended to
    assert [path.name for path in tmp_path.iterdir()] == ["runs.journal"]


def test_a_folder_without_a_log_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"there is no log\.sqlite"):
        export(tmp_path, tmp_path / "to", "ioh")


def test_a_log_without_an_ended_run_is_one_clear_line(tmp_path):
    Store(tmp_path).close()
    with pytest.raises(UserError, match="has ended yet"):
        export(tmp_path, tmp_path / "to", "parquet")


def test_the_command_prints_what_it_wrote(log, tmp_path):
    arguments = ["--format", "ioh", "--out", str(log[0]), "--to", str(tmp_path / "ioh")]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    files = [line.removeprefix("wrote ") for line in result.stdout.splitlines()]
    assert sorted(files) == sorted(str(path) for path in (tmp_path / "ioh").rglob("*") if path.is_file())
    assert "note: 1 run(s) that have not ended" in result.stderr


def test_the_command_offers_every_format():
    (option,) = [option for option in command.params if option.name == "form"]
    assert tuple(option.type.choices) == tuple(FORMATS)
