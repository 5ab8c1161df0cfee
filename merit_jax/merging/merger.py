"""Merge operators as values, applied to trees in memory or prepared for parameters one at a time."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from merit_jax.checkpoints.compatibility import same_tree
from merit_jax.core.leaves import Leaf, LeafReader
from merit_jax.merging.merge import LinearMaps, Merge, Sources, StackedAxes
from merit_jax.merging.operators.task_vectors import named_kernel, named_stack
from merit_jax.merging.options import resolve_options
from merit_jax.merging.statistics import Statistic

Weights = Sequence[float] | Float[np.ndarray, " k"]
"""One weight per branch."""

ROUNDING = 1e-6
"""Largest difference of a sum of weights from one."""


class UsedWeights(NamedTuple):
    """The weights that an operator used, for records and for diagnostics.

    Attributes:
        values: One per branch: of an operator that is linear, the factors c_k of `θ̄ = θ_0 + Σ_k c_k (θ_k − θ_0)`; of another, the
            weights that enter its equations; None where none do.
        mean: Whether the merged model is the weighted mean `Σ_k c_k θ_k`: linear, and the factors sum to one. MERIT's Eqs. 2 and
            11 and Thm 3.1 hold for such a merge only.
    """

    values: tuple[float, ...] | None
    mean: bool


class Merger(NamedTuple):
    """A merge operator.

    Attributes:
        leaf: `(parameter, weights, *, options) -> merged`: one parameter's values, see `Parameter`; `weights` are floats
            that sum to one. The result may have any floating dtype: it is cast back.
        survey: A first pass over all parameters, `(vectors, branches, options) -> Parameter.survey`, for operators that
            need a statistic of whole task vectors. `vectors(k)` starts a pass over branch k's task vectors, one
            parameter at a time, of an operator with a `statistic` over pairs with it; `options` has every option of the operator.
        weighted: Of all its options: whether the weights make a difference.
        linear: Of an operator that gives `θ_0 + Σ_k c_k (θ_k − θ_0)`: (weights, all its options) -> c_k. None for one that is
            not linear, or whose factors differ between parameters.
        statistic: The statistic of each branch that the operator needs besides its parameters, as Fisher information.
        elementwise: Whether an entry of the result is a sum of multiples of that entry of every branch, and maybe of theta0: it
            can be computed by itself, and is not finite where a branch's is not.
        least: Fewest branches that the method is defined for.
    """

    leaf: Callable[..., Leaf]
    survey: Callable[..., Any] | None = None
    weighted: Callable[[Mapping[str, Any]], bool] = lambda options: True
    linear: Callable[[Sequence[float], Mapping[str, Any]], tuple[float, ...]] | None = None
    statistic: Statistic | None = None
    elementwise: bool = False
    least: int = 1

    def __call__(
        self,
        theta0: Mapping[str, Any],
        thetas: Sequence[Mapping[str, Any]],
        weights: Weights,
        *,
        statistics: Sequence[Mapping[str, Any]] = (),
        **options: Any,
    ) -> dict[str, Any]:
        """Merges trees in memory, parameter by parameter.

        Args:
            theta0: The parameters that every branch started from.
            thetas: The branches, in the order of `weights`.
            weights: Non-negative, summing to one.
            statistics: The statistic of each branch, for operators that need one.
            **options: The operator's own.

        Returns:
            Merged params, nested, in the dtypes of theta0.

        Raises:
            ValueError: Trees, shapes or dtypes differ, weights or options are wrong, or theta0, a branch or the result is not
                finite.

        Examples:
            >>> import numpy as np
            >>> from merit_jax.merging import MERGERS
            >>> theta0 = {"dense": {"kernel": np.zeros(2, np.float32)}}
            >>> thetas = [{"dense": {"kernel": np.array(values, np.float32)}} for values in ([4, 0], [0, 8])]
            >>> MERGERS["token_weighted"](theta0, thetas, [0.75, 0.25])["dense"]["kernel"].tolist()
            [3.0, 2.0]
            >>> MERGERS["task_arithmetic"](theta0, thetas, [0.5, 0.5], scale=0.5)["dense"]["kernel"].tolist()
            [2.0, 4.0]
        """
        from merit_jax.core import tree  # which loads JAX, and is for trees alone
        from merit_jax.merging.held_leaves import HeldLeaves

        base, branches = HeldLeaves(theta0), [HeldLeaves(theta) for theta in thetas]
        known = [HeldLeaves(statistic) for statistic in statistics]
        same_tree(base.paths(), [branch.paths() for branch in branches])
        merge = self.prepare(base, branches, weights, options, statistics=known)
        return tree.unflatten({path: merge.value(path) for path in base.paths()})

    def used_weights(self, weights: Weights, options: Mapping[str, Any]) -> UsedWeights:
        """Returns the weights that the operator uses where it is given some.

        Args:
            weights: As for a merge.
            options: Every option of the operator.

        Examples:
            >>> from merit_jax.merging import MERGERS
            >>> MERGERS["uniform"].used_weights([0.7, 0.3], {})
            UsedWeights(values=(0.5, 0.5), mean=True)
            >>> MERGERS["task_arithmetic"].used_weights([0.7, 0.3], {"scale": 0.4})
            UsedWeights(values=(0.4, 0.4), mean=False)
        """
        given = tuple(float(weight) for weight in weights)
        if self.linear is None:
            return UsedWeights(given if self.weighted(options) else None, mean=False)
        values = self.linear(given, options)
        return UsedWeights(values, mean=abs(math.fsum(values) - 1) <= ROUNDING)

    def prepare(
        self,
        base: LeafReader,
        branches: Sequence[LeafReader],
        weights: Weights,
        options: Mapping[str, Any],
        *,
        statistics: Sequence[LeafReader] = (),
        linear_maps: LinearMaps = named_kernel,
        stacked_axes: StackedAxes = named_stack,
        sources: Sources | None = None,
    ) -> Merge:
        """Checks all that can be checked before a parameter is read, and makes the operator's first pass.

        Args:
            base: theta0.
            branches: The branches, all holding the same parameters, some of theta0's.
            weights: Non-negative, summing to one, in the order of `branches`.
            options: The operator's own.
            statistics: The statistic of each branch, for operators that need one.
            linear_maps: Which parameters methods on matrices work on.
            stacked_axes: Which parameters stack the tensors of layers; statistics of a tensor are taken layer by layer.
            sources: The files of the parameters, for error messages.

        Raises:
            ValueError: Trees, shapes or dtypes differ, weights or options are wrong, there are too few branches, statistics
                are missing, or theta0 or a branch is not finite.
        """
        settings = resolve_options(self.leaf, options)
        values = _checked_weights(weights, len(branches))
        if len(branches) < self.least:
            raise ValueError(
                f"{self.leaf.__name__} merges at least {self.least} branches; got {len(branches)}. A single branch needs no "
                "merge: use token_weighted"
            )
        held = [branch.paths() for branch in branches]
        trained = {path: spec for path, spec in base.paths().items() if any(path in paths for paths in held)}
        same_tree(trained, held)
        if self.statistic is not None:
            layouts = {path: linear_maps(path, spec) for path, spec in trained.items()}
            self.statistic.check(statistics, len(branches), trained, layouts)
        merge = Merge(
            self.leaf, base, tuple(branches), values, settings, tuple(statistics), trained, linear_maps, stacked_axes
        )
        merge = dataclasses.replace(merge, statistic=self.statistic, sources=sources, elementwise=self.elementwise)
        vectors = merge.vectors if self.statistic is None else merge.informed_vectors
        found = self.survey(vectors, len(branches), settings) if self.survey else None
        return dataclasses.replace(merge, survey=found)


def _checked_weights(given: Weights, branches: int) -> tuple[float, ...]:
    """The weights as floats: one per branch, non-negative, summing to one up to `ROUNDING`."""
    values = tuple(float(weight) for weight in given)
    if not branches:
        raise ValueError("got no branches to merge; expected at least one")
    if len(values) != branches:
        raise ValueError(f"got {len(values)} weights for {branches} branches; expected one for each")
    if not all(math.isfinite(weight) and weight >= 0 for weight in values):
        raise ValueError(f"merge weights must be finite and not negative; got {values}")
    if abs(math.fsum(values) - 1) > ROUNDING:
        raise ValueError(f"merge weights must sum to one; {values} sum to {math.fsum(values)}")
    return values


def unweighted(options: Mapping[str, Any]) -> bool:
    """Returns False: `Merger.weighted` of an operator that takes no weights."""
    return False
