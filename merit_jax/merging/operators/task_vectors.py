"""What an operator gets to see of one parameter, and the parts that operators share."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from merit_jax.core.types import Array

KernelLayout = Literal["in_out", "out_in"]
"""How a linear map is stored: `x W` with W [in, out], as in Flax, or `x Wᵀ` with W [out, in], as in PyTorch."""


class Parameter(NamedTuple):
    """One parameter in theta0 and in every branch.

    Attributes:
        path: Its name.
        base: Its value in theta0.
        leaves: Its value in each branch, in order, read as it is asked for; can be gone through once.
        matrix: The layout of its last two axes if it is a linear map, or a stack of them along the leading axes; otherwise
            None, and methods on matrices take it as a vector.
        survey: What the operator's first pass over all parameters found, if it makes one.
        fishers: Its diagonal Fisher information in each branch, like `leaves`, if the operator asks for it.
    """

    path: str
    base: Array
    leaves: Iterable[Array]
    matrix: KernelLayout | None = None
    survey: Any = None
    fishers: Iterable[Array] = ()


def named_kernel(path: str, spec: jax.ShapeDtypeStruct) -> KernelLayout | None:
    """The linear maps of our models: leaves called "kernel", [in, out] or [layers, in, out]."""
    return "in_out" if path.rpartition("/")[2] == "kernel" and len(spec.shape) >= 2 else None


def task_vector(base: Array, leaf: Array) -> Array:
    """`τ_k = θ_k − θ_0`, float32."""
    return leaf.astype(np.float32) - base.astype(np.float32)


def task_vectors(parameter: Parameter) -> Iterator[Array]:
    """The task vector of each branch, computed as it is asked for."""
    return (task_vector(parameter.base, leaf) for leaf in parameter.leaves)


def moved(base: Array, vector: Array, scale: int | float = 1) -> Array:
    """`θ_0 + λ τ`, float32."""
    return base.astype(np.float32) + np.float32(scale) * vector


def total(vectors: Iterable[Array]) -> Array:
    """`Σ_k τ_k`, one at a time."""
    remaining = iter(vectors)
    result = next(remaining)
    for vector in remaining:
        result = result + vector
    return result


def upcast(leaf: Array) -> Array:
    """The leaf in float32, or in its own dtype if that is wider."""
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32), copy=False)
