"""A prepared merge: the checked values of each parameter go through the operator, one parameter at a time."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from merit_jax.core.leaves import Leaf, LeafReader, LeafSpec, MappedReader, is_inexact
from merit_jax.merging.blocks import in_blocks
from merit_jax.merging.operators.task_vectors import KernelLayout, Parameter, task_vector
from merit_jax.merging.statistics import Statistic

LinearMaps = Callable[[str, LeafSpec], KernelLayout | None]
"""(path, shape and dtype) -> layout of a linear map, or of a stack of them along the leading axes; None for all else."""

StackedAxes = Callable[[str, LeafSpec], int]
"""(path, shape and dtype) -> number of leading axes along which the tensors of layers are stacked."""

LayerWeights = Callable[[str, tuple[int, ...], int], Sequence[Leaf]]
"""(path, shape, number of stacked axes) -> the weight of each branch, to be broadcast over the parameter."""

Sources = Callable[[str, int | None], str]
"""(path, number of a branch or None for theta0) -> the file that holds the parameter, for error messages."""


@dataclasses.dataclass(frozen=True)
class Merge:
    """A merge whose parameters can be computed one at a time, in any order.

    Attributes:
        leaf: The operator's function of one parameter, see `Merger.leaf`.
        base: theta0.
        branches: The branches.
        weights: One per branch.
        options: Every option of the operator.
        statistics: The statistic of each branch that the operator needs, or nothing.
        trained: The parameters that the branches hold.
        linear_maps: Which of them are linear maps.
        stacked_axes: Which of them are stacks of layers' tensors.
        statistic: The kind of those statistics.
        survey: The result of the operator's first pass.
        sources: The files of the parameters; None where theta0 and the branches are a run's.
        elementwise: As in `Merger`.
        layer_weights: Weights that differ between layers, in place of `weights`; None where they do not.
    """

    leaf: Callable[..., Leaf]
    base: LeafReader
    branches: tuple[LeafReader, ...]
    weights: tuple[float, ...]
    options: Mapping[str, Any]
    statistics: tuple[LeafReader, ...]
    trained: Mapping[str, LeafSpec]
    linear_maps: LinearMaps
    stacked_axes: StackedAxes
    statistic: Statistic | None = None
    survey: Any = None
    sources: Sources | None = None
    elementwise: bool = False
    layer_weights: LayerWeights | None = None

    def value(self, path: str) -> Leaf:
        """Computes the merged parameter, in theta0's dtype; theta0's own where no branch holds it.

        Integers and booleans are not merged and must agree.

        Raises:
            ValueError: Values of theta0, of a branch, of a statistic or of the result are not finite, a statistic is negative
                that cannot be, or an integer differs from theta0's.
        """
        if (computed := self._in_blocks(path)) is not None:
            return computed
        base = self._read(path, None)
        if path not in self.trained:
            return base
        if not is_inexact(base.dtype):
            return self._constant(path, base)
        spec = self.trained[path]
        parameter = Parameter(
            path,
            base,
            (self._read(path, k) for k in range(len(self.branches))),
            matrix=self.linear_maps(path, spec),
            stacked=self.stacked_axes(path, spec),
            survey=self.survey,
            statistics=self._statistics(path),
        )
        weights = self._weights(path, spec, parameter.stacked)
        with np.errstate(over="ignore", invalid="ignore"):
            merged = self.leaf(parameter, weights, **self.options)
            merged = np.asarray(merged) if isinstance(base, np.ndarray) else merged
            result = merged.astype(base.dtype)
        if not _finite(result):
            largest = f" up to {float(np.abs(np.asarray(merged)).max()):.4g}" if _finite(merged) else ""
            raise ValueError(f"{path}: merged values{largest} do not fit {base.dtype}; merge with a smaller scale")
        return result

    def _in_blocks(self, path: str) -> np.ndarray | None:
        """Computes a merged parameter block by block; None where that is not possible, or it or theta0 is not finite."""
        readers = (self.base, *self.branches)
        spec = self.trained.get(path)
        if not self.elementwise or self.layer_weights is not None or spec is None or not is_inexact(spec.dtype):
            return None
        views = [reader.view(path) if isinstance(reader, MappedReader) else None for reader in readers]
        held = [view for view in views if view is not None]
        if len(held) < len(views):
            return None

        def compute(parts: Sequence[np.ndarray]) -> np.ndarray:
            return np.asarray(self.leaf(Parameter(path, parts[0], parts[1:]), self.weights, **self.options))

        return in_blocks(compute, held, spec.dtype)

    def vectors(self, k: int) -> Iterator[Leaf]:
        """Iterates over the task vector of branch k, parameter by parameter."""
        for path, spec in self.trained.items():
            if is_inexact(spec.dtype):
                yield task_vector(self._read(path, None), self._read(path, k))

    def informed_vectors(self, k: int) -> Iterator[tuple[Leaf, Leaf]]:
        """Iterates over the task vector of branch k and its statistic, parameter by parameter."""
        if self.statistic is None:
            raise ValueError("the operator has no statistic")
        for path, spec in self.trained.items():
            if is_inexact(spec.dtype):
                vector = task_vector(self._read(path, None), self._read(path, k))
                yield vector, self.statistic.read(self.statistics[k], path, k)

    def _read(self, path: str, k: int | None) -> Leaf:
        """Reads a parameter of branch k, or of theta0, which must be finite."""
        leaf = (self.base if k is None else self.branches[k]).read(path)
        if _finite(leaf):
            return leaf
        if self.sources is not None:
            remedy = "the file is damaged, or the model diverged: use another checkpoint of it"
        else:
            remedy = "start from a sound checkpoint" if k is None else "its training diverged, run it again"
        raise ValueError(f"{path}: {self._name(path, k)} holds values that are not finite; {remedy}")

    def _constant(self, path: str, base: Leaf) -> Leaf:
        """Returns theta0's value of a parameter that is no floating number, which no branch may have changed."""
        for k in range(len(self.branches)):
            if not bool((self._read(path, k) == base).all()):
                raise ValueError(
                    f"{path}: {base.dtype} cannot be averaged, and {self._name(path, k)} differs from "
                    f"{self._name(path, None)}"
                )
        return base

    def _weights(self, path: str, spec: LeafSpec, stacked: int) -> Sequence[float | Leaf]:
        """Returns the weights of a parameter: one per branch, or an array for each where they differ between layers."""
        return self.weights if self.layer_weights is None else self.layer_weights(path, spec.shape, stacked)

    def _name(self, path: str, k: int | None) -> str:
        """Returns the name of branch k, or of theta0, in error messages about a parameter."""
        if self.sources is not None:
            return self.sources(path, k)
        return "theta0" if k is None else f"branch {k}"

    def _statistics(self, path: str) -> Iterator[Leaf]:
        """Iterates over the branches' statistics of a parameter, each read when the iteration gets to it."""
        if self.statistic is not None and path in self.statistics[0].paths():
            for k, held in enumerate(self.statistics):
                yield self.statistic.read(held, path, k)


def _finite(leaf: Leaf) -> bool:
    if isinstance(leaf, np.ndarray | np.generic):
        return bool(np.isfinite(leaf).all())
    from jax.numpy import isfinite  # loaded already, by whoever made the array

    return bool(isfinite(leaf).all())
