"""`tdbench doctor`: what this installation has."""

from __future__ import annotations

import click

from tdbench.base.table import Table
from tdbench.cli.printing import format_option, show


@click.command(short_help="Versions, devices, engines and sources")
@click.option("--data-dir", type=click.Path(), help="Folder of the CIFAR sets.")
@click.option("--cluster", metavar="local:N|ADDRESS", help="Look at the workers of a cluster, and time each of them.")
@format_option
def doctor(data_dir: str | None, cluster: str | None, form: str) -> None:
    """Versions, devices, engines and sources of this installation; or the workers of a cluster."""
    if cluster is not None:
        _show_cluster(cluster, form)
        return
    records = installation(data_dir)
    columns = ("part", "state")
    rows = tuple((record["part"], record["state"]) for record in records)
    show(form, [Table("", columns, rows, text=(0, 1))], records)


def _show_cluster(cluster: str, form: str) -> None:
    from tdbench.cluster.spec import Cluster
    from tdbench.cluster.survey import COLUMNS, survey

    records = survey(Cluster.of(cluster))
    rows = tuple(
        tuple(f"{v:.1f}" if c == "rate" and not r["refused"] else "" if c == "rate" else str(v) for c, v in r.items())
        for r in records
    )
    text = tuple(i for i, column in enumerate(COLUMNS) if column not in ("cores", "rate"))
    used = sum(not record["refused"] for record in records)
    rate = sum(record["rate"] for record in records if not record["refused"])
    line = f"{used} of {len(records)} workers are used; together {rate:.1f} trainings/s at N = 50 and 100 steps"
    columns = tuple("trainings/s" if column == "rate" else column for column in COLUMNS)
    show(form, [Table("", columns, rows, text=text)], records, lines=[line])


def installation(data_dir: str | None = None) -> list[dict[str, str]]:
    """Each part of this installation with its state: versions, hardware, engines, data sources."""
    from tdbench.base import environment
    from tdbench.engine import cuda, cuda_available, make_engine, native
    from tdbench.space.sources import cached_sources

    reason, auto = native.unavailable(), make_engine()
    parts = dict(pair.split("=", 1) for pair in environment.versions().split())
    parts["processor"] = environment.hardware("cpu")
    parts["cuda"] = environment.hardware("cuda") if cuda_available() else "none that torch can see"
    parts["engine native"] = f"not available: {reason}" if reason else f"available ({make_engine('native').detail})"
    cuda_reason = cuda.unavailable() if cuda_available() else "torch sees no CUDA device"
    parts["engine cuda"] = f"not available: {cuda_reason}" if cuda_reason else f"available ({cuda.the_engine().detail})"
    parts["engine batched"] = parts["engine reference"] = "available"
    parts["engine auto"] = f"is {auto.name} on {auto.device}"
    parts.update({f"data {name}": state for name, state in cached_sources(data_dir)})
    return [{"part": part, "state": state} for part, state in parts.items()]
