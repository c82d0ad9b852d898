"""`tdbench discover`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tdbench.cli.options import PATH, interruptible
from tdbench.cli.printing import conclude
from tdbench.cli.run_options import discovery_options, one_run_options, shared_options


@click.command(short_help="Search one space for many different labelings")
@one_run_options
@click.option("--tasks", type=int, default=16, show_default=True, help="Labelings to find.")
@discovery_options
@click.option("--json", "to_json", type=PATH, help="Write confirmed QD and the labelings to this file.")
@shared_options
def discover(to_json: Path | None, **settings: Any) -> None:
    """Search one space for several labelings, different from each other, and confirm each of them."""
    from tdbench.api import discover as run_discovery
    from tdbench.base.files import check_target, write_bytes
    from tdbench.leaderboard.summary import discovery_document, discovery_summary

    if to_json is not None:
        check_target(to_json)
    with interruptible("--resume"):
        result = run_discovery(**settings, progress=True)
    if to_json is not None:
        write_bytes(to_json, (json.dumps(discovery_document(result), indent=1) + "\n").encode())
    conclude(result, discovery_summary(result))
