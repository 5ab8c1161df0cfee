"""One optimizer step on one batch, compiled once and shared by all branches of equal shapes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.loss import per_example
from merit_jax.core.registry import lookup
from merit_jax.core.types import Array, Batch, Leaves, LossFn, TrainState
from merit_jax.training.schedule_free import apply_optimizer

AVERAGES: Mapping[str, Callable[[Batch], Batch]] = {"token": lambda batch: batch, "example": per_example}
"""Value of `train.average` -> weights of a batch with which its loss is `Σ nll / Σ weights`."""


class DatasetSums(NamedTuple):
    """The parts of a step's sums that are each dataset's, by its place in the mixture.

    Attributes:
        nll: Summed negative log-likelihood in nats; in all the step's.
        divisor: Supervised tokens, or examples; in all the step's.
    """

    nll: Float[Array, " d"]
    divisor: Float[Array, " d"]


class StepMetrics(NamedTuple):
    """Metrics of one step, before its update.

    Attributes:
        nll: Summed negative log-likelihood of the batch in nats, of its tokens or of its examples' means.
        divisor: Number of them: the step minimises `nll / divisor`.
        tokens: Supervised tokens of the batch.
        gradient_norm: ‖g‖₂ of the mean's gradient, before clipping.
        by_dataset: The datasets' parts of `nll` and `divisor`; None where they are not computed.
    """

    nll: Float[Array, ""]
    divisor: Float[Array, ""]
    tokens: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    by_dataset: DatasetSums | None = None


class _Sums(NamedTuple):
    nll: Array
    divisor: Array
    gradients: Leaves
    by_dataset: DatasetSums | None


TrainStep = Callable[[TrainState, Leaves, Batch, Array], tuple[TrainState, StepMetrics]]


def make_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, average: str = "token", datasets: int = 0
) -> TrainStep:
    """Makes a jitted `(state, frozen leaves, batch, learning rate) -> (state, metrics)` that minimises a batch's mean loss.

    The batch's leaves are [micro-batches, rows, length]: gradients are summed over micro-batches and divided once by all their
    tokens, or examples, so the step does not depend on how the rows were divided. The state is donated.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]), linear in the batch's weights.
        optimizer: Makes updates of gradients.
        average: "token" minimises `Σ nll / Σ tokens`; "example" the mean over examples, however they are packed into rows, of
            `nll_i / tokens_i`, as the datasets' gradients do.
        datasets: Number of the mixture's datasets, of which the batch says each token's; 0: no sums by dataset.

    Raises:
        ValueError: There is no such average.
    """
    sums = _sums(loss_fn, lookup(AVERAGES, average, "train.average"), datasets)

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, frozen: Leaves, batch: Batch, rate: Array) -> tuple[TrainState, StepMetrics]:
        def add(total: _Sums, part: Batch) -> tuple[_Sums, None]:
            return jax.tree.map(jnp.add, total, sums(state.leaves, frozen, part)), None

        first, rest = jax.tree.map(lambda x: x[0], batch), jax.tree.map(lambda x: x[1:], batch)
        total = sums(state.leaves, frozen, first)
        if batch.tokens.shape[0] > 1:
            total, _ = jax.lax.scan(add, total, rest)
        gradients = jax.tree.map(lambda g: g / jnp.maximum(total.divisor, 1), total.gradients)
        leaves, optimizer_state = apply_optimizer(optimizer, gradients, state, rate)
        metrics = StepMetrics(total.nll, total.divisor, batch.weights.sum(), tree.norm(gradients), total.by_dataset)
        return TrainState(state.step + 1, leaves, optimizer_state), metrics

    return step


def _sums(loss_fn: LossFn, weigh: Callable[[Batch], Batch], datasets: int) -> Callable[[Leaves, Leaves, Batch], _Sums]:
    """Returns the function that computes the sums of a micro-batch.

    The loss is linear in the weights, so its derivative by a token's weight is that token's negative log-likelihood, which the
    backward pass has at hand: the datasets' sums need no loss of their own.
    """

    def total(leaves: Leaves, weights: Array, frozen: Leaves, batch: Batch) -> tuple[Array, Array]:
        nll, count = loss_fn(tree.join(leaves, frozen), batch._replace(weights=weights))
        return nll.sum(), count.sum()

    gradient = jax.value_and_grad(total, (0, 1) if datasets else (0,), has_aux=True)

    def sums(leaves: Leaves, frozen: Leaves, batch: Batch) -> _Sums:
        weighed = weigh(batch)
        (nll, count), slopes = gradient(leaves, weighed.weights, frozen, weighed)
        return _Sums(nll, count, slopes[0], _by_dataset(weighed, slopes[1], datasets) if datasets else None)

    return sums


def _by_dataset(batch: Batch, nll: Float[Array, "b t"], datasets: int) -> DatasetSums:
    """Sums over each dataset's tokens by comparing: fused with the sum, and of the same bits each time, unlike a scatter."""
    if batch.datasets is None:
        raise ValueError(
            "the batch does not say which dataset each token is from; give make_step datasets=0, or fill them in"
        )
    own = batch.datasets == jnp.arange(datasets)[:, None, None]

    def total(values: Float[Array, "b t"]) -> Float[Array, " d"]:
        return jnp.where(own, values, 0).sum(axis=(1, 2))

    weights = jnp.asarray(batch.weights)
    return DatasetSums(total(jnp.where(weights > 0, weights * nll, 0)), total(weights))


def init_state(leaves: Leaves, optimizer: optax.GradientTransformation, shardings: Any = None) -> TrainState:
    """Makes a fresh state from its own copy of `leaves` (theta0 survives the donation)."""
    own = jax.tree.map(jnp.copy, leaves)
    step, optimizer_state = jax.jit(
        lambda leaves: (jnp.int32(0), optimizer.init(leaves)), out_shardings=(None, shardings)
    )(own)
    return TrainState(step, own, optimizer_state)
