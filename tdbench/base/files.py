"""Writing files that appear complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from tdbench.base.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all. Raises UserError if it cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
