"""Fisher merging: Matena and Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022."""

from collections.abc import Sequence

import numpy as np

from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors
from merit_jax.merging.statistics import FISHER

LEAST = 1e-20
"""Smallest floor of F_k, so that nothing is divided by zero."""


def fisher(parameter: Parameter, weights: Sequence[float], *, floor: int | float = 1e-6) -> Array:
    """Averages `θ̄ = Σ_k w_k F_k θ_k / Σ_k w_k F_k` entry by entry (Eq. 3).

    F_k is the diagonal of branch k's Fisher information. Where no branch has any, the result is the average by `weights`. One
    branch comes back.

    Args:
        floor: Smallest F_k, in units of the mean of all F_k of a layer's tensor, so that it does not depend on the loss's scale.
    """
    known = list(parameter.statistics)
    own = tuple(range(parameter.stacked, parameter.base.ndim))
    mean = np.mean([np.asarray(information, np.float32).mean(axis=own, keepdims=True) for information in known], axis=0)
    mean = np.where(mean > 0, mean, np.float32(1))
    least = np.float32(max(floor, LEAST))
    vector, total = np.zeros((), np.float32), np.zeros((), np.float32)
    for weight, leaf, information in zip(weights, task_vectors(parameter), known, strict=True):
        strength = np.float32(weight) * (information.astype(np.float32) / mean).clip(least)
        vector, total = vector + strength * leaf, total + strength
    return moved(parameter.base, vector / total)


MERGERS = {"fisher": Merger(fisher, statistic=FISHER)}
"""Name -> the operator."""
