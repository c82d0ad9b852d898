"""Exact float32: torch's settings that decide how float32 products are computed, held for a block and put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_EXACT = "ieee"


def _settings() -> list[tuple[Any, str, Any]]:
    """(where, name, value within the block). By torch's own names of 2.11 and later: the older switches, such as
    ``allow_tf32``, raise once a user has set one of these, also on a machine without a GPU."""
    backends: Any = torch.backends
    products = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    return [
        *((product, "fp32_precision", _EXACT) for product in products),
        (backends.cudnn, "enabled", True),  # without it conv2d on CUDA becomes tens of thousands of small kernels
        (backends.cudnn, "deterministic", True),
        (backends.cudnn, "benchmark", False),
    ]


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Within the block: float32 products without TF32 or bfloat16, cuDNN on, and the same kernels every time.

    The user's settings are put back after it, also where it raises.
    """
    settings = _settings()
    before = [getattr(where, name) for where, name, _ in settings]
    try:
        for where, name, value in settings:
            setattr(where, name, value)
        yield
    finally:
        for (where, name, _), value in zip(settings, before, strict=True):
            setattr(where, name, value)
