"""A mixture whose losses and gradients are known in closed form.

A token's loss is linear in the parameters: nll(token) = <theta, feature(token)>, so a dataset's gradient is the mean of the
features of its targets.
"""

import jax.numpy as jnp
import numpy as np

from merit_jax.types import Batch

VOCAB, ROWS, COLUMNS = 17, 4, 6
FEATURES = np.random.default_rng(0).normal(size=(VOCAB, ROWS * COLUMNS + COLUMNS)).astype(np.float32)


def params() -> dict:
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(ROWS, COLUMNS)), rng.normal(size=COLUMNS)
    return {"dense": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}


def loss(params: dict, batch: Batch) -> tuple:
    theta = jnp.concatenate([params["dense"]["bias"], params["dense"]["kernel"].reshape(-1)])
    nll = (jnp.asarray(FEATURES) @ theta)[batch.targets] * batch.weights
    return nll.sum(axis=-1), batch.weights.sum(axis=-1)


def batch(targets: np.ndarray, weights: np.ndarray) -> Batch:
    zeros = np.zeros_like(targets)
    return Batch(zeros, targets, weights.astype(np.float32), zeros, (weights > 0).astype(np.int32))


def random_batch(seed: int, rows: int = 4, length: int = 5) -> Batch:
    """Rows with different numbers of supervised tokens, the last row a filler."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, VOCAB, (rows, length)).astype(np.int32)
    weights = (np.arange(length) < rng.integers(1, length + 1, (rows, 1))).astype(np.float32)
    weights[-1] = 0
    return batch(targets, weights)


def gradient(batches: list[Batch], average: str) -> np.ndarray:
    """The dataset's gradient, [bias, kernel] in one vector, in float64."""
    sums = np.concatenate([np.einsum("bt,btd->bd", b.weights, FEATURES.astype(np.float64)[b.targets]) for b in batches])
    tokens = np.concatenate([b.weights.sum(axis=1) for b in batches])
    real = tokens > 0
    return (sums[real] / tokens[real, None]).mean(axis=0) if average == "example" else sums.sum(axis=0) / tokens.sum()
