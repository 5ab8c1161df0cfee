"""Least squares on the inputs of a linear map, shared by the operators that minimise one: WUDI, OptMerge and RegMean."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy
from jaxtyping import Float

from merit_jax.merging.operators.task_vectors import KernelLayout

LEAST = 1e-8
"""Smallest damping: below it are the rounding errors of float32 task vectors, squared, and of float64 Gram matrices."""

Matrix = Float[np.ndarray, "inputs outputs"]


def solve(
    grams: Sequence[Float[np.ndarray, "inputs inputs"]],
    targets: Sequence[Matrix],
    start: Matrix,
    damping: int | float = 0,
) -> Matrix:
    """Minimises `Σ_k tr((X − T_k)ᵀ G_k (X − T_k)) + δ ‖X − X_0‖²`, a strictly convex function, over X.

    Its normal equations are `(Σ_k G_k + δ I) X = Σ_k G_k T_k + δ X_0`; solved by Cholesky in float64. Along inputs on which
    `Σ_k G_k` is far below δ, X stays at X_0.

    Args:
        grams: G_k, positive semi-definite, float64.
        targets: T_k, float64.
        start: X_0, float64.
        damping: δ in units of the mean eigenvalue of `Σ_k G_k`, at least `LEAST`.

    Examples:
        >>> grams = [np.diag([1.0, 3.0, 0.0]), np.diag([1.0, 1.0, 0.0])]
        >>> solve(grams, [np.full((3, 1), 4.0), np.zeros((3, 1))], np.full((3, 1), 7.0)).round(4).ravel().tolist()
        [2.0, 3.0, 7.0]
    """
    total = sum(grams[1:], grams[0])
    mean = float(np.trace(total)) / len(total)
    if not mean > 0:
        return start
    ridge = max(damping, LEAST) * mean
    right = sum((gram @ target for gram, target in zip(grams, targets, strict=True)), ridge * start)
    damped = total + ridge * np.eye(len(total))
    try:
        factor = scipy.linalg.cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return solve([_semi_definite(gram) for gram in grams], targets, start, damping)
    return scipy.linalg.cho_solve(factor, right, check_finite=False)


def _semi_definite(gram: Float[np.ndarray, "inputs inputs"]) -> Float[np.ndarray, "inputs inputs"]:
    """Sets to zero the eigenvalues that float32 has made negative, where a Gram matrix is of fewer vectors than inputs."""
    values, vectors = scipy.linalg.eigh(gram, check_finite=False)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def per_layer(
    merge: Callable[..., Matrix], stacks: Sequence[np.ndarray], layout: KernelLayout
) -> Float[np.ndarray, "*layers m n"]:
    """Maps `merge` over the layers of stacks of matrices; the float64 copies of one layer are in memory.

    Args:
        merge: Takes one layer's matrix [inputs, outputs] of each stack, float64, and the layer's index; returns one matrix.
        stacks: Stacks [..., m, n] of matrices in `layout`.
        layout: Their storage.

    Returns:
        The results, float32, in `layout`.
    """
    merged = np.empty(stacks[0].shape, np.float32)
    for layer in np.ndindex(merged.shape[:-2]):
        found = merge([_inputs_first(stack[layer], layout).astype(np.float64) for stack in stacks], layer)
        merged[layer] = _inputs_first(found, layout)
    return merged


def _inputs_first(matrix: np.ndarray, layout: KernelLayout) -> np.ndarray:
    """A matrix as [inputs, outputs]; of such a matrix, the one that is stored."""
    return matrix if layout == "in_out" else matrix.T
