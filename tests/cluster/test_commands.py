"""The commands with `--cluster`: the tables of a run without one, one line for each error, and no process left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import CHEAP, as_options, command, environment, evaluations, one_error, table, tdbench
from processes import alive, listening, local_workers, scheduler, wait_until, worker

from tdbench.base.errors import UserError
from tdbench.cluster.slurm import job_cluster
from tdbench.cluster.spec import Cluster, is_open
from tdbench.store.log import Store

BENCH = ["bench", "--searchers", "random,umda", "--seeds", "1", "--references", "few", *as_options(CHEAP)]
SLOW = as_options({"searcher": "random", "n": 20, "steps": 40, "confirm": 4, "batch": 32, "budget": 3200})
LOG = ("evaluation", "ask", "recommendation", "confirmation")


def log(out: Path) -> list[list[tuple[object, ...]]]:
    """Everything in the log that a result is made of."""
    with Store(out, read_only=True) as store:
        return [store._db.rows(f"SELECT * FROM {name} ORDER BY 1, 2, 3") for name in LOG]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `BENCH` without a cluster."""
    out = tmp_path_factory.mktemp("alone")
    assert tdbench(*BENCH, "--threads", 1, "--out", out).returncode == 0
    return out


@pytest.mark.parametrize("workers", [1, 4])
def test_tables_and_log_are_those_without_a_cluster_to_the_bit(tmp_path: Path, alone: Path, workers: int) -> None:
    done = tdbench(*BENCH, "--cluster", f"local:{workers}", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"cluster: {workers} workers waited" in done.stderr
    assert table(tmp_path) == table(alone)
    assert log(tmp_path) == log(alone)
    status = tdbench("status", "--out", tmp_path).stdout
    assert all(f"local-{i + 1}" in status for i in range(workers))
    assert "lost pieces" in status
    assert "workers" not in tdbench("status", "--out", alone).stdout
    assert local_workers() == []


def test_a_scheduler_of_the_environment_and_a_campaign_with_a_table(tmp_path: Path, alone: Path) -> None:
    campaign = tmp_path / "campaign.toml"
    with scheduler(tmp_path) as (address, _), worker(address, "a"):
        campaign.write_text(f'searchers = ["random", "umda"]\n[cluster]\naddress = "{address}"\ntimeout = 60\n')
        done = tdbench("bench", campaign, *BENCH[3:], "--out", tmp_path / "table")
        assert done.returncode == 0, done.stderr
        assert table(tmp_path / "table") == table(alone)
        asked = {**environment(), "DASK_SCHEDULER_ADDRESS": address}
        words = command("run", *as_options({**CHEAP, "searcher": "random", "out": tmp_path / "run"}))
        run = subprocess.run(words, env=asked, capture_output=True, text=True, timeout=120, check=False)
        assert run.returncode == 0, run.stderr
        assert "cluster: 1 workers" in run.stderr
        wrong = tdbench(*BENCH, "--cluster", address, "--threads", 2, "--out", tmp_path / "wrong")
        assert "--threads belongs to `tdbench worker`" in one_error(wrong.returncode, wrong.stderr)


@pytest.mark.long
def test_discover_studies_and_extend_train_on_workers(tmp_path: Path) -> None:
    cluster = ("--cluster", "local:1")
    small = as_options({"n": 10, "steps": 5, "budget": 32, "batch": 16, "confirm": 2, "tasks": 2})
    discover = ("discover", "--searcher", "random", "--max-similarity", "0.9", *small)
    assert tdbench(*discover, "--threads", 1, "--out", tmp_path / "here").returncode == 0
    done = tdbench(*discover, *cluster, "--out", tmp_path / "there")
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "there") == table(tmp_path / "here")
    (library,) = (tmp_path / "there" / "libraries").rglob("*.npz")
    extended = tdbench("tasks", "extend", library, *cluster)
    assert extended.returncode == 0, extended.stderr
    assert local_workers() == []


