"""Engines: a `TrainingBatch` (labels, masks, seeds) in, validation curves out; `reference` defines what all compute.

It imports `base` only.
"""

from tdbench.engine.batch import TrainingBatch
from tdbench.engine.engine import DEVICES, ENGINES, Engine, Stopped, Trained, check_engine, cuda_available, make_engine

__all__ = [
    "DEVICES",
    "ENGINES",
    "Engine",
    "Stopped",
    "Trained",
    "TrainingBatch",
    "check_engine",
    "cuda_available",
    "make_engine",
]
