"""Extreme eigenvalues of a symmetric operator on trees of parameters, by Lanczos with full re-orthogonalisation."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.types import Array, Leaves

Operator = Callable[[Leaves], Leaves]
"""v -> A v, for a symmetric A."""


@runtime_checkable
class Basis(Protocol):
    """Vectors in order: a list on the devices, or `merit_jax.diagnostics.offloaded_vectors.SpilledTrees` on disk."""

    def append(self, vector: Leaves, /) -> None:
        """Adds a vector."""

    def __iter__(self) -> Iterator[Leaves]:
        """Iterates over all vectors, first to last."""


class Krylov(NamedTuple):
    """`A Q = Q T + β_m q_{m+1} e_mᵀ`: an operator seen from the Krylov space of m vectors.

    Attributes:
        diagonal: α_j = q_jᵀ A q_j of the tridiagonal T.
        off_diagonal: β_j = q_{j+1}ᵀ A q_j; the last one, β_m, leads out of the space, and is 0 where nothing does.
        basis: The orthonormal q_j.
    """

    diagonal: Float[np.ndarray, " m"]
    off_diagonal: Float[np.ndarray, " m"]
    basis: Basis


class Ritz(NamedTuple):
    """Approximate eigenpairs, largest eigenvalue first.

    Attributes:
        values: Eigenvalues of T.
        weights: Column i makes the i-th eigenvector of A, `Σ_j weights[j, i] q_j`; orthonormal columns.
        residuals: ‖A y − λ y‖ of each pair in exact arithmetic: some eigenvalue of A is at most this far from λ. A product's own
            rounding, about 1e-7 of the largest eigenvalue in float32, comes on top.
    """

    values: Float[np.ndarray, " k"]
    weights: Float[np.ndarray, "m k"]
    residuals: Float[np.ndarray, " k"]


def lanczos(product: Operator, start: Leaves, iterations: int, basis: Basis | None = None) -> Krylov:
    """Runs Lanczos tridiagonalisation, each new vector made orthogonal to all before it, twice.

    Costs `iterations` products, and 2m passes over the basis at the m-th of them.

    Args:
        product: v -> A v, symmetric.
        start: First vector of the Krylov space, not zero. All vectors have its sharding and dtypes.
        iterations: Products, m; fewer where the space is exhausted before.
        basis: Keeps the vectors, empty; None: a list.

    Raises:
        ValueError: `iterations` is below 1, the start is zero, or a product is not finite.

    Examples:
        >>> krylov = lanczos(lambda v: {"w": jnp.array([1.0, 2.0, 5.0]) * v["w"]}, {"w": jnp.ones(3)}, iterations=3)
        >>> [round(float(value), 3) for value in ritz(krylov, 2).values]
        [5.0, 2.0]
    """
    length = float(tree.norm(start))
    if iterations < 1 or not 0 < length < np.inf:
        raise ValueError(f"Lanczos needs an iteration and a start vector; got {iterations} and one of norm {length}")
    basis = [] if basis is None else basis
    alphas, betas = [], []
    vector = _scaled(start, 1 / length)
    for _ in range(min(iterations, _size(start))):
        basis.append(vector)
        image = product(vector)
        alphas.append(float(tree.dot(vector, image)))
        image = _orthogonalised(image, basis)
        betas.append(float(tree.norm(image)))
        if not np.isfinite(betas[-1]):
            raise ValueError(f"product {len(betas)} of Lanczos is not finite; compute in float32 (model.dtype)")
        if betas[-1] <= _rounding(start) * max(np.abs(alphas + betas)):
            betas[-1] = 0.0
            break
        vector = _scaled(image, 1 / betas[-1])
    return Krylov(np.array(alphas), np.array(betas), basis)


def ritz(krylov: Krylov, count: int) -> Ritz:
    """Computes the `count` algebraically largest approximate eigenpairs; fewer where the Krylov space is smaller."""
    inner = krylov.off_diagonal[:-1]
    values, vectors = np.linalg.eigh(np.diag(krylov.diagonal) + np.diag(inner, 1) + np.diag(inner, -1))
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    return Ritz(values, vectors, krylov.off_diagonal[-1] * np.abs(vectors[-1]))


def overlaps(basis: Basis, vectors: list[Leaves]) -> Float[np.ndarray, "m n"]:
    """Computes ⟨q_j, v_i⟩ of each basis vector with each vector; the basis is gone through once."""
    return np.array([[float(tree.dot(q, vector)) for vector in vectors] for q in basis])


def gaussian(leaves: Leaves, seed: int) -> Leaves:
    """Draws standard normal entries in a tree like `leaves`, in float32 or wider, sharded alike; the same on any devices."""
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return {path: _normal(key, leaf) for key, (path, leaf) in zip(keys, leaves.items(), strict=True)}


def _normal(key: Array, leaf: Array) -> Array:
    draw = partial(jax.random.normal, shape=leaf.shape, dtype=tree.accumulation_dtype(leaf))
    return jax.jit(draw, out_shardings=getattr(leaf, "sharding", None))(key)


def _orthogonalised(vector: Leaves, basis: Basis) -> Leaves:
    """Gram-Schmidt, twice: once leaves the rounding errors of a large component (Giraud et al. 2005)."""
    for _ in range(2):
        for q in basis:
            vector = _without(vector, q)
    return vector


@jax.jit
def _without(vector: Leaves, q: Leaves) -> Leaves:
    """`v − ⟨q, v⟩ q`."""
    return tree.axpy(-tree.dot(q, vector), q, vector)


@jax.jit
def _scaled(vector: Leaves, scale: Any) -> Leaves:
    return jax.tree.map(
        lambda x: x.astype(tree.accumulation_dtype(x)) * jnp.asarray(scale, tree.accumulation_dtype(x)), vector
    )


def _size(vector: Leaves) -> int:
    return sum(leaf.size for leaf in vector.values())


def _rounding(vector: Leaves) -> float:
    """Relative size, from rounding alone, of a vector that should be zero."""
    return 10 * float(jnp.finfo(tree.accumulation_dtype(*vector.values())).eps)
