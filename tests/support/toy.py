"""Mixtures whose losses, gradients and Hessians are known in closed form.

A linear one: nll(token) = <theta, feature(token)>, so a dataset's gradient is the mean of the features of its targets.

A quadratic one, that of the paper's theory: every token of dataset t costs ½ (theta − theta*_t)ᵀ H (theta − theta*_t), with H and
the optima as chosen; H may differ between datasets.

And one small network whose Hessian can be written out.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from merit_jax.core import tree
from merit_jax.core.types import Batch
from merit_jax.diagnostics.hessian import Objective
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.step import init_state, make_step

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


class Quadratic(NamedTuple):
    """Datasets that differ in their optima, and in their Hessians if so chosen.

    Attributes:
        H: Hessian of every dataset's loss, [d, d], or one for each, [T, d, d].
        optima: theta*_t, [T, d].
    """

    H: np.ndarray
    optima: np.ndarray

    @property
    def frozen(self) -> dict:
        """The mixture itself, as parameters that are not trained."""
        return {"fixed/H": jnp.asarray(self.H), "fixed/optima": jnp.asarray(self.optima)}

    def batch(self, datasets: Sequence[int]) -> Batch:
        """One example per entry of `datasets`, of two supervised tokens."""
        targets = np.repeat(np.asarray(datasets, np.int32)[:, None], 2, axis=1)
        return batch(targets, np.ones(targets.shape))

    def objective(self, datasets: Sequence[int] | None = None) -> Objective:
        """The mean loss of some datasets; None: of all."""
        chosen = range(len(self.optima)) if datasets is None else datasets
        return Objective(quadratic_loss, self.frozen, [self.batch(chosen)])

    def trained(
        self,
        theta: np.ndarray,
        datasets: Sequence[int],
        rate: float,
        *,
        steps: int = 1,
        optimizer: str = "sgd",
        **settings,
    ) -> dict:
        """The leaves after some steps of one of the project's optimizers, plain SGD by default, each on all these datasets."""
        update, step = step_of(optimizer, **{"b1": 0.0, **settings})
        rows = jax.tree.map(lambda x: x[None], self.batch(datasets))
        state = init_state(leaves(theta), update)
        for _ in range(steps):
            state, _ = step(state, self.frozen, rows, rate)
        return state.leaves


def quadratic_loss(params: dict, batch: Batch) -> tuple:
    """The `LossFn` of a `Quadratic`, for rows whose targets are their dataset's number."""
    theta = jnp.concatenate([params["head"], params["tail"]])
    offset = theta - params["fixed"]["optima"].astype(theta.dtype)[batch.targets[:, 0]]
    H = params["fixed"]["H"].astype(theta.dtype)
    H = H[batch.targets[:, 0]] if H.ndim == 3 else jnp.broadcast_to(H, (len(offset), *H.shape))
    each = jnp.einsum("bi,bij,bj->b", offset, H, offset) / 2
    tokens = batch.weights.sum(axis=-1)
    return each * tokens, tokens


@cache
def step_of(name: str, **settings) -> tuple:
    """An optimizer and its step on quadratic mixtures."""
    optimizer = make_optimizer(name, **settings)
    return optimizer, make_step(quadratic_loss, optimizer)


def leaves(theta: np.ndarray) -> dict:
    """A parameter vector as two leaves."""
    return {"head": jnp.asarray(theta[:1]), "tail": jnp.asarray(theta[1:])}


def vector(leaves: dict) -> np.ndarray:
    """Leaves as one vector, in order of path."""
    return np.concatenate([np.ravel(leaf) for leaf in tree.flatten(leaves).values()])


def random_hessian(seed: int, dimension: int, rank: int | None = None) -> np.ndarray:
    """A random positive semi-definite matrix with eigenvalues over two decades."""
    rng = np.random.default_rng(seed)
    U, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    U = U[:, :rank]
    return (U * np.geomspace(10, 0.1, U.shape[1])) @ U.T


class Network:
    """A language model of 44 parameters: tanh of the mean token vector so far, tied embeddings; in its params' dtype."""

    vocab, width = 7, 4

    def hidden(self, params: dict, batch: Batch) -> jax.Array:
        seen = jnp.cumsum(params["embedding"][batch.tokens], axis=1) / (1 + batch.positions[..., None])
        return jnp.tanh(seen @ params["dense"]["kernel"])

    def unembed(self, params: dict, hidden: jax.Array) -> jax.Array:
        return hidden @ params["embedding"].T

    def init_cache(self, *_):
        raise NotImplementedError("it generates nothing")

    prefill = decode = init_cache

    def params(self, seed: int = 0, dtype: type = np.float64) -> dict:
        rng = np.random.default_rng(seed)
        shapes = {"dense": {"kernel": (self.width, self.width)}, "embedding": (self.vocab, self.width)}
        draw = lambda shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
        return jax.tree.map(draw, shapes, is_leaf=lambda shape: isinstance(shape, tuple))

    def batch(self, seed: int, rows: int = 4, length: int = 5) -> Batch:
        """Random tokens, the first of each row not supervised."""
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, self.vocab, (rows, length + 1)).astype(np.int32)
        weights = np.ones((rows, length), np.float32)
        weights[:, 0] = 0
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
        return Batch(ids[:, :-1], ids[:, 1:], weights, positions, np.ones((rows, length), np.int32))
