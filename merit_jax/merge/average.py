"""Weight averaging (MERIT Alg. 1, step 5) and the move from theta0 towards one branch."""

import math
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.types import Array


def token_weights(tokens: Sequence[int]) -> Float[np.ndarray, " k"]:
    """`w_k = N_k / Σ_j N_j`, from the exact number of supervised tokens each branch trained on.

    Raises:
        ValueError: No branch, or a branch that trained on no token.
    """
    if not len(tokens) or min(tokens) <= 0:
        raise ValueError(f"every branch must have trained on at least one token; got the counts {list(tokens)}")
    total = sum(int(count) for count in tokens)
    return np.array([int(count) / total for count in tokens])


def token_weighted(base: Array, leaves: Iterable[Array], weights: Sequence[float]) -> Array:
    """`θ̄ = Σ_k w_k θ_k` (MERIT Alg. 1, step 5); with `w_k` in proportion to tokens, the paper's merge.

    Computed as `θ_1 − Σ_{k>1} w_k (θ_1 − θ_k)`, one branch at a time: where the branches agree, the result is theirs
    to the bit, and the rounding error is relative to their differences.
    """
    return _average(leaves, weights)


def uniform(base: Array, leaves: Iterable[Array], weights: Sequence[float]) -> Array:
    """`θ̄ = (1/K) Σ_k θ_k`, whatever the token counts: a uniform soup."""
    return _average(leaves, [1 / len(weights)] * len(weights))


def interpolate(base: Array, leaves: Iterable[Array], weights: Sequence[float], *, scale: int | float) -> Array:
    """`θ_0 + λ (θ − θ_0)` for one branch: WiSE-FT, exact at λ = 0 and λ = 1.

    Args:
        scale: λ; in 0..1 it interpolates.

    Raises:
        ValueError: There is more than one branch, or `scale` is no finite number.
    """
    if len(weights) != 1 or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise ValueError(
            f"interpolate moves theta0 towards one branch by a finite scale; got {len(weights)}, {scale!r}"
        )
    (leaf,) = leaves
    return (1 - scale) * _accurate(base) + scale * _accurate(leaf)


def _average(leaves: Iterable[Array], weights: Sequence[float]) -> Array:
    remaining = iter(leaves)
    first = total = _accurate(next(remaining))
    for weight in weights[1:]:
        total = total - weight * (first - _accurate(next(remaining)))
    return total


def _accurate(leaf: Array) -> Array:
    """The leaf in float32, or in its own dtype if that is wider."""
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32), copy=False)
