"""Engines: label vectors, masks and seeds in, validation curves out; `reference` defines what all of them compute.

It imports `base` only.
"""

from tdbench.engine.engine import DEVICES, ENGINES, Engine, TrainingBatch, cuda_available, make_engine

__all__ = ["DEVICES", "ENGINES", "Engine", "TrainingBatch", "cuda_available", "make_engine"]
