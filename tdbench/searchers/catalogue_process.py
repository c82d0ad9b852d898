"""The process that finds out what is installed: it loads plugins and says what each of them registers.

The other end is `catalogue`. A request names the plugins; for each a message says that its loading begins, and one what
came of it.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from tdbench.base.channel import Channel, Message
from tdbench.base.errors import UserError
from tdbench.base.text import error_line
from tdbench.searchers.loading import load_sources
from tdbench.searchers.registry import PluginSource, Registered, Registration, known_variants


def main(descriptor: int) -> None:
    channel = Channel(socket.socket(fileno=descriptor))
    request = channel.receive_waiting().values
    for i, given in enumerate(request["sources"]):
        channel.send_waiting(Message({"begins": i}))
        channel.send_waiting(Message({"done": i, **_found(PluginSource(**given), request["families"])}))
    channel.send_waiting(Message({"end": True}))
    os._exit(0)  # threads and exit handlers of plugins are no concern of ours


def _found(source: PluginSource, families: list[str] | None) -> dict[str, Any]:
    """What this plugin registers, in plain values."""
    try:
        found = load_sources([source])
    except KeyboardInterrupt as error:  # Ctrl-C never comes here: it is the plugin's own
        return {"failure": f"{error_line(error)} [{source.origin}]"}
    if found.failures:
        return {"failure": next(iter(found.failures.values()))}
    module = sys.modules.get(source.target.partition(":")[0])
    return {
        "file": source.target if source.kind == "file" else str(getattr(module, "__file__", "") or ""),
        "searchers": [_record(r, families) for r in found.searchers.values()],
        "reductions": [_record(r, families) for r in found.reductions.values() if r.source.kind != "own"],
    }


def _record(registration: Registered, families: list[str] | None) -> dict[str, Any]:
    record = {
        name: value for name, value in vars(registration).items() if name not in ("factory", "variants", "source")
    }
    if isinstance(registration, Registration) and registration.variants is not None:
        listed = families is None or registration.name in families
        record["variants"] = _variants(registration) if listed else {"error": "they were not asked for"}
    return record


def _variants(registration: Registration) -> list[str] | dict[str, str]:
    try:
        return known_variants(registration)
    except UserError as error:
        return {"error": str(error)}
    except BaseException as error:  # the plugin's own code
        return {"error": f"the variants of {registration.name!r} cannot be listed: {error_line(error)}"}


if __name__ == "__main__":
    main(int(sys.argv[1]))
