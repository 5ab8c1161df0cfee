"""Merge weights that differ between blocks of consecutive layers."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array, Leaves
from merit_jax.merging.operators.average import token_weighted
from merit_jax.merging.operators.task_vectors import Parameter, named_stack


def leaf_weights(
    rows: Float[Array, "rows k"], path: str, shape: tuple[int, ...], stacked: int
) -> list[Float[Array, "..."]]:
    """Returns the weight of each branch for one parameter.

    A stack of L layers is divided into blocks of consecutive layers, as equal as can be: layer i is of block ⌊i B / L⌋.

    Args:
        rows: Weights of the K branches: a row for each of B blocks, then one for the parameters outside of the layers; without
            blocks that one is for all.
        path: Name of the parameter, for errors.
        shape: Its shape.
        stacked: Leading axes along which it stacks tensors: layers, then a layer's experts.

    Returns:
        A scalar for each branch or, for a stack in blocks, an array that is broadcast over each layer's tensor, both float32.

    Raises:
        ValueError: The parameter stacks fewer layers than there are blocks.

    Examples:
        >>> rows = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])
        >>> [weight.ravel().tolist() for weight in leaf_weights(rows, "layers/norm/scale", (4, 8), 1)]
        [[0.25, 0.25, 1.0, 1.0], [0.75, 0.75, 0.0, 0.0]]
        >>> [weight.ravel().tolist() for weight in leaf_weights(rows, "layers/mlp/up/kernel", (2, 3, 8, 8), 2)]
        [[0.25, 1.0], [0.75, 0.0]]
        >>> [float(weight) for weight in leaf_weights(rows, "embed/embedding", (16, 8), 0)]
        [0.5, 0.5]
    """
    blocks = len(rows) - 1
    if not blocks or not stacked:
        same = rows[-1].astype(np.float32)
        return [same[k, ...] for k in range(len(same))]
    layers = shape[0]
    if layers < blocks:
        raise ValueError(
            f"{path} stacks {layers} layers, which cannot be divided into {blocks} blocks; set merge.search_blocks to "
            f"{layers} or less"
        )
    chosen = rows[np.arange(layers) * blocks // layers].astype(np.float32)
    return [chosen[:, k].reshape(layers, *(1,) * (len(shape) - 1)) for k in range(rows.shape[1])]


def weighted_mean(base: Leaves, branches: Sequence[Leaves], rows: Float[Array, "rows k"]) -> Leaves:
    """Averages branches in memory, `Σ_k w_k θ_k`, as the merge by `token_weighted` does; can be compiled.

    Args:
        base: theta0's values of the parameters that the branches hold.
        branches: The branches.
        rows: As for `leaf_weights`.

    Returns:
        Their mean, in the dtypes of theta0; integers and booleans are theta0's.

    Examples:
        >>> base = {"w": np.zeros(2, np.float32)}
        >>> branches = [{"w": np.array(values, np.float32)} for values in ([4, 0], [0, 8])]
        >>> weighted_mean(base, branches, np.array([[0.75, 0.25]]))["w"].tolist()
        [3.0, 2.0]
    """

    def mean(path: str, leaf: Any) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        stacked = named_stack(path, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        weights = leaf_weights(rows, path, leaf.shape, stacked)
        return token_weighted(Parameter(path, leaf, [branch[path] for branch in branches]), weights).astype(leaf.dtype)

    return {path: mean(path, leaf) for path, leaf in base.items()}
