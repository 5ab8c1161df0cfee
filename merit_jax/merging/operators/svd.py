"""Singular value decompositions in float32, layer by layer, without directions that are not there."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array

ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Singular values below this share of a matrix's norm are rounding errors."""


class Svd(NamedTuple):
    """`left · diag(values) · right`, possibly truncated.

    Attributes:
        left: Left singular vectors, in columns; zero where there is no such direction.
        values: Singular values, largest first.
        right: Right singular vectors, in rows; zero where there is no such direction.
    """

    left: Float[Array, "*l m r"]
    values: Float[Array, "*l r"]
    right: Float[Array, "*l r n"]


def svd(matrix: Float[Array, "m n"], norm: Float[Array, ""] | None = None) -> Svd:
    """Computes the thin singular value decomposition, min(m, n) values.

    Singular vectors of values that are zero to rounding are arbitrary, so they are set to zero: nothing that is built
    from them depends on how the decomposition was computed.

    Args:
        matrix: The matrix.
        norm: Scale of the rounding errors: the norm of what the matrix was computed from; None: its own largest value.
    """
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    there = values > ROUNDING * (values[0] if norm is None else norm)
    return Svd(left * there, jnp.where(there, values, 0), right * there[:, None])


def truncated(found: Svd, count: int) -> Svd:
    """Returns the `count` largest singular values with their vectors."""
    return Svd(found.left[:, :count], found.values[:count], found.right[:count])


def concatenated(parts: Sequence[Svd]) -> Svd:
    """Puts the directions of several decompositions next to each other."""
    left, values, right = zip(*parts, strict=True)
    return Svd(jnp.concatenate(left, axis=1), jnp.concatenate(values), jnp.concatenate(right))


def product(parts: Svd) -> Float[Array, "m n"]:
    """Multiplies a decomposition out."""
    return (parts.left * parts.values) @ parts.right


def orthogonalised(matrix: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """Maps `X = P D Qᵀ` to `P Qᵀ`, the nearest matrix with orthonormal columns (rows, if it is wide).

    Of a matrix without full rank, the nearest partial isometry: directions with D = 0 are left out.
    """
    found = svd(matrix)
    return found.left @ found.right


def per_matrix(merge: Callable[..., Any], vectors: Sequence[Any]) -> Any:
    """Maps `merge` over layers, the leading axes of matrices or stacks of them.

    A layer at a time, so that the decompositions of one are in memory; in full float32 on every device.

    Args:
        merge: Takes one layer of each of `vectors`.
        vectors: Per branch, its matrices [..., m, n], or trees of arrays with the same leading axes.

    Returns:
        The results of `merge`, with those leading axes.
    """
    layers = _layers(vectors[0])
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(layers) :]), tuple(vectors))
    with jax.default_matmul_precision("float32"):
        merged = jax.lax.map(lambda branches: merge(*branches), flat)
    return jax.tree.map(lambda leaf: leaf.reshape(*layers, *leaf.shape[1:]), merged)


def _layers(vector: Any) -> tuple[int, ...]:
    """The leading axes of matrices, or of decompositions of matrices."""
    return jax.tree.leaves(vector)[0].shape[:-2]
