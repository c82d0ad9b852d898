"""What the workers of a cluster are, and how fast: the table of `tdbench doctor --cluster`."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from tdbench.cluster.member import Member
from tdbench.cluster.pool import Pool
from tdbench.cluster.remote import probe
from tdbench.cluster.spec import Cluster

COLUMNS = ("worker", "host", "cores", "hardware", "engine", "device", "detail", "torch", "tdbench", "rate", "refused")
_PROBE_TIMEOUT = 60.0  # seconds


def survey(cluster: Cluster) -> list[dict[str, Any]]:
    """A record with `COLUMNS` for each worker; `rate` is trainings per second at N = 50, NaN where it was refused.

    Raises:
        UserError: the scheduler cannot be reached, or no worker can be used.
    """
    pool = Pool(cluster, "auto", "auto", 1, say=lambda line: None)
    try:
        members = sorted(pool.members.values(), key=lambda member: member.name)
        rates = {m.address: pool.call(m.address, probe) for m in members if m.usable}
        return [_record(member, rates.get(member.address)) for member in members]
    finally:
        pool.close()


def _record(member: Member, rate: Future[float] | None) -> dict[str, Any]:
    described, measured, refused = member.description, float("nan"), member.refused
    if rate is not None:
        try:
            measured = rate.result(_PROBE_TIMEOUT)
        except Exception as error:  # whatever goes wrong there
            refused = f"the probe failed: {type(error).__name__}: {error}"
    if described is None and not refused:
        refused = "it has not said yet what it is"
    kind = described.kind if described else None
    values = (
        *(member.name, described.host if described else member.address),
        *(described.cores if described else 0, described.hardware if described else ""),
        *((kind.engine, kind.device, kind.detail, kind.torch, kind.tdbench) if kind else ("",) * 5),
        *(measured, refused),
    )
    return dict(zip(COLUMNS, values, strict=True))
