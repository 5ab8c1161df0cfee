"""STAR: Lee et al., STAR: Spectral Truncation and Rescale for Model Merging, NAACL 2025."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger
from merit_jax.merging.operators.average import token_weighted
from merit_jax.merging.operators.svd import Svd, per_matrix, product, svd
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors, total


def star(parameter: Parameter, weights: Sequence[float], *, eta: int | float = 0.4) -> Array:
    """Merges to `θ_0 + Σ_k w_k Δ'_k` for matrices: each task's spectrum truncated and rescaled (Eq. 1-3).

    `Δ'_k = U_r (S_r · Σ_i s_i / Σ_{i≤r} s_i) V_rᵀ` with r the smallest rank whose singular values reach `eta` of the nuclear
    norm, which is thereby kept. The paper averages uniformly. Vectors are averaged by `weights`. One branch is truncated and
    rescaled too; what has one singular value comes back as it is.

    Args:
        eta: Share of the nuclear norm (paper: 40 %).
    """
    if not parameter.matrix:
        return token_weighted(parameter, weights)
    vectors = zip(weights, task_vectors(parameter), strict=True)
    return moved(
        parameter.base, total(np.float32(weight) * _star(vector, np.float32(eta)) for weight, vector in vectors)
    )


@jax.jit
def _star(vector: Float[Array, "*l m n"], eta: Array) -> Float[Array, "*l m n"]:
    def one(matrix: Float[Array, "m n"]) -> Float[Array, "m n"]:
        found = svd(matrix)
        nuclear = found.values.sum()
        before = jnp.cumsum(found.values) - found.values
        kept = jnp.where(before < eta * nuclear, found.values, 0)
        return product(Svd(found.left, kept * nuclear / jnp.where(nuclear > 0, kept.sum(), 1), found.right))

    return per_matrix(one, [vector])


MERGERS = {"star": Merger(star)}
"""Name -> the operator."""
