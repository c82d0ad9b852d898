"""Workers as SLURM jobs, through `dask-jobqueue`: each job is a ``tdbench worker`` that joins a scheduler here."""

from __future__ import annotations

import json
from typing import Any

from tdbench.base.errors import UserError, printable
from tdbench.cluster.spec import Cluster, package


def slurm_cluster(cluster: Cluster) -> Any:
    """A scheduler in this process, whose workers are that many SLURM jobs.

    Raises:
        UserError: `dask-jobqueue` is not installed, or it does not take these arguments.
    """
    found = job_cluster(json.loads(cluster.slurm))
    try:
        found.scale(jobs=cluster.jobs)
    except Exception as error:
        found.close()
        raise UserError(f"the jobs cannot be submitted: {printable(str(error))[:300]}") from error
    return found


def job_cluster(arguments: dict[str, Any]) -> Any:
    """A `dask_jobqueue.SLURMCluster` without jobs, whose jobs are ``tdbench worker``; `job_script()` shows one."""
    jobqueue = package("dask_jobqueue")
    defaults = {"worker_command": "tdbench worker", "processes": 1}
    try:
        return jobqueue.SLURMCluster(**{**defaults, **arguments})
    except (TypeError, ValueError) as error:
        raise UserError(f"[cluster.slurm]: {printable(str(error))[:300]}") from error
