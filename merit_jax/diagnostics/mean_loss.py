"""Loss of the diagnostics: nats per supervised token on a fixed set of batches."""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from merit_jax.core.sharding import to_host
from merit_jax.core.types import Batch, LossFn, Params

Loss = Callable[[Params], float]
"""Params -> nats per supervised token."""


def mean_loss(loss_fn: LossFn, batches: Iterable[Batch]) -> Loss:
    """Makes `L(θ) = Σ nll / Σ tokens` over all batches: the loss that a branch minimises, on examples of every dataset.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]).
        batches: On the devices; gone through anew for each evaluation, so that one that counts its passes shows progress. Each
            shape is compiled once.

    Returns:
        A function of params; it raises a ValueError if the batches have no supervised tokens.

    Examples:
        >>> ids = np.zeros((2, 4), np.int32)
        >>> batch = Batch(tokens=ids, targets=ids, weights=np.ones((2, 4), np.float32), positions=ids, segments=ids)
        >>> def loss_fn(params, batch):
        ...     return params["w"] * batch.weights.sum(axis=1), batch.weights.sum(axis=1)
        >>> mean_loss(loss_fn, [batch])({"w": np.float32(2.5)})
        2.5
    """
    compiled = jax.jit(loss_fn)

    def loss(params: Params) -> float:
        sums = [[to_host(part).sum(dtype=np.float64) for part in compiled(params, batch)] for batch in batches]
        nll, tokens = np.sum(sums, axis=0) if sums else (0.0, 0.0)
        if not tokens:
            raise ValueError("no example with supervised tokens to take the loss on")
        return float(nll / tokens)

    return loss
