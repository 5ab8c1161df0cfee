"""Iso-C and Iso-CTS: Marczak et al., No Task Left Behind: Isotropic Model Merging, ICML 2025."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger
from merit_jax.merging.operators.average import scaled_average
from merit_jax.merging.operators.svd import Svd, concatenated, orthogonalised, per_matrix, svd, truncated
from merit_jax.merging.operators.task_vectors import KernelLayout, Parameter, moved, task_vectors, total


def iso_c(parameter: Parameter, weights: Sequence[float], *, scale: int | float = 1.0) -> Array:
    """Merges to `θ_0 + α s̄ U Vᵀ` for matrices: `Δ = Σ_k Δ_k = U S Vᵀ` with all singular values made equal (Eq. 7).

    s̄ is the mean of all min(m, n) singular values; directions with s = 0 are not made up. The sum takes no weights. Vectors
    are moved by α towards their average by `weights`. One branch gets a flat spectrum too.

    Args:
        scale: α.
    """
    if not parameter.matrix:
        return scaled_average(parameter, weights, scale)
    return moved(parameter.base, _flattened(total(task_vectors(parameter))), scale)


def iso_cts(
    parameter: Parameter, weights: Sequence[float], *, scale: int | float = 1.0, common_fraction: int | float = 0.8
) -> Array:
    """Merges to `θ_0 + α s̄ U⊥ V⊥ᵀ` for matrices: a common subspace and one for each task, all directions alike (Alg. 2).

    With matrices [out, in], the paper's layout: the top directions of `Δ = Σ_k Δ_k` are the common space, and each task adds
    the top directions of `Δ_k − U_c U_cᵀ Δ_k`. U_c spans outputs; matrices stored [in, out] are transposed before.
    Both sides are made orthogonal as in TSV-M and every direction gets s̄, the mean of their min(m, n) singular values. The
    sum takes no weights. Vectors are moved by α towards their average by `weights`. One branch gets a flat spectrum too.

    Args:
        scale: α.
        common_fraction: Share of the min(m, n) directions that are common (paper: 0.8); what remains is divided evenly among
            the tasks, each getting the nearest whole number that fits.
    """
    if not parameter.matrix:
        return scaled_average(parameter, weights, scale)
    own = own_directions(min(parameter.base.shape[-2:]), len(weights), common_fraction)
    vectors = [_outputs_first(vector, parameter.matrix) for vector in task_vectors(parameter)]
    return moved(parameter.base, _outputs_first(_common_and_own(vectors, own), parameter.matrix), scale)


def own_directions(rank: int, tasks: int, common_fraction: int | float) -> int:
    """Returns the number of directions that each task gets to itself: `round((r − ⌊c r⌋) / K)`, at most ⌊r / K⌋."""
    return min(round((rank - int(rank * common_fraction)) / tasks), rank // tasks)


@jax.jit
def _flattened(vector: Float[Array, "*l m n"]) -> Float[Array, "*l m n"]:
    def one(matrix: Float[Array, "m n"]) -> Float[Array, "m n"]:
        found = svd(matrix)
        return found.values.mean() * (found.left @ found.right)

    return per_matrix(one, [vector])


@partial(jax.jit, static_argnums=1)
def _common_and_own(vectors: list[Float[Array, "*l m n"]], own: int) -> Float[Array, "*l m n"]:
    def one(*tasks: Float[Array, "m n"]) -> Float[Array, "m n"]:
        whole = svd(sum(tasks[1:], tasks[0]))
        common = truncated(whole, len(whole.values) - own * len(tasks))
        rest = [truncated(svd(_outside(common, task), jnp.linalg.norm(task)), own) for task in tasks] if own else []
        joined: Svd = concatenated([*rest, common])
        return joined.values.mean() * (orthogonalised(joined.left) @ orthogonalised(joined.right))

    return per_matrix(one, vectors)


def _outputs_first(matrix: Array, layout: KernelLayout) -> Array:
    """A matrix as [..., out, in]; of such a matrix, the one that is stored."""
    return jnp.swapaxes(matrix, -1, -2) if layout == "in_out" else matrix


def _outside(common: Svd, task: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """The task's matrix [out, in] without its part in the common space of outputs."""
    return task - common.left @ (common.left.T @ task)


MERGERS = {"iso_c": Merger(iso_c), "iso_cts": Merger(iso_cts)}
"""Name -> the operator."""
