"""Schedule-Free training: the parameters that are trained are not those that are evaluated and merged (arXiv:2405.15682)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
import optax.contrib

from merit_jax.core.types import Leaves, TrainState

SCHEDULE_FREE = ("schedule_free_adamw", "schedule_free_sgd")
"""Names of Schedule-Free optimizers."""

Mask = Callable[[Leaves], Mapping[str, bool]]
"""Leaves -> which of them are decayed."""


class ScheduleFree(optax.GradientTransformationExtraArgs):
    """A Schedule-Free optimizer, whose `update` takes the learning rate as `rate`.

    Its updates are not proportional to the rate: `y`, the trained parameters, lie between `z`, which takes the base optimizer's
    steps, and `x`, the mean of all `z` weighed by their rates, which is evaluated.
    """


def make_schedule_free(
    name: str, *, weight_decay: float, mask: Mask, clip_norm: float, b1: float, b2: float, eps: float
) -> ScheduleFree:
    """Makes a Schedule-Free optimizer as optax.contrib does, with clipping, and with decay of some leaves only.

    Args:
        name: One of `SCHEDULE_FREE`.
        weight_decay: Decay of the trained parameters, per unit of learning rate.
        mask: The leaves that are decayed.
        clip_norm: Largest global gradient norm; 0 does not clip.
        b1: Where the trained parameters lie between `z` (0) and `x` (1).
        b2: Second-moment decay of AdamW.
        eps: Epsilon of AdamW.

    Raises:
        ValueError: `b1` is 0.
    """
    if not b1:
        raise ValueError(f"train.b1 = 0; {name} trains between two sequences of parameters: expected a number above 0")
    adam = optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True)

    def at(rate: Any) -> optax.GradientTransformationExtraArgs:
        base = optax.chain(
            optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
            adam if name == "schedule_free_adamw" else optax.identity(),
            optax.add_decayed_weights(weight_decay, mask=mask),
            optax.scale_by_learning_rate(rate),
        )
        return optax.contrib.schedule_free(base, rate, b1)

    def update(gradients: Any, state: Any, params: Any = None, *, rate: Any = 1.0, **_: Any) -> tuple[Any, Any]:
        return at(rate).update(gradients, state, params)

    return ScheduleFree(at(1.0).init, update)


def apply_optimizer(
    optimizer: optax.GradientTransformation, gradients: Leaves, state: TrainState, rate: Any
) -> tuple[Leaves, Any]:
    """Computes the leaves and the optimizer's state after a step.

    Args:
        optimizer: At learning rate 1: its updates are multiplied by the rate, unless it is Schedule-Free and takes the rate.
        gradients: Of the trained leaves.
        state: Before the step.
        rate: The step's learning rate.
    """
    if isinstance(optimizer, ScheduleFree):
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.leaves, rate=rate)
        return optax.apply_updates(state.leaves, updates), optimizer_state
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.leaves)
    return optax.apply_updates(state.leaves, jax.tree.map(lambda u: rate * u, updates)), optimizer_state


def evaluated_leaves(optimizer: optax.GradientTransformation) -> Callable[[TrainState], Leaves]:
    """Returns the function that takes from a state the leaves to be evaluated and merged; mostly the trained ones themselves."""
    if not isinstance(optimizer, ScheduleFree):
        return lambda state: state.leaves
    evaluate = jax.jit(optax.contrib.schedule_free_eval_params)
    return lambda state: evaluate(state.optimizer, state.leaves)


def check_schedule(optimizer: str, schedule: str) -> None:
    """Checks that an optimizer goes together with a schedule.

    Raises:
        ValueError: It is Schedule-Free, and the schedule falls.
    """
    if optimizer in SCHEDULE_FREE and schedule != "constant":
        raise ValueError(
            f"train.schedule = {schedule!r}; {optimizer} averages over its steps in place of a falling learning rate: set "
            "train.schedule to 'constant' (train.warmup applies)"
        )
