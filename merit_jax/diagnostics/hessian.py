"""Value, gradient and Hessian-vector products of a loss over fixed batches.

Each is a sum over batches, sharded as the parameters are, so memory does not depend on the number of examples.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.registry import lookup
from merit_jax.core.types import Array, Batch, Leaves, LossFn
from merit_jax.gradients.estimate import AVERAGES


class Objective(NamedTuple):
    """A loss over fixed data, `L(θ)`.

    Attributes:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]).
        frozen: The parameters that are not varied.
        batches: Gone through anew for each evaluation, so that one that counts its batches shows progress. Each shape is
            compiled once.
        average: "token", `Σ nll / Σ tokens`, is the loss of training by default; "example", the mean over examples (one a row) of
            `nll / tokens`, that of the dataset gradients.
        place: Puts a batch on the devices.
    """

    loss_fn: LossFn
    frozen: Leaves
    batches: Iterable[Batch]
    average: str = "token"
    place: Callable[[Batch], Batch] = lambda batch: batch


class Along(NamedTuple):
    """The second-order expansion of a loss along a direction d: `L(θ + d) ≈ loss + slope + curvature / 2`.

    Attributes:
        loss: L(θ), nats.
        slope: ⟨∇L(θ), d⟩.
        curvature: dᵀ ∇²L(θ) d.
    """

    loss: Float[Array, ""]
    slope: Float[Array, ""]
    curvature: Float[Array, ""]


def loss(objective: Objective, leaves: Leaves) -> Float[Array, ""]:
    """Computes `L(θ)` in nats.

    Raises:
        ValueError: The batches have no supervised token, or the average is unknown.
    """
    return _mean(objective, _value, jnp.zeros(()), leaves)


def gradient(objective: Objective, leaves: Leaves) -> Leaves:
    """Computes `∇L(θ)`, in float32 or the leaves' own wider type, sharded as the leaves are.

    Raises:
        ValueError: The batches have no supervised token, or the average is unknown.
    """
    return _mean(objective, _gradient, _zeros(leaves), leaves)


def product(objective: Objective, leaves: Leaves, vector: Leaves) -> Leaves:
    """Computes `∇²L(θ) v`, exactly: the derivative of the gradient along v, in float32 or the leaves' own wider type.

    It takes about twice a gradient's time, and the memory of a gradient and its tangent.

    Args:
        objective: The loss.
        leaves: θ, the trainable leaves.
        vector: v, a tree like `leaves`.

    Raises:
        ValueError: The batches have no supervised token, or the average is unknown.
    """
    return _mean(objective, _product, _zeros(leaves), leaves, vector)


def along(objective: Objective, leaves: Leaves, direction: Leaves) -> Along:
    """Computes loss, slope and curvature at θ along d, by one Hessian-vector product of which three numbers are kept.

    Raises:
        ValueError: The batches have no supervised token, or the average is unknown.

    Examples:
        `L = (w_0² + 3 w_1²) / 4` at (1, 1), along (0, 2), of a row with the token 0 once and 1 three times:

        >>> def loss_fn(params, batch):
        ...     return (params["w"][batch.tokens] ** 2).sum(axis=1), batch.weights.sum(axis=1)
        >>> ids = jnp.array([[0, 1, 1, 1]], jnp.int32)
        >>> batch = Batch(tokens=ids, targets=ids, weights=jnp.ones((1, 4)), positions=ids, segments=ids)
        >>> found = along(Objective(loss_fn, {}, [batch]), {"w": jnp.ones(2)}, {"w": jnp.array([0.0, 2.0])})
        >>> float(found.loss), float(found.slope), float(found.curvature)
        (1.0, 3.0, 6.0)
    """
    return _mean(objective, _along, Along(*(jnp.zeros(()) for _ in Along._fields)), leaves, direction)


Scalar = Callable[[Leaves], tuple[Array, Array]]
"""Trainable leaves -> (summed loss of one batch, its divisor)."""


def _value(total: Scalar, leaves: Leaves) -> tuple[Any, Array]:
    return total(leaves)


def _gradient(total: Scalar, leaves: Leaves) -> tuple[Any, Array]:
    return jax.grad(total, has_aux=True)(leaves)


def _product(total: Scalar, leaves: Leaves, vector: Leaves) -> tuple[Any, Array]:
    _, found, count = jax.jvp(jax.grad(total, has_aux=True), (leaves,), (_like(vector, leaves),), has_aux=True)
    return found, count


def _along(total: Scalar, leaves: Leaves, direction: Leaves) -> tuple[Any, Array]:
    def value_and_gradient(leaves: Leaves) -> tuple[Any, Array]:
        (value, count), slope = jax.value_and_grad(total, has_aux=True)(leaves)
        return (value, slope), count

    direction = _like(direction, leaves)
    (value, _), (slope, found), count = jax.jvp(value_and_gradient, (leaves,), (direction,), has_aux=True)
    return Along(value, slope, tree.dot(direction, found)), count


def _mean(objective: Objective, measure: Callable, zero: Any, *arguments: Leaves) -> Any:
    """Sums a measure over all batches and divides it once."""
    add = _accumulator(objective.loss_fn, objective.average, measure)
    state = (zero, jnp.zeros(()))
    for batch in objective.batches:
        state = add(state, objective.frozen, objective.place(batch), *arguments)
    total, count = state
    if not float(count):
        raise ValueError("no supervised token in the batches; expected examples whose loss is defined")
    return jax.tree.map(lambda x: x / count, total)


@lru_cache(maxsize=16)
def _accumulator(loss_fn: LossFn, average: str, measure: Callable) -> Callable:
    """A compiled `(state, frozen, batch, *arguments) -> state`."""
    totals = lookup(AVERAGES, average, "average")

    @partial(jax.jit, donate_argnums=0)
    def add(state: tuple[Any, Array], frozen: Leaves, batch: Batch, *arguments: Leaves) -> tuple[Any, Array]:
        def total(leaves: Leaves) -> tuple[Array, Array]:
            return totals(*loss_fn(tree.join(leaves, frozen), batch))

        return jax.tree.map(jnp.add, state, measure(total, *arguments))

    return add


def _zeros(leaves: Leaves) -> Leaves:
    """Accumulators, sharded as the leaves are."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=tree.accumulation_dtype(x)), leaves)


def _like(vector: Leaves, leaves: Leaves) -> Leaves:
    """The vector in the dtypes of the leaves, as a derivative along it needs."""
    return jax.tree.map(lambda v, x: v.astype(x.dtype), vector, leaves)
