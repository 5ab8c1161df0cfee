"""One parameter as operators see it, and the task vectors that they share."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from merit_jax.core.leaves import Leaf, LeafSpec

KernelLayout = Literal["in_out", "out_in"]
"""Storage of a linear map: `x W` with W [in, out], as in Flax, or `x Wᵀ` with W [out, in], as in PyTorch."""


class Parameter(NamedTuple):
    """One parameter in theta0 and in every branch.

    Attributes:
        path: Its name.
        base: Its value in theta0.
        leaves: Its value in each branch, in order, read as the iteration gets to it; can be gone through once.
        matrix: The layout of its last two axes if it is a linear map, or a stack of them along the leading axes; otherwise
            None, and methods on matrices take it as a vector.
        stacked: Leading axes along which the tensors of several layers are stacked; a statistic of a tensor is one of each
            layer's.
        survey: Result of the operator's first pass over all parameters, if it makes one.
        statistics: Its statistic in each branch, like `leaves`, if the operator needs one.
    """

    path: str
    base: Leaf
    leaves: Iterable[Leaf]
    matrix: KernelLayout | None = None
    stacked: int = 0
    survey: Any = None
    statistics: Iterable[Leaf] = ()


def named_kernel(path: str, spec: LeafSpec) -> KernelLayout | None:
    """Returns the layout of our models' linear maps: leaves called "kernel", [in, out] or [layers, in, out]."""
    return "in_out" if path.rpartition("/")[2] == "kernel" and len(spec.shape) >= 2 else None


OWN_AXES = {"kernel": 2, "scale": 1, "bias": 1}
"""Name of a leaf of our models that may be stacked over layers -> axes of one layer's tensor."""


def named_stack(path: str, spec: LeafSpec) -> int:
    """Returns the number of leading axes along which a leaf of our models stacks the tensors of layers.

    Examples:
        >>> from jax import ShapeDtypeStruct
        >>> named_stack("layers/mlp_norm/scale", ShapeDtypeStruct((30, 576), np.float32))
        1
        >>> named_stack("embed/embedding", ShapeDtypeStruct((49152, 576), np.float32))
        0
    """
    axes = len(spec.shape)
    return max(axes - OWN_AXES.get(path.rpartition("/")[2], axes), 0)


def task_vector(base: Leaf, leaf: Leaf) -> Leaf:
    """Computes `τ_k = θ_k − θ_0`, float32."""
    return leaf.astype(np.float32) - base.astype(np.float32)


def task_vectors(parameter: Parameter) -> Iterator[Leaf]:
    """Iterates over the task vectors of the branches, each computed when the iteration gets to it."""
    return (task_vector(parameter.base, leaf) for leaf in parameter.leaves)


def moved(base: Leaf, vector: Leaf, scale: int | float = 1) -> Leaf:
    """Computes `θ_0 + λ τ`, float32."""
    return base.astype(np.float32) + np.float32(scale) * vector


def total(vectors: Iterable[Leaf]) -> Leaf:
    """Computes `Σ_k τ_k`, one at a time."""
    remaining = iter(vectors)
    result = next(remaining)
    for vector in remaining:
        result = result + vector
    return result


def upcast(leaf: Leaf) -> Leaf:
    """Casts a leaf to float32, unless its own dtype is wider."""
    return leaf.astype(np.promote_types(leaf.dtype, np.float32), copy=False)
