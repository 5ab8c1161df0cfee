"""OTA merging with Fast Fisher Grafting: Mahdavinia et al., 2025.

Harnessing Optimization Dynamics for Curvature-Informed Model Merging, arXiv:2509.11167.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger, unweighted
from merit_jax.merging.operators.fisher_weighted import LEAST
from merit_jax.merging.operators.selection import magnitude_threshold
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors
from merit_jax.merging.statistics import SECOND_MOMENT


def ota_ffg(
    parameter: Parameter,
    weights: Sequence[float],
    *,
    density: int | float = 0.4,
    floor: int | float = 1e-6,
    trim_scope: str = "global",
) -> Array:
    """Merges to `θ_0 + Σ_k M_k P_k τ_k / Σ_k M_k P_k`, entry by entry, with `P_k = √v_k` the curvature that Adam measured.

    v_k is the second moment of Adam at the end of branch k's training. Fast Fisher Grafting first keeps the entries of largest
    saliency `s_k = v_k τ_k²`, twice what undoing one would cost by a quadratic with the curvature v_k: M_k is 1 on the largest
    `density` of them, else 0. An entry that no branch keeps stays at theta0's value. Neither step uses weights. One branch gives
    its kept entries.

    Args:
        density: Share of the entries of each branch that are kept; the paper chooses it for each branch by evaluation.
        floor: Smallest P_k, in units of the mean of all P_k of a layer's tensor. The paper has `P_k = √v_k + ε` with an ε that
            has to fit the scale of the gradients.
        trim_scope: "global" ranks the entries of a branch's whole task vector together (paper), "tensor" those of each layer's
            tensor by themselves, also where layers are stacked.
    """
    moments = [np.asarray(moment) for moment in parameter.statistics]
    own = tuple(range(parameter.stacked, parameter.base.ndim))
    roots = [np.sqrt(moment.astype(np.float32)) for moment in moments]
    mean = np.mean([root.mean(axis=own, keepdims=True) for root in roots], axis=0)
    least = np.where(mean > 0, np.float32(max(floor, LEAST)) * mean, np.float32(1))
    vector, total = np.zeros((), np.float32), np.zeros((), np.float32)
    for k, (leaf, root) in enumerate(zip(task_vectors(parameter), roots, strict=True)):
        strength = _kept(np.asarray(leaf), root, k, parameter, density) * np.maximum(root, least)
        vector, total = vector + strength * leaf, total + strength
    return moved(parameter.base, np.where(total > 0, vector / np.where(total > 0, total, 1), 0))


def thresholds(
    vectors: Callable[[int], Iterator[tuple[Array, Array]]], branches: int, options: Mapping[str, Any]
) -> tuple[float, ...] | None:
    """Makes the first pass of `trim_scope="global"`: the smallest root of a saliency that is kept, per branch."""
    if options["trim_scope"] != "global":
        return None

    def saliencies(k: int) -> Iterator[Array]:
        return (_saliency(np.asarray(leaf), np.sqrt(np.asarray(moment, np.float32))) for leaf, moment in vectors(k))

    return tuple(magnitude_threshold(partial(saliencies, k), options["density"]) for k in range(branches))


def _saliency(leaf: Float[np.ndarray, "*n"], root: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """`√s = |τ| √v`, which orders as s does and which float32 can hold."""
    return np.abs(leaf) * root


def _kept(leaf: np.ndarray, root: np.ndarray, k: int, parameter: Parameter, density: int | float) -> np.ndarray:
    saliency = _saliency(leaf, root)
    if parameter.survey is not None:
        return saliency >= np.float32(parameter.survey[k])
    layers, own = leaf.shape[: parameter.stacked], leaf.shape[parameter.stacked :]
    found = [magnitude_threshold(partial(list, [layer]), density) for layer in saliency.reshape(-1, *own)]
    return saliency >= np.reshape(found, (*layers, *(1 for _ in own))).astype(np.float32)


MERGERS = {"ota_ffg": Merger(ota_ffg, survey=thresholds, weighted=unweighted, statistic=SECOND_MOMENT)}
"""Name -> the operator."""
