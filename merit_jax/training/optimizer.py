"""Optimizers and learning-rate schedules of a branch, from optax."""

import re
from collections.abc import Callable, Mapping, Sequence

import optax

from merit_jax.core.registry import lookup
from merit_jax.core.types import Leaves

SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "linear": lambda peak, steps: optax.linear_schedule(peak, 0.0, steps),
    "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, steps),
}
"""Name -> (peak learning rate, steps after warm-up) -> learning rate at a step after warm-up."""


def make_schedule(name: str, peak: float, warmup: float, steps: int) -> optax.Schedule:
    """A learning rate that rises linearly to `peak`, never from zero, and then follows `name` to the end of the branch.

    Args:
        name: "constant", "linear" (to 0) or "cosine" (to 0).
        peak: Highest learning rate.
        warmup: Share of the branch's steps spent rising, in [0, 1).
        steps: Optimizer steps of this branch.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"train.warmup is a share of the steps in [0, 1), got {warmup}")
    rising = int(warmup * steps)
    after = lookup(SCHEDULES, name, "train.schedule")(peak, steps - rising)
    return optax.join_schedules([optax.linear_schedule(peak / (rising + 1), peak, max(rising, 1)), after], [rising])


Mask = Callable[[Leaves], Mapping[str, bool]]
"""Leaves -> which of them are decayed."""


def adamw(decay: float, mask: Mask, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) at rate 1, moments in float32."""
    return optax.adamw(1.0, b1=b1, b2=b2, eps=eps, weight_decay=decay, mask=mask)


def sgd(decay: float, mask: Mask, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """SGD at rate 1 with momentum `b1` (0: none) and decoupled weight decay; what MERIT's theory is about."""
    momentum = optax.trace(b1) if b1 else optax.identity()
    return optax.chain(momentum, optax.add_decayed_weights(decay, mask=mask), optax.scale(-1.0))


OPTIMIZERS = {"adamw": adamw, "sgd": sgd}


def make_optimizer(
    name: str,
    *,
    weight_decay: float = 0.0,
    no_decay: Sequence[str] = (),
    clip_norm: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """The optimizer of a branch at learning rate 1; the step multiplies its updates by the rate of the schedule.

    So the compiled step does not depend on the schedule's length, and branches of different lengths share it.

    Args:
        name: "adamw" or "sgd".
        weight_decay: Decoupled decay, per unit of learning rate.
        no_decay: Regular expressions over parameter paths that are not decayed.
        clip_norm: Largest global gradient norm; 0 does not clip.
        b1: First-moment decay of AdamW, momentum of SGD.
        b2: Second-moment decay of AdamW.
        eps: AdamW's epsilon.
    """

    def decayed(leaves: Leaves) -> Mapping[str, bool]:
        return {path: not any(re.search(pattern, path) for pattern in no_decay) for path in leaves}

    update = lookup(OPTIMIZERS, name, "train.optimizer")(weight_decay, decayed, b1, b2, eps)
    return optax.chain(optax.clip_by_global_norm(clip_norm), update) if clip_norm else update
