"""A merge operator: a function of one parameter's values, mapped over trees in memory or streamed from checkpoints."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from merit_jax import tree
from merit_jax.merge import checks
from merit_jax.types import Array, Params


class Merger(NamedTuple):
    """A merge operator.

    Attributes:
        leaf: `(base, leaves, weights, *, options) -> merged`. `base` is a parameter of theta0; `leaves` yields the same
            parameter of each branch, read as it is asked for; `weights` are floats that sum to one. The result may have
            any floating dtype: it is cast back.
    """

    leaf: Callable[..., Array]

    def __call__(self, theta0: Params, thetas: Sequence[Params], weights: checks.Weights, **options: Any) -> Params:
        """Merges trees in memory, parameter by parameter.

        Args:
            theta0: What every branch started from.
            thetas: The branches, in the order of `weights`.
            weights: Non-negative, summing to one.
            **options: The operator's own.

        Returns:
            Merged params, nested, in the dtypes of theta0.

        Raises:
            ValueError: Trees, shapes or dtypes differ, weights or options are wrong, or a branch is not finite.
        """
        weights = self.checked(weights, len(thetas), options)
        base, branches = tree.flatten(theta0), [tree.flatten(theta) for theta in thetas]
        checks.same_tree(base, branches)
        return tree.unflatten(
            {
                path: self.merge(path, leaf, lambda k, path=path: branches[k][path], weights, options)
                for path, leaf in base.items()
            }
        )

    def checked(self, weights: checks.Weights, branches: int, options: Mapping[str, Any]) -> tuple[float, ...]:
        """The weights as floats, once they and the options have been found right."""
        _check_options(self.leaf, options)
        return checks.weights(weights, branches)

    def merge(
        self,
        path: str,
        base: Array,
        read: Callable[[int], Array],
        weights: tuple[float, ...],
        options: Mapping[str, Any],
    ) -> Array:
        """Merges one parameter; `read(k)` is branch k's. Integers and booleans are not merged and must agree."""
        branches = range(len(weights))
        if not jnp.issubdtype(base.dtype, jnp.inexact):
            return checks.constant(path, base, (read(k) for k in branches))
        leaves = (checks.finite(path, k, read(k)) for k in branches)
        return self.leaf(base, leaves, weights, **options).astype(base.dtype)


def _check_options(leaf: Callable[..., Array], options: Mapping[str, Any]) -> None:
    known = {
        name: option.default is option.empty
        for name, option in inspect.signature(leaf).parameters.items()
        if option.kind is option.KEYWORD_ONLY
    }
    unknown, missing = (
        sorted(set(options) - set(known)),
        [n for n, required in known.items() if required and n not in options],
    )
    if unknown or missing:
        raise ValueError(f"merge options: unknown {unknown}, missing {missing}; {leaf.__name__} takes {sorted(known)}")
