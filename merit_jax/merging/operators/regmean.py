"""RegMean: Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, ICLR 2023."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger
from merit_jax.merging.operators.average import token_weighted
from merit_jax.merging.operators.normal_equations import Matrix, per_layer, solve
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors
from merit_jax.merging.statistics import INPUT_GRAMS


def regmean(parameter: Parameter, weights: Sequence[float], *, alpha: int | float = 0.9) -> Array:
    """Merges matrices [in, out] to `W = (Σ_k w_k G̃_k)⁻¹ Σ_k w_k G̃_k W_k`, close to each branch on its own inputs (Eq. 2, Alg. 1).

    G_k is the mean of `x xᵀ` over the inputs x of the layer in branch k's calibration examples, and `G̃_k` the same with its
    off-diagonal entries multiplied by α. W minimises `Σ_k w_k tr((W − W_k)ᵀ G̃_k (W − W_k))`, with α = 1 the weighted mean of
    `‖x W − x W_k‖²`. The paper sums `x xᵀ` over as many examples for each model, without weights. Everything that is no matrix,
    and inputs that no branch has, are averaged by `weights`. One branch comes back, and so do equal branches.

    Args:
        alpha: α (paper: 0.9); less trusts the Gram matrices less.
    """
    grams = list(parameter.statistics)
    if not parameter.matrix or not grams:
        return token_weighted(parameter, weights)

    def merge(taus: list[Matrix], layer: tuple[int, ...]) -> Matrix:
        shrunk = [w * _shrunk(gram[layer], alpha) for w, gram in zip(weights, grams, strict=True)]
        average = np.tensordot(np.asarray(weights), np.stack(taus), axes=1)
        return solve(shrunk, taus, average)

    vectors = [np.asarray(vector) for vector in task_vectors(parameter)]
    return moved(parameter.base, per_layer(merge, vectors, parameter.matrix))


def _shrunk(gram: Array, alpha: int | float) -> Float[np.ndarray, "inputs inputs"]:
    """A Gram matrix, float64, with its off-diagonal entries multiplied by α."""
    wide = np.asarray(gram, np.float64)
    return alpha * wide + (1 - alpha) * np.diag(np.diag(wide))


MERGERS = {"regmean": Merger(regmean, statistic=INPUT_GRAMS)}
"""Name -> the operator."""
