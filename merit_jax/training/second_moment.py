"""The second moment of Adam at the end of a branch's training, for merging by it."""

import inspect

import jax
import jax.numpy as jnp
import optax

from merit_jax.core.types import Leaves, TrainState
from merit_jax.training.optimizer import known_optimizers

HOLDERS = ("adam", "adamw", "lamb", "radam")
"""Optimizers whose state has `nu`, the moving average of squared gradients, of every trained parameter."""


def check_second_moment(optimizer: str) -> None:
    """Checks that an optimizer has a second moment.

    Raises:
        ValueError: It has none.
    """
    if optimizer not in HOLDERS:
        raise ValueError(
            f"train.keep_second_moment: train.optimizer {optimizer!r} has no second moment of every parameter; use one of "
            f"{', '.join(HOLDERS)}, or leave the key out"
        )


def second_moment(state: TrainState, optimizer: str, b2: float) -> Leaves:
    """Returns `v̂ = ν / (1 − b2^t)`, the average of squared gradients without the bias of its start at zero.

    Without the correction a branch of few steps would seem to have less curvature than one of many.

    Args:
        state: The state after t steps; gradients have been clipped before they entered ν.
        optimizer: Its name, one of `HOLDERS`.
        b2: `train.b2`; at 0.999 the optimizer's own.

    Returns:
        The trained leaves, in the types of the state.

    Examples:
        >>> leaves = {"w": jnp.array([1.0, 2.0])}
        >>> gradient = {"w": jnp.array([0.5, -2.0])}
        >>> adam = optax.adam(1.0)
        >>> after = adam.update(gradient, adam.init(leaves))[1]
        >>> second_moment(TrainState(jnp.int32(1), leaves, after), "adam", 0.999)["w"].round(3).tolist()
        [0.25, 4.0]
    """
    usual = inspect.signature(optax.adamw).parameters["b2"].default
    decay = b2 if b2 != usual else inspect.signature(known_optimizers()[optimizer]).parameters["b2"].default
    count, nu = (optax.tree.get(state.optimizer, name) for name in ("count", "nu"))
    return jax.jit(_corrected)(nu, count, jnp.float32(decay))


def _corrected(nu: Leaves, count: jax.Array, decay: jax.Array) -> Leaves:
    return jax.tree.map(lambda leaf: leaf / (1 - decay ** count.astype(jnp.float32)).astype(leaf.dtype), nu)
