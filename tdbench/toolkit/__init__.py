"""Published for authors of plugins: what can be known about images and labelings before any training.

    from tdbench.toolkit import decode, leave_one_out_form, tangent_kernel

docs/toolkit.md has a line and the shapes for each name. A name is imported when it is first used, so that a searcher's
process loads torch, scipy and scikit-learn only for the names that need them. The package imports `space`, `engine`
and `base`.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from tdbench.base.rng import random_labelings
    from tdbench.engine.reference import network, torch_threads
    from tdbench.space.labelings import ablate, count_distinct, decode
    from tdbench.toolkit.clustering import average_ablation, kmeans, mean_shift
    from tdbench.toolkit.quadratic import (
        centred,
        descend,
        draw_labelings,
        form_values,
        leave_one_out_form,
        minima,
        neighbours,
    )
    from tdbench.toolkit.tangent import adam_kernel, tangent_kernel

__all__ = [
    "ablate",
    "adam_kernel",
    "average_ablation",
    "centred",
    "count_distinct",
    "decode",
    "descend",
    "draw_labelings",
    "form_values",
    "kmeans",
    "leave_one_out_form",
    "mean_shift",
    "minima",
    "neighbours",
    "network",
    "random_labelings",
    "tangent_kernel",
    "torch_threads",
]

_MODULE_OF = {
    **dict.fromkeys(("ablate", "count_distinct", "decode"), "space.labelings"),
    "random_labelings": "base.rng",
    **dict.fromkeys(("network", "torch_threads"), "engine.reference"),
    **dict.fromkeys(("adam_kernel", "tangent_kernel"), "toolkit.tangent"),
    **dict.fromkeys(("average_ablation", "kmeans", "mean_shift"), "toolkit.clustering"),
    **dict.fromkeys(
        ("centred", "descend", "draw_labelings", "form_values", "leave_one_out_form", "minima", "neighbours"),
        "toolkit.quadratic",
    ),
}


def __getattr__(name: str) -> typing.Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tdbench.toolkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tdbench.{_MODULE_OF[name]}"), name)
