"""The versions and the hardware that results were computed with, for leaderboard rows and `tdbench doctor`."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("tdbench", "torch", "torchvision", "nevergrad", "optuna", "cma", "numpy", "scikit-learn", "pluggy")


@functools.cache
def version(package: str) -> str:
    """The installed version of a distribution, or '' if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def versions() -> str:
    """All versions in one cell: ``python=3.11.7 tdbench=0.1.0 ...``."""
    pairs = [("python", platform.python_version()), *((package, version(package)) for package in PACKAGES)]
    return " ".join(f"{name}={value}" for name, value in pairs if value)


@functools.cache
def hardware(device: str) -> str:
    """The name of the processor with its number of cores, or the name of the GPU."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return f"{_processor()} ({available_cores()} cores)"


def cache_folder() -> Path:
    """The user's folder for what can be made or fetched again: ``~/.cache/tdbench``, or in ``XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tdbench"


def available_cores() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
