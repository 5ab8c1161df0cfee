"""Merging gain: the difference of the branches' mean loss and the merged model's, and its quadratic prediction."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.types import Array, Leaves
from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.hessian import Objective


class MergingGain(NamedTuple):
    """The gain of a merge, obtained and predicted, with the losses it is the difference of.

    A split that makes its branches worse has a larger gain and no better merged model: read it together with `merged_loss`.

    Attributes:
        weights: w_k.
        branch_losses: L(θ_k), nats.
        mean_branch_loss: Σ_k w_k L(θ_k).
        merged_loss: L(θ̄).
        obtained: `mean_branch_loss − merged_loss`.
        slopes: ⟨∇L(θ̄), θ_k − θ̄⟩; where θ̄ is the weighted mean, they cancel.
        curvatures: (θ_k − θ̄)ᵀ H (θ_k − θ̄), H the Hessian at θ̄.
        predicted: `Σ_k w_k (slope_k + ½ curvature_k)`; for the weighted mean, G_var of MERIT Thm 3.1.
    """

    weights: Float[np.ndarray, " k"]
    branch_losses: Float[np.ndarray, " k"]
    mean_branch_loss: float
    merged_loss: float
    obtained: float
    slopes: Float[np.ndarray, " k"]
    curvatures: Float[np.ndarray, " k"]
    predicted: float


def merging_gain(
    objective: Objective,
    merged: Leaves,
    branches: Iterable[Leaves],
    weights: Sequence[float] | Float[Array, " k"],
) -> MergingGain:
    """Computes `Σ_k w_k L(θ_k) − L(θ̄)`, and its second-order prediction from Hessian-vector products at θ̄ (MERIT Thm 3.1).

    `Σ_k w_k L(θ_k) − L(θ̄) ≈ ½ Σ_k w_k (θ_k − θ̄)ᵀ H (θ_k − θ̄)`, an equality where the loss is quadratic. Merges other than the
    weighted mean have a first-order term too, which is counted.

    Costs K + 1 losses' worth of forward passes and K Hessian-vector products.

    Args:
        objective: The loss.
        merged: θ̄, trainable leaves.
        branches: θ_k, trainable leaves; iterated over once, so that they can be read one at a time.
        weights: w_k, summing to one.

    Raises:
        ValueError: As many weights as branches are expected, summing to one.

    Examples:
        In a bowl, `L = w²/2`, the average of −1 and 3 gains `½ · 2²`, as predicted:

        >>> import jax.numpy as jnp
        >>> from merit_jax.core.types import Batch
        >>> def loss_fn(params, batch):
        ...     return params["w"][batch.tokens[:, 0]] ** 2 / 2, batch.weights.sum(axis=1)
        >>> ids = jnp.zeros((1, 1), jnp.int32)
        >>> bowl = Objective(loss_fn, {}, [Batch(ids, ids, jnp.ones((1, 1)), ids, ids)])
        >>> merged, *branches = ({"w": jnp.full(1, w)} for w in (1.0, -1.0, 3.0))
        >>> found = merging_gain(bowl, merged, branches, weights=[0.5, 0.5])
        >>> found.obtained, found.predicted
        (2.0, 2.0)
    """
    shares = np.asarray(weights, np.float64)
    if not np.isclose(shares.sum(), 1, atol=1e-5):
        raise ValueError(f"the weights of the branches sum to {shares.sum()}; expected 1")
    losses, found = [], []
    for branch in branches:
        losses.append(float(hessian.loss(objective, branch)))
        found.append([float(x) for x in hessian.along(objective, merged, tree.axpy(-1.0, merged, branch))])
    if len(found) != len(shares):
        raise ValueError(f"got {len(found)} branches and {len(shares)} weights; expected one weight a branch")
    merged_loss, slopes, curvatures = np.array(found).T
    mean = float(shares @ losses)
    return MergingGain(
        weights=shares,
        branch_losses=np.array(losses),
        mean_branch_loss=mean,
        merged_loss=float(merged_loss[0]),
        obtained=mean - float(merged_loss[0]),
        slopes=slopes,
        curvatures=curvatures,
        predicted=float(shares @ (slopes + curvatures / 2)),
    )
