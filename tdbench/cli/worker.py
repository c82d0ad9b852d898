"""`tdbench worker`: a process that trains for a cluster."""

from __future__ import annotations

import os

import click

from tdbench.base.errors import UserError


@click.command(short_help="Train for a cluster, as one of its workers")
@click.argument("address", envvar="DASK_SCHEDULER_ADDRESS")
@click.option("--engine", default="auto", show_default=True, help="auto, native, cuda, batched or reference.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", "--nthreads", type=click.IntRange(1), help="CPU threads; one per core by default.")
@click.option("--gpu", type=click.IntRange(0), metavar="I", help="Use GPU I only; one worker for each GPU.")
@click.option("--name", help="Unique in the cluster; host and process by default.")
@click.option("--death-timeout", type=float, default=60.0, show_default=True, help="Seconds to wait for the scheduler.")
@click.option("--local-directory", type=click.Path(), help="Folder for Dask's temporary files.")
@click.option("--memory-limit", hidden=True, help="What job queues pass to a Dask worker; the engine takes little.")
@click.option("--with-parent", is_flag=True, hidden=True, help="End when standard input ends.")
def worker(
    address: str,
    engine: str,
    device: str,
    threads: int | None,
    gpu: int | None,
    name: str | None,
    death_timeout: float,
    local_directory: str | None,
    memory_limit: str | None,
    with_parent: bool,
) -> None:
    """Join the Dask scheduler at ADDRESS, and train what it sends until it ends.

    ADDRESS is such as tcp://head:8786, or in DASK_SCHEDULER_ADDRESS. Whoever reaches a scheduler can run code on its
    machine and its workers: use it in a network of your own, or with TLS.
    """
    if gpu is not None:
        if device == "cpu":
            raise UserError("--gpu is for a worker on a GPU; leave --device cpu out")
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
        device = "cuda"
    from tdbench.cluster.serve import serve

    serve(
        address,
        engine,
        device,
        threads,
        name,
        local_directory=local_directory,
        patience=death_timeout,
        with_parent=with_parent,
    )
