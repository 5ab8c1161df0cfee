"""TSV-Merge: Gargiulo et al., Task Singular Vectors: Reducing Task Interference in Model Merging, CVPR 2025."""

from collections.abc import Sequence
from functools import partial

import jax
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger
from merit_jax.merging.operators.average import scaled_average
from merit_jax.merging.operators.svd import Svd, concatenated, orthogonalised, per_matrix, product, svd, truncated
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors


def tsv_m(parameter: Parameter, weights: Sequence[float], *, scale: int | float = 1.0) -> Array:
    """Merges to `θ_0 + α U⊥ S V⊥ᵀ` for matrices: the tasks' leading singular vectors, made orthogonal to one another (Alg. 1).

    Each task gives its top ⌊r/K⌋ singular triplets, r = min(m, n), to U = [U_1 .. U_K], S and V, and U⊥, V⊥ are the nearest
    matrices with orthonormal columns (`U = P D Qᵀ -> P Qᵀ`). The tasks are added, without weights. Vectors, and matrices with
    fewer than K singular values, are moved by α towards their average by `weights`. One branch comes back (α = 1).
    Directions that two tasks share to the last bit count once in U⊥ and V⊥, so K identical branches give their top 1/K.

    Args:
        scale: α.
    """
    count = min(parameter.base.shape[-2:]) // len(weights) if parameter.matrix else 0
    if not count:
        return scaled_average(parameter, weights, scale)
    tops = [_top(vector, count) for vector in task_vectors(parameter)]
    return moved(parameter.base, _merged(tops), scale)


@partial(jax.jit, static_argnums=1)
def _top(vector: Float[Array, "*l m n"], count: int) -> Svd:
    return per_matrix(lambda matrix: truncated(svd(matrix), count), [vector])


@jax.jit
def _merged(tops: list[Svd]) -> Float[Array, "*l m n"]:
    def one(*parts: Svd) -> Float[Array, "m n"]:
        joined = concatenated(parts)
        return product(Svd(orthogonalised(joined.left), joined.values, orthogonalised(joined.right)))

    return per_matrix(one, tops)


MERGERS = {"tsv_m": Merger(tsv_m)}
"""Name -> the operator."""
