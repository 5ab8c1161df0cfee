"""Merge operators as values: applied to trees in memory, or streamed from checkpoints to a checkpoint."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from merit_jax.checkpoints.compatibility import same_tree
from merit_jax.checkpoints.writer import write_streamed
from merit_jax.core import tree
from merit_jax.core.types import Array, LeafReader, Params
from merit_jax.merging.merge import LinearMaps, Merge, Sources, StackedAxes
from merit_jax.merging.operators.task_vectors import named_kernel, named_stack
from merit_jax.merging.options import resolve_options
from merit_jax.merging.statistics import Statistic
from merit_jax.workdir.paths import absolute

Weights = Sequence[float] | Float[Array, " k"]
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
        least: Fewest branches that the method is defined for.
    """

    leaf: Callable[..., Array]
    survey: Callable[..., Any] | None = None
    weighted: Callable[[Mapping[str, Any]], bool] = lambda options: True
    linear: Callable[[Sequence[float], Mapping[str, Any]], tuple[float, ...]] | None = None
    statistic: Statistic | None = None
    least: int = 1

    def __call__(
        self,
        theta0: Params,
        thetas: Sequence[Params],
        weights: Weights,
        *,
        statistics: Sequence[Params] = (),
        **options: Any,
    ) -> Params:
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
        base, branches, known = (
            _Held(theta0),
            [_Held(theta) for theta in thetas],
            [_Held(known) for known in statistics],
        )
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
        merge = dataclasses.replace(merge, statistic=self.statistic, sources=sources)
        vectors = merge.vectors if self.statistic is None else merge.informed_vectors
        found = self.survey(vectors, len(branches), settings) if self.survey else None
        return dataclasses.replace(merge, survey=found)


class Counts(NamedTuple):
    """Numbers of parameters in a streamed merge.

    Attributes:
        merged: Those that the branches hold.
        copied: Those that no branch holds (frozen in training), copied from theta0.
    """

    merged: int
    copied: int


def merge_streamed(
    merger: Merger,
    base: LeafReader,
    branches: Sequence[LeafReader],
    weights: Weights,
    out_dir: epath.PathLike,
    progress: Callable[[str], None] | None = None,
    statistics: Sequence[LeafReader] = (),
    rows: Float[np.ndarray, "rows k"] | None = None,
    **options: Any,
) -> Counts:
    """Merges checkpoints into a new Orbax checkpoint, holding one parameter of every model at most.

    Operators that need a statistic of whole task vectors read the checkpoints once or twice more, beforehand.

    Parameters that no branch holds were frozen in training and are copied from theta0. Orbax writes to a temporary
    directory and renames it at the end, so `out_dir` exists only when it is whole.

    Args:
        merger: An entry of `MERGERS`.
        base: theta0.
        branches: The branches, all holding the same parameters.
        weights: Non-negative, summing to one, in the order of `branches`.
        out_dir: Directory of the merged params; must not exist.
        progress: Called with each path name once the parameter is computed.
        statistics: The statistic of each branch, for operators that need one.
        rows: Weights of blocks of layers, as for `block_weights.leaf_weights`, in place of `weights`; for weighted means alone.
        **options: The operator's own.

    Raises:
        ValueError: Trees, shapes or dtypes differ, weights or options are wrong, a model is not finite, `out_dir`
            exists, or this is not process 0 (other processes have nothing to do here).
    """
    out = absolute(out_dir)
    if jax.process_index():
        raise ValueError(f"a streamed merge runs on process 0 alone; this is process {jax.process_index()}")
    if out.exists():
        raise ValueError(f"{out} exists; remove it to merge again")
    merge = dataclasses.replace(merger.prepare(base, branches, weights, options, statistics=statistics), rows=rows)
    write_streamed(out, base.paths(), merge.value, progress)
    return Counts(len(merge.trained), len(base.paths()) - len(merge.trained))


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


class _Held:
    """Params in memory, on the devices where they are."""

    def __init__(self, params: Params):
        self._leaves = tree.flatten(params)

    def paths(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in self._leaves.items()}

    def read(self, path: str) -> Any:
        return self._leaves[path]
