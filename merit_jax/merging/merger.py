"""A merge operator: a function of one parameter's values, mapped over trees in memory or streamed from checkpoints."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from merit_jax.checkpoints import compatibility
from merit_jax.core import tree
from merit_jax.core.types import Array, LeafReader, Params
from merit_jax.merging import validation
from merit_jax.merging.operators.task_vectors import KernelLayout, Parameter, named_kernel, task_vector
from merit_jax.merging.options import resolve_options

LinearMaps = Callable[[str, jax.ShapeDtypeStruct], KernelLayout | None]
"""(path, shape and dtype) -> layout of a linear map, or of a stack of them along the leading axes; None for all else."""


class Merger(NamedTuple):
    """A merge operator.

    Attributes:
        leaf: `(parameter, weights, *, options) -> merged`: one parameter's values, see `Parameter`; `weights` are floats
            that sum to one. The result may have any floating dtype: it is cast back.
        survey: A first pass over all parameters, `(vectors, branches, options) -> Parameter.survey`, for operators that
            need a statistic of whole task vectors. `vectors(k)` starts a pass over branch k's task vectors, one
            parameter at a time; `options` has every option of the operator.
        weighted: Of all its options: whether the weights make a difference.
        fisher: Whether the operator asks for each branch's Fisher information.
        least: Fewest branches that the method is defined for.
    """

    leaf: Callable[..., Array]
    survey: Callable[..., Any] | None = None
    weighted: Callable[[Mapping[str, Any]], bool] = lambda options: True
    fisher: bool = False
    least: int = 1

    def __call__(
        self,
        theta0: Params,
        thetas: Sequence[Params],
        weights: validation.Weights,
        *,
        fishers: Sequence[Params] = (),
        **options: Any,
    ) -> Params:
        """Merges trees in memory, parameter by parameter.

        Args:
            theta0: What every branch started from.
            thetas: The branches, in the order of `weights`.
            weights: Non-negative, summing to one.
            fishers: Diagonal Fisher information of each branch, for operators that ask for it.
            **options: The operator's own.

        Returns:
            Merged params, nested, in the dtypes of theta0.

        Raises:
            ValueError: Trees, shapes or dtypes differ, weights or options are wrong, or a branch is not finite.
        """
        base, branches, known = _Held(theta0), [_Held(theta) for theta in thetas], [_Held(fisher) for fisher in fishers]
        compatibility.same_tree(base.paths(), [branch.paths() for branch in branches])
        merge = self.prepare(base, branches, weights, options, fishers=known)
        return tree.unflatten({path: merge.value(path) for path in base.paths()})

    def prepare(
        self,
        base: LeafReader,
        branches: Sequence[LeafReader],
        weights: validation.Weights,
        options: Mapping[str, Any],
        *,
        fishers: Sequence[LeafReader] = (),
        linear_maps: LinearMaps = named_kernel,
    ) -> "Merge":
        """Checks all that can be checked before a parameter is read, and makes the operator's first pass.

        Args:
            base: theta0.
            branches: The branches, all holding the same parameters, some of theta0's.
            weights: Non-negative, summing to one, in the order of `branches`.
            options: The operator's own.
            fishers: Diagonal Fisher information of each branch, for operators that ask for it.
            linear_maps: Which parameters methods on matrices work on.

        Raises:
            ValueError: Trees, shapes or dtypes differ, weights or options are wrong, there are too few branches, Fisher
                information is missing, or a branch is not finite.
        """
        settings = resolve_options(self.leaf, options)
        values = validation.weights(weights, len(branches))
        if len(branches) < self.least:
            raise ValueError(
                f"{self.leaf.__name__} merges at least {self.least} branches; got {len(branches)}. A single branch needs no "
                "merge: use token_weighted"
            )
        specs, held = base.paths(), [branch.paths() for branch in branches]
        trained = {path: spec for path, spec in specs.items() if any(path in paths for paths in held)}
        compatibility.same_tree(trained, held)
        if self.fisher:
            validation.fishers(trained, [fisher.paths() for fisher in fishers], len(branches))
        merge = Merge(self, base, tuple(branches), values, settings, tuple(fishers), trained, linear_maps)
        found = self.survey(merge.vectors, len(branches), settings) if self.survey else None
        return dataclasses.replace(merge, survey=found)


@dataclasses.dataclass(frozen=True)
class Merge:
    """A merge about to be made; its parameters can be asked for one at a time, in any order.

    Attributes:
        merger: The operator.
        base: theta0.
        branches: The branches.
        weights: One per branch.
        options: Every option of the operator.
        fishers: Fisher information of each branch, or nothing.
        trained: The parameters that the branches hold.
        linear_maps: Which of them are linear maps.
        survey: What the first pass found.
    """

    merger: Merger
    base: LeafReader
    branches: tuple[LeafReader, ...]
    weights: tuple[float, ...]
    options: Mapping[str, Any]
    fishers: tuple[LeafReader, ...]
    trained: Mapping[str, jax.ShapeDtypeStruct]
    linear_maps: LinearMaps
    survey: Any = None

    def value(self, path: str) -> Array:
        """The merged parameter, in theta0's dtype; theta0's own where no branch holds it.

        Integers and booleans are not merged and must agree.
        """
        base = self.base.read(path)
        if path not in self.trained:
            return base
        if not jnp.issubdtype(base.dtype, jnp.inexact):
            return validation.constant(path, base, (branch.read(path) for branch in self.branches))
        parameter = Parameter(
            path,
            base,
            (self._leaf(path, k) for k in range(len(self.branches))),
            self.linear_maps(path, self.trained[path]),
            self.survey,
            (validation.fisher(path, k, fisher.read(path)) for k, fisher in enumerate(self.fishers)),
        )
        merged = self.merger.leaf(parameter, self.weights, **self.options)
        return (np.asarray(merged) if isinstance(base, np.ndarray) else merged).astype(base.dtype)

    def vectors(self, k: int) -> Iterator[Array]:
        """A pass over the task vector of branch k, parameter by parameter."""
        for path, spec in self.trained.items():
            if jnp.issubdtype(spec.dtype, jnp.inexact):
                yield task_vector(self.base.read(path), self._leaf(path, k))

    def _leaf(self, path: str, k: int) -> Array:
        return validation.finite(path, k, self.branches[k].read(path))


class _Held:
    """Params in memory, as they are: on the devices where they lie."""

    def __init__(self, params: Params):
        self._leaves = tree.flatten(params)

    def paths(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in self._leaves.items()}

    def read(self, path: str) -> Any:
        return self._leaves[path]
