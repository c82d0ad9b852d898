"""`tdbench doctor`: what this installation has."""

from __future__ import annotations

import click

from tdbench.base.table import Table
from tdbench.cli.printing import format_option, show


@click.command()
@click.option("--data-dir", type=click.Path(), help="Folder of the CIFAR sets.")
@format_option
def doctor(data_dir: str | None, form: str) -> None:
    """Versions, devices, engines and sources of this installation."""
    records = installation(data_dir)
    columns = ("part", "state")
    rows = tuple((record["part"], record["state"]) for record in records)
    show(form, [Table("", columns, rows, text=(0, 1))], records)


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
