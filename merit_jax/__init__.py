"""MERIT in JAX: conflict-aware splitting of instruction datasets, decentralised fine-tuning and one-shot weight merging.

    from merit_jax import MERGERS, PARTITIONERS, cosine_similarity, dataset_gradients, principal_axes

The names below are imported when they are first used, so that importing one part does not load all.

Everything is a part of this package. In a wheel its folders lie in one; in a checkout `models`, `configs`, `launch` and
`examples` lie beside it, where they are easier to find, and are imported as `merit_jax.models` and so on all the same.
"""

import importlib
from pathlib import Path
from typing import Any

if not (Path(__file__).parent / "models").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

_HOMES = {
    "Batch": "core.types",
    "Branch": "core.types",
    "LeafReader": "core.leaves",
    "LossFn": "core.types",
    "Model": "core.types",
    "Params": "core.types",
    "dataset_gradients": "gradients.estimate",
    "PrincipalAxes": "conflict",
    "cosine_similarity": "conflict",
    "extend_similarity": "conflict",
    "gram": "conflict",
    "principal_axes": "conflict",
    "PARTITIONERS": "partition",
    "MERGERS": "merging",
    "Merger": "merging",
    "OrbaxLeaves": "merging",
    "TreeLeaves": "merging",
    "merge_streamed": "merging",
    "token_weights": "merging",
    "Calibration": "diagnostics.calibration",
    "calibration": "diagnostics.calibration",
    "Connectivity": "diagnostics.connectivity",
    "connectivity": "diagnostics.connectivity",
    "HessianAlignment": "diagnostics.curvature",
    "hessian_alignment": "diagnostics.curvature",
    "Displacement": "diagnostics.displacement",
    "displacement": "diagnostics.displacement",
    "GradientNorms": "diagnostics.gradient_norms",
    "gradient_norms": "diagnostics.gradient_norms",
    "Objective": "diagnostics.hessian",
    "MergingGain": "diagnostics.merging_gain",
    "merging_gain": "diagnostics.merging_gain",
    "Perturbation": "diagnostics.perturbation",
    "perturbation": "diagnostics.perturbation",
    "PartitionGain": "diagnostics.predicted_gain",
    "gradient_curvature": "diagnostics.predicted_gain",
    "partition_gain": "diagnostics.predicted_gain",
    "Sketch": "diagnostics.sketch",
    "sketch": "diagnostics.sketch",
    "Surface": "diagnostics.surface",
    "surface": "diagnostics.surface",
}
"""Public name -> the module of merit_jax that defines it."""

__all__ = list(_HOMES)


def __dir__() -> list[str]:
    """Lists the public names with those that are loaded."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Imports a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
