"""Text of unknown origin as one short printable line: for logs, tables and terminals."""

from __future__ import annotations

from typing import Any

MOST = 500  # characters


def plain_line(value: Any, most: int = MOST) -> str:
    """`value` as text without line breaks and control characters, cut to `most` characters.

    Objects of plugins may fail even when they are turned into text; then their type is said.
    """
    try:
        text = str(value)[: 4 * most]
        text = text.encode("utf-8", "replace").decode("utf-8", "replace")
    except BaseException:  # the object's own code
        text = f"<{type(value).__name__} that cannot be shown>"
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def error_line(error: BaseException, most: int = MOST) -> str:
    """An exception as ``Type: message`` in one line."""
    return plain_line(f"{type(error).__name__}: {plain_line(error, most)}", most)
