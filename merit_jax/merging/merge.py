"""A prepared merge: the checked values of each parameter go through the operator, one parameter at a time."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from merit_jax.core.types import Array, LeafReader
from merit_jax.merging.operators.task_vectors import KernelLayout, Parameter, task_vector

LinearMaps = Callable[[str, jax.ShapeDtypeStruct], KernelLayout | None]
"""(path, shape and dtype) -> layout of a linear map, or of a stack of them along the leading axes; None for all else."""

StackedAxes = Callable[[str, jax.ShapeDtypeStruct], int]
"""(path, shape and dtype) -> number of leading axes along which the tensors of layers are stacked."""


@dataclasses.dataclass(frozen=True)
class Merge:
    """A merge whose parameters can be computed one at a time, in any order.

    Attributes:
        leaf: The operator's function of one parameter, see `Merger.leaf`.
        base: theta0.
        branches: The branches.
        weights: One per branch.
        options: Every option of the operator.
        fishers: Fisher information of each branch, or nothing.
        trained: The parameters that the branches hold.
        linear_maps: Which of them are linear maps.
        stacked_axes: Which of them are stacks of layers' tensors.
        survey: The result of the operator's first pass.
    """

    leaf: Callable[..., Array]
    base: LeafReader
    branches: tuple[LeafReader, ...]
    weights: tuple[float, ...]
    options: Mapping[str, Any]
    fishers: tuple[LeafReader, ...]
    trained: Mapping[str, jax.ShapeDtypeStruct]
    linear_maps: LinearMaps
    stacked_axes: StackedAxes
    survey: Any = None

    def value(self, path: str) -> Array:
        """Computes the merged parameter, in theta0's dtype; theta0's own where no branch holds it.

        Integers and booleans are not merged and must agree.

        Raises:
            ValueError: A branch's values are not finite, its Fisher information is negative or not finite, or an integer
                differs from theta0's.
        """
        base = self.base.read(path)
        if path not in self.trained:
            return base
        if not jnp.issubdtype(base.dtype, jnp.inexact):
            return _constant(path, base, (branch.read(path) for branch in self.branches))
        spec = self.trained[path]
        parameter = Parameter(
            path,
            base,
            (self._read(path, k) for k in range(len(self.branches))),
            matrix=self.linear_maps(path, spec),
            stacked=self.stacked_axes(path, spec),
            survey=self.survey,
            fishers=(self._fisher(path, k) for k in range(len(self.fishers))),
        )
        merged = self.leaf(parameter, self.weights, **self.options)
        return (np.asarray(merged) if isinstance(base, np.ndarray) else merged).astype(base.dtype)

    def vectors(self, k: int) -> Iterator[Array]:
        """Iterates over the task vector of branch k, parameter by parameter."""
        for path, spec in self.trained.items():
            if jnp.issubdtype(spec.dtype, jnp.inexact):
                yield task_vector(self.base.read(path), self._read(path, k))

    def _read(self, path: str, k: int) -> Array:
        leaf = self.branches[k].read(path)
        isfinite = jnp.isfinite if isinstance(leaf, jax.Array) else np.isfinite
        if not bool(isfinite(leaf).all()):
            raise ValueError(
                f"{path}: branch {k} holds values that are not finite; its training diverged, run it again"
            )
        return leaf

    def _fisher(self, path: str, k: int) -> Array:
        leaf = self.fishers[k].read(path)
        if not bool((np.isfinite(leaf) & (leaf >= 0)).all()):
            raise ValueError(
                f"{path}: the Fisher information of branch {k} is negative or not finite; estimate it again"
            )
        return leaf


def _constant(path: str, base: Array, leaves: Iterable[Array]) -> Array:
    """theta0's value of a parameter that is no floating number, which no branch may have changed."""
    for k, leaf in enumerate(leaves):
        if not bool((leaf == base).all()):
            raise ValueError(f"{path}: {base.dtype} cannot be averaged, and branch {k} differs from theta0")
    return base
