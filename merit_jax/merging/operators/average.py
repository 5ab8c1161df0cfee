"""Weight averaging (MERIT Alg. 1, step 5) and the move from theta0 towards one branch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from merit_jax.core.leaves import Leaf
from merit_jax.merging.merger import Merger, unweighted
from merit_jax.merging.operators.task_vectors import Parameter, upcast


def token_weights(tokens: Sequence[int]) -> Float[np.ndarray, " k"]:
    """Computes `w_k = N_k / Σ_j N_j`, from the exact number of supervised tokens each branch trained on.

    Raises:
        ValueError: No branch, or a branch that trained on no token.

    Examples:
        >>> token_weights([300, 100]).tolist()
        [0.75, 0.25]
    """
    if not len(tokens) or min(tokens) <= 0:
        raise ValueError(f"every branch must have trained on at least one token; got the counts {list(tokens)}")
    total = sum(int(count) for count in tokens)
    return np.array([int(count) / total for count in tokens])


def token_weighted(parameter: Parameter, weights: Sequence[float | Leaf]) -> Leaf:
    """Averages `θ̄ = Σ_k w_k θ_k` (MERIT Alg. 1, step 5); with `w_k` in proportion to tokens, the paper's merge.

    Computed as `θ_1 − Σ_{k>1} w_k (θ_1 − θ_k)`, one branch at a time: where the branches agree, the result is theirs
    to the bit, and the rounding error is relative to their differences. Weights may be arrays, one of a number for each layer of
    a stack.
    """
    remaining = iter(parameter.leaves)
    first = total = upcast(next(remaining))
    for weight in weights[1:]:
        total = total - weight * (first - upcast(next(remaining)))
    return total


def given_weights(weights: Sequence[float], options: Mapping[str, Any]) -> tuple[float, ...]:
    """Returns the weights of `token_weighted`: those it is given."""
    return tuple(weights)


def uniform(parameter: Parameter, weights: Sequence[float]) -> Leaf:
    """Averages `θ̄ = (1/K) Σ_k θ_k`, whatever the token counts: a uniform soup."""
    return token_weighted(parameter, equal_weights(weights, {}))


def equal_weights(weights: Sequence[float], options: Mapping[str, Any]) -> tuple[float, ...]:
    """Returns the weights of `uniform`: 1/K each."""
    return (1 / len(weights),) * len(weights)


def interpolate(parameter: Parameter, weights: Sequence[float], *, scale: int | float) -> Leaf:
    """Interpolates `θ_0 + λ (θ − θ_0)` for one branch: WiSE-FT, exact at λ = 0 and λ = 1.

    Args:
        scale: λ; in 0..1 it interpolates.

    Raises:
        ValueError: There is more than one branch.
    """
    if len(weights) != 1:
        raise ValueError(f"interpolate moves theta0 towards one branch; got {len(weights)} branches")
    return scaled_average(parameter, weights, scale)


def scale_weights(weights: Sequence[float], options: Mapping[str, Any]) -> tuple[float, ...]:
    """Returns the factor of each task vector in `interpolate` and in task arithmetic: λ."""
    return (float(options["scale"]),) * len(weights)


def scaled_average(parameter: Parameter, weights: Sequence[float], scale: int | float) -> Leaf:
    """Computes `θ_0 + λ (θ̄ − θ_0)` with `θ̄` the weighted mean; exact at λ = 0 and λ = 1."""
    return (1 - scale) * upcast(parameter.base) + scale * token_weighted(parameter, weights)


MERGERS = {
    "token_weighted": Merger(token_weighted, linear=given_weights, elementwise=True),
    "uniform": Merger(uniform, weighted=unweighted, linear=equal_weights, elementwise=True),
    "interpolate": Merger(interpolate, weighted=unweighted, linear=scale_weights, elementwise=True),
}
"""Name -> the operator."""
