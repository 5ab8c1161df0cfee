"""What must hold before branches are merged; every message names the parameter and the branch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array

Weights = Sequence[float] | Float[Array, " k"]
"""One weight per branch."""


def weights(given: Weights, branches: int) -> tuple[float, ...]:
    """The weights as floats: one per branch, non-negative, summing to one within 1e-6."""
    values = tuple(float(weight) for weight in given)
    if not branches:
        raise ValueError("got no branches to merge; expected at least one")
    if len(values) != branches:
        raise ValueError(f"got {len(values)} weights for {branches} branches; expected one for each")
    if not all(math.isfinite(weight) and weight >= 0 for weight in values):
        raise ValueError(f"merge weights must be finite and not negative; got {values}")
    if abs(math.fsum(values) - 1) > 1e-6:
        raise ValueError(f"merge weights must sum to one; {values} sum to {math.fsum(values)}")
    return values


def fishers(trained: Mapping[str, Any], held: Sequence[Mapping[str, Any]], branches: int) -> None:
    """There is Fisher information of every branch, for every parameter, in its shape."""
    if len(held) != branches:
        raise ValueError(f"got the Fisher information of {len(held)} branches, expected that of {branches}")
    for k, paths in enumerate(held):
        for path, spec in trained.items():
            if path not in paths or tuple(paths[path].shape) != tuple(spec.shape):
                got = list(paths[path].shape) if path in paths else "nothing"
                raise ValueError(f"{path}: the Fisher information of branch {k} has {got}, expected {list(spec.shape)}")


def fisher(path: str, k: int, leaf: Array) -> Array:
    """The leaf; refuses what cannot be the mean of squares."""
    if not bool((np.isfinite(leaf) & (leaf >= 0)).all()):
        raise ValueError(f"{path}: the Fisher information of branch {k} is negative or not finite; estimate it again")
    return leaf


def finite(path: str, k: int, leaf: Array) -> Array:
    """The leaf; refuses that of a branch that diverged."""
    isfinite = jnp.isfinite if isinstance(leaf, jax.Array) else np.isfinite
    if not bool(isfinite(leaf).all()):
        raise ValueError(f"{path}: branch {k} holds values that are not finite; its training diverged, run it again")
    return leaf


def constant(path: str, base: Array, leaves: Iterable[Array]) -> Array:
    """theta0's value of a parameter that is no floating number, which no branch may have changed."""
    for k, leaf in enumerate(leaves):
        if not bool((leaf == base).all()):
            raise ValueError(f"{path}: {base.dtype} cannot be averaged, and branch {k} differs from theta0")
    return base
