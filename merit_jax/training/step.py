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

AVERAGES: Mapping[str, Callable[[Batch], Batch]] = {"token": lambda batch: batch, "example": per_example}
"""Value of `train.average` -> weights of a batch with which its loss is `Σ nll / Σ weights`."""


class StepMetrics(NamedTuple):
    """Metrics of one step, before its update.

    Attributes:
        nll: Summed negative log-likelihood of the batch in nats, of its tokens or of its examples' means.
        divisor: Number of them: the step minimises `nll / divisor`.
        tokens: Supervised tokens of the batch.
        gradient_norm: ‖g‖₂ of the mean's gradient, before clipping.
    """

    nll: Float[Array, ""]
    divisor: Float[Array, ""]
    tokens: Float[Array, ""]
    gradient_norm: Float[Array, ""]


TrainStep = Callable[[TrainState, Leaves, Batch, Array], tuple[TrainState, StepMetrics]]


def make_step(loss_fn: LossFn, optimizer: optax.GradientTransformation, average: str = "token") -> TrainStep:
    """Makes a jitted `(state, frozen leaves, batch, learning rate) -> (state, metrics)` that minimises a batch's mean loss.

    The batch's leaves are [micro-batches, rows, length]: gradients are summed over micro-batches and divided once by all their
    tokens, or examples, so the step does not depend on how the rows were divided. The state is donated.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]), linear in the batch's weights.
        optimizer: Makes updates of gradients.
        average: "token" minimises `Σ nll / Σ tokens`; "example" the mean over examples, however they are packed into rows, of
            `nll_i / tokens_i`, as the datasets' gradients do.

    Raises:
        ValueError: There is no such average.
    """
    weigh = lookup(AVERAGES, average, "train.average")

    def total(leaves: Leaves, frozen: Leaves, batch: Batch) -> tuple[Array, Array]:
        nll, count = loss_fn(tree.join(leaves, frozen), weigh(batch))
        return nll.sum(), count.sum()

    gradient = jax.value_and_grad(total, has_aux=True)

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, frozen: Leaves, batch: Batch, rate: Array) -> tuple[TrainState, StepMetrics]:
        def add(sums: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, gradient(state.leaves, frozen, part)), None

        first, rest = jax.tree.map(lambda x: x[0], batch), jax.tree.map(lambda x: x[1:], batch)
        sums = gradient(state.leaves, frozen, first)
        if batch.tokens.shape[0] > 1:
            sums, _ = jax.lax.scan(add, sums, rest)
        (nll, count), gradients = sums
        gradients = jax.tree.map(lambda g: g / jnp.maximum(count, 1), gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.leaves)
        leaves = optax.apply_updates(state.leaves, jax.tree.map(lambda u: rate * u, updates))
        metrics = StepMetrics(nll, count, batch.weights.sum(), tree.norm(gradients))
        return TrainState(state.step + 1, leaves, optimizer_state), metrics

    return step


def init_state(leaves: Leaves, optimizer: optax.GradientTransformation, shardings: Any = None) -> TrainState:
    """Makes a fresh state from its own copy of `leaves` (theta0 survives the donation)."""
    own = jax.tree.map(jnp.copy, leaves)
    step, optimizer_state = jax.jit(
        lambda leaves: (jnp.int32(0), optimizer.init(leaves)), out_shardings=(None, shardings)
    )(own)
    return TrainState(step, own, optimizer_state)
