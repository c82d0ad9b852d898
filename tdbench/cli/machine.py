"""`tdbench doctor` and `perf`: what this machine has, and how fast it trains."""

from __future__ import annotations

import click


@click.command()
@click.option("--data-dir", type=click.Path(), help="Folder of the CIFAR sets.")
def doctor(data_dir: str | None) -> None:
    """Versions, devices, engines and sources of this installation."""
    from tdbench import environment
    from tdbench.engine import cuda_available, make_engine, native
    from tdbench.sources import cached_sources

    for pair in environment.versions().split():
        name, _, value = pair.partition("=")
        click.echo(f"{name:<14}{value}")
    click.echo(f"{'processor':<14}{environment.hardware('cpu')}")
    click.echo(f"{'cuda':<14}{environment.hardware('cuda') if cuda_available() else 'none that torch can see'}")
    reason = native.unavailable()
    for name, state in (
        ("native", f"not available: {reason}" if reason else f"available ({make_engine('native').detail})"),
        ("batched", "available"),
        ("reference", "available"),
    ):
        click.echo(f"engine {name:<10}{state}")
    click.echo(f"engine auto      is {make_engine().name} on {make_engine().device}")
    for name, state in cached_sources(data_dir):
        click.echo(f"data {name:<12}{state}")
