"""Losses with known values on the tree {"kernel": x ∈ R⁴, "frozen": 1}, for diagnostics."""

import jax.numpy as jnp
import numpy as np

from merit_jax.core.types import Batch

FROZEN = jnp.ones(3)
CURVATURES = np.array([4.0, 1.0, 0.25, 2.0])
OPTIMUM = np.array([1.0, -1.0, 2.0, 0.0])


def params(x) -> dict:
    """Params at x; the frozen leaf is shared."""
    return {"kernel": jnp.asarray(x, jnp.float32), "frozen": FROZEN}


def batches(*supervised: int) -> list[Batch]:
    """A batch of two rows for each number of supervised tokens; the second row is padding."""
    return [_batch(tokens) for tokens in supervised]


def _batch(tokens: int) -> Batch:
    zeros = np.zeros((2, 5), np.int32)
    weights = np.zeros((2, 5), np.float32)
    weights[0, :tokens] = 1
    return Batch(zeros, zeros, weights, zeros, weights.astype(np.int32))


def bowl(x) -> float:
    """½ Σ_i λ_i (x_i − x*_i)²."""
    return float((CURVATURES * (np.asarray(x) - OPTIMUM) ** 2).sum() / 2)


def bowl_loss(params: dict, batch: Batch) -> tuple:
    """The bowl, once for each token."""
    tokens = batch.weights.sum(axis=-1)
    return tokens * (jnp.asarray(CURVATURES) * jnp.square(params["kernel"] - OPTIMUM)).sum() / 2, tokens


def wells_loss(params: dict, batch: Batch) -> tuple:
    """`(x_0² − 1)²` for each token: minima at ±1, between them a hill of height 1."""
    tokens = batch.weights.sum(axis=-1)
    return tokens * jnp.square(jnp.square(params["kernel"][0]) - 1), tokens