def running(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


def test_local_workers_hear_this_machine_only_and_ctrl_c_leaves_none_of_them(tmp_path: Path) -> None:
    process = running("run", *SLOW, "--out", tmp_path, "--cluster", "local:2")
    wait_until(lambda: len(evaluations(tmp_path)) >= 32)
    workers = [found.pid for found in local_workers(process.pid)]
    assert len(workers) == 2
    assert all("tdbench worker" in " ".join(psutil.Process(pid).cmdline()) for pid in workers)
    assert {ip for pid in (process.pid, *workers) for ip in listening(pid)} == {"127.0.0.1"}
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("stopped; everything evaluated is kept.")
    assert alive(workers) == []


@pytest.mark.long
def test_a_coordinator_killed_leaves_no_worker_and_resume_goes_on(tmp_path: Path) -> None:
    small = [*SLOW[:-1], "320"]
    process = running("run", *small, "--out", tmp_path / "killed", "--cluster", "local:2")
    wait_until(lambda: len(evaluations(tmp_path / "killed")) >= 32)
    workers = [found.pid for found in local_workers(process.pid)]
    process.kill()
    process.communicate()
    wait_until(lambda: alive(workers) == [], 10, "workers outlive who started them")
    done = tdbench("run", *small, "--out", tmp_path / "killed", "--cluster", "local:2", "--resume")
    assert done.returncode == 0, done.stderr
    assert tdbench("run", *small, "--out", tmp_path / "whole", "--threads", 1).returncode == 0
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


@pytest.mark.long
def test_the_scheduler_lost_ends_a_run_in_one_line_and_resume_goes_on(tmp_path: Path) -> None:
    small, out = [*SLOW[:-1], "320"], tmp_path / "out"
    with scheduler(tmp_path) as (address, head), worker(address, "a"):
        process = running("run", *small, "--out", out, "--cluster", address)
        wait_until(lambda: len(evaluations(out)) >= 32)
        head.kill()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2
        assert said.splitlines()[-1].startswith(f"error: the scheduler at {address} is lost; everything evaluated")
        assert "Traceback" not in said
    done = tdbench("run", *small, "--out", out, "--threads", 1, "--resume")
    assert done.returncode == 0, done.stderr


def test_doctor_shows_workers_and_why_one_is_refused(tmp_path: Path) -> None:
    with (
        scheduler(tmp_path) as (address, _),
        worker(address, "good"),
        worker(address, "good-too"),
        worker(address, "other", TDBENCH_NATIVE_ISA="base"),
    ):
        time.sleep(2)
        done = tdbench("doctor", "--cluster", address, "--format", "json")
    assert done.returncode == 0, done.stderr
    records = {record["worker"]: record for record in json.loads(done.stdout)}
    assert set(records) == {"good", "good-too", "other"}
    assert "its detail is lanes-base" in records["other"]["refused"]
    assert records["good"]["rate"] > 0
    assert records["good"]["refused"] == ""
    assert "2 of 3 workers are used" in done.stderr


def test_a_worker_says_what_it_is_and_warns_of_an_open_address() -> None:
    done = tdbench("worker", "tcp://192.0.2.1:8786", "--device", "cpu", "--name", "w", "--death-timeout", "1")
    assert done.stdout.startswith("worker w: engine ")
    assert "on cpu" in done.stdout
    assert "torch" in done.stdout
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: tcp://192.0.2.1:8786 is beyond this machine and without TLS")
    assert error.startswith("error: the scheduler at tcp://192.0.2.1:8786 cannot be joined")
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("tls://head:8786", False),
        ("tcp://head:8786", True),
        ("tcp://10.0.0.1:8786", True),
    ],
)
def test_an_address_is_open_if_it_is_neither_loopback_nor_tls(address: str, warned: bool) -> None:
    assert is_open(address) is warned


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("local:0", "needs a number N from 1"),
        ("local:", "needs a number N from 1"),
        ("head:8786", "local:N"),
        ("tcp://head", "local:N"),
        (4, "an address or a table"),
        ({"adress": "local:2"}, "did you mean 'address'"),
        ({"address": "local:2", "timeout": 0}, "timeout must be"),
        ({"address": "slurm"}, "needs a number of jobs"),
        ({"address": "local:2", "jobs": 3}, 'for address = "slurm"'),
    ],
)
def test_what_a_cluster_cannot_be_is_said(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Cluster.of(value)


def test_without_the_package_a_cluster_is_one_line_that_says_what_to_install(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['distributed'] = None; from tdbench.cli import main; main(sys.argv[1:])"
    for words in (["run", *SLOW, "--out", str(tmp_path / "out"), "--cluster", "local:2"], ["worker", "tcp://head:1"]):
        done = subprocess.run(
            [sys.executable, "-c", blocked, *words], capture_output=True, text=True, env=environment(), check=False
        )
        line = one_error(done.returncode, done.stderr)
        assert 'pip install "tdbench[cluster]"' in line
    assert not os.path.exists(tmp_path / "out")  # noqa: PTH110


def test_a_slurm_job_is_a_worker_that_joins() -> None:
    jobs = job_cluster(
        {
            **{"queue": "cpu", "cores": 8, "memory": "16GB", "walltime": "04:00:00"},
            "job_script_prologue": ["export TDBENCH_NATIVE_ISA=avx2"],
            "scheduler_options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
        }
    )
    try:
        script = jobs.job_script()
        address = jobs.scheduler_address
    finally:
        jobs.close()
    assert "#SBATCH -p cpu" in script
    assert "#SBATCH --cpus-per-task=8" in script
    *_, prologue, start = script.strip().splitlines()
    assert prologue == "export TDBENCH_NATIVE_ISA=avx2"
    assert f" -m tdbench worker {address} " in start
    options = start.partition(address)[2].split()
    done = tdbench("worker", "tcp://127.0.0.1:9", *options[: options.index("--death-timeout")], "--death-timeout", "1")
    assert "cannot be joined" in one_error(done.returncode, done.stderr)  # it took every option of the script


@pytest.mark.long
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_with_tls_as_the_documentation_says(tmp_path: Path, alone: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tdbench"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    tls = {
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(certificate),
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
    }
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(certificate)
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(key)
    with scheduler(tmp_path, "--protocol", "tls", **tls) as (address, _), worker(address, "a", **tls):
        assert address.startswith("tls://")
        words = command(*BENCH, "--cluster", address, "--out", tmp_path / "out")
        done = subprocess.run(words, env={**environment(), **tls}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        refused = tdbench(*BENCH, "--cluster", address, "--out", tmp_path / "refused")
        assert "needs TLS; Dask's settings name no certificate of a client" in one_error(
            refused.returncode, refused.stderr
        )
    assert table(tmp_path / "out") == table(alone)
