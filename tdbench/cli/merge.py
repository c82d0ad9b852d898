"""`tdbench merge`."""

from __future__ import annotations

from pathlib import Path

import click

from tdbench.base.errors import escaped
from tdbench.cli.options import PATH


@click.command(short_help="Join results folders, such as those of shards")
@click.argument("folders", type=PATH, nargs=-1, required=True, metavar="FOLDER...")
@click.option("--out", type=PATH, required=True, help="A new folder, or one with results, which stay.")
def merge(folders: tuple[Path, ...], out: Path) -> None:
    """Join results folders, such as those of `bench --shard`, into one.

    The folders are only read. A run that two of them have is one run, and refused where they differ. Merging again
    changes nothing.
    """
    from tdbench.store.merge import merge as join

    merged = join(folders, out)
    lines = [f"{out} has {merged.runs} runs from {merged.folders} folders; `tdbench leaderboard --out {out}`"]
    if merged.unfinished:
        running = f" ({merged.running} of them are running now)" if merged.running else ""
        lines.append(
            f"{merged.unfinished} runs have not ended{running}: merge again when they have, or end them with the "
            f"campaign's command, --out {out} and --resume"
        )
    if len(merged.engines) > 1:
        engines = "; ".join(merged.engines)
        lines.append(f"{len(merged.engines)} engines trained, whose results differ in their last bits: {engines}")
    for line in lines:
        click.echo(escaped(line))
