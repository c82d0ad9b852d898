"""What the cells of the evaluation log hold: packed labels, JSON, and checks that they can be read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tdbench.space.labelings import LabelVectors


def pack_labels(labels: LabelVectors) -> list[bytes]:
    """One packed blob per row of (n, N) label vectors."""
    return [row.tobytes() for row in np.packbits(labels, axis=1)]


def unpack_labels(blobs: list[bytes], n_images: int) -> LabelVectors:
    """(n, N) label vectors from their blobs. Raises ValueError where one has another length."""
    width = -(-n_images // 8)
    if any(not isinstance(blob, bytes) or len(blob) != width for blob in blobs):
        raise ValueError(f"labels of {n_images} images must be {width} bytes")
    packed = np.frombuffer(b"".join(blobs), dtype=np.uint8).reshape(len(blobs), width)
    return np.unpackbits(packed, axis=1, count=n_images)


def class_dtype(classes: int) -> str:
    return "u1" if classes <= 256 else "<u4"


def check_count(rows: list[tuple[Any, ...]]) -> None:
    """Raises ValueError unless the evaluations that the rows begin with are 0, 1, 2, ..."""
    if rows and (rows[0][0], rows[-1][0]) != (0, len(rows) - 1):
        raise ValueError("evaluations are missing")


def parsed_json(text: Any, kind: type, what: str) -> Any:
    """The value of a JSON cell. Raises ValueError where it does not parse, or is of another type."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{what} cannot be parsed: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{what} must be a JSON {'object' if kind is dict else 'array'}")
    return value
