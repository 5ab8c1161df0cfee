"""Optimizers and learning-rate schedules of a branch, from optax."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax
import optax.contrib

from merit_jax.core.registry import lookup
from merit_jax.core.types import Leaves
from merit_jax.training.schedule_free import SCHEDULE_FREE, Mask, make_schedule_free

SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "linear": lambda peak, steps: optax.linear_schedule(peak, 0.0, steps),
    "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, steps),
}
"""Name -> (peak learning rate, steps after warm-up) -> learning rate at a step after warm-up."""


def make_schedule(
    name: str, peak: float, warmup: float, steps: int, span: Sequence[float] = (0.0, 1.0)
) -> optax.Schedule:
    """Makes a learning rate that rises linearly to `peak`, never from zero, and then follows `name` to the end of the branch.

    With another span the branch has that part of a longer schedule, whose other parts are other branches'.

    Args:
        name: "constant", "linear" (to 0) or "cosine" (to 0).
        peak: Highest learning rate.
        warmup: Share of the branch's steps spent rising, in [0, 1).
        steps: Optimizer steps of this branch.
        span: Where the branch begins and ends, as shares of the schedule.

    Examples:
        >>> rate = make_schedule("linear", peak=1.0, warmup=0.25, steps=8)
        >>> [round(float(rate(step)), 2) for step in range(8)]
        [0.33, 0.67, 1.0, 0.83, 0.67, 0.5, 0.33, 0.17]
        >>> second_half = make_schedule("linear", peak=1.0, warmup=0.25, steps=4, span=(0.5, 1.0))
        >>> [round(float(second_half(step)), 2) for step in range(4)]
        [0.67, 0.5, 0.33, 0.17]
    """
    begin, end = span
    whole = round(steps / (end - begin))
    schedule, passed = _whole_schedule(name, peak, warmup, whole), round(begin * whole)
    return (lambda step: schedule(step + passed)) if passed else schedule


def _whole_schedule(name: str, peak: float, warmup: float, steps: int) -> optax.Schedule:
    if not 0 <= warmup < 1:
        raise ValueError(f"train.warmup is a share of the steps in [0, 1), got {warmup}")
    rising = int(warmup * steps)
    after = lookup(SCHEDULES, name, "train.schedule")(peak, steps - rising)
    return optax.join_schedules([optax.linear_schedule(peak / (rising + 1), peak, max(rising, 1)), after], [rising])


_NEEDS_MORE = "it needs more than gradients and parameters"
_OWN_RATE = "it finds a learning rate of its own, and train.schedule sets one"
_NOT_PROPORTIONAL = "its updates are not proportional to its learning rate, so train.schedule cannot scale them"
UNFIT: Mapping[str, str] = {
    **dict.fromkeys(("dpsgd", "lbfgs", "momo", "momo_adam", "noisy_sgd", "schedule_free", "sophia"), _NEEDS_MORE),
    **dict.fromkeys(("cocob", "dadapt_adamw", "dog", "dowg", "prodigy"), _OWN_RATE),
    **dict.fromkeys(("fromage", "madgrad", "rprop"), _NOT_PROPORTIONAL),
    "optimistic_adam": "optax has replaced it by optimistic_adam_v2",
    "galore": "its state has empty arrays, which checkpoints cannot hold",
}
"""Name of an optimizer that takes a learning rate and cannot train a branch -> why not."""


def known_optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Returns the optimizers of optax and optax.contrib that can train a branch, by name."""
    found = {**_rated(optax.contrib), **_rated(optax)}
    return {name: make for name, make in found.items() if name not in UNFIT}


def _rated(module: Any) -> dict[str, Callable[..., optax.GradientTransformation]]:
    """The functions of a module that take a learning rate and are no parts of an optimizer."""
    functions = inspect.getmembers(module, inspect.isfunction)
    rated = {name: make for name, make in functions if "learning_rate" in inspect.signature(make).parameters}
    return {name: make for name, make in rated.items() if not name.startswith(("_", "scale_by"))}


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
    """Makes the optimizer of a branch at learning rate 1; the step multiplies its updates by the rate of the schedule.

    So the compiled step does not depend on the schedule's length, and branches of different lengths share it. An optimizer gets
    those of `b1`, `b2` and `eps` that its signature has and that differ from AdamW's defaults, and `weight_decay` together with
    `mask`; one without `mask` is followed by decoupled decay. Its other arguments keep optax's defaults. Muon takes the kernels
    as matrices, stacked ones layer by layer, and Adam the rest. A Schedule-Free one takes the rate itself (`apply_optimizer`).

    Args:
        name: "sgd", with momentum `b1`, or the name of another optimizer of optax or optax.contrib, as "adamw" or "muon".
        weight_decay: Decay per unit of learning rate.
        no_decay: Regular expressions over parameter paths that are not decayed.
        clip_norm: Largest global gradient norm; 0 does not clip.
        b1: First-moment decay, momentum of SGD.
        b2: Second-moment decay.
        eps: The optimizer's epsilon.

    Raises:
        ValueError: There is no such optimizer, or it cannot train a branch.
    """

    def decayed(leaves: Leaves) -> Mapping[str, bool]:
        return {path: not any(re.search(pattern, path) for pattern in no_decay) for path in leaves}

    if name in UNFIT:
        raise ValueError(f"train.optimizer {name!r}: {UNFIT[name]}; use one of {', '.join(sorted(known_optimizers()))}")
    make = lookup(known_optimizers(), name, "train.optimizer")
    if name in SCHEDULE_FREE:
        return make_schedule_free(
            name, weight_decay=weight_decay, mask=decayed, clip_norm=clip_norm, b1=b1, b2=b2, eps=eps
        )
    if name == "sgd":
        update = _sgd(weight_decay, decayed, b1)
    else:
        update = _from_optax(make, weight_decay, decayed, {"b1": b1, "b2": b2, "eps": eps})
    return optax.chain(optax.clip_by_global_norm(clip_norm), update) if clip_norm else update


def _sgd(decay: float, mask: Mask, momentum: float) -> optax.GradientTransformation:
    """SGD with momentum (0: none) and decoupled weight decay, the subject of MERIT's theory."""
    trace = optax.trace(momentum) if momentum else optax.identity()
    return optax.chain(trace, optax.add_decayed_weights(decay, mask=mask), optax.scale(-1.0))


def _from_optax(
    make: Callable[..., optax.GradientTransformation], decay: float, mask: Mask, settings: Mapping[str, float]
) -> optax.GradientTransformation:
    """An optimizer at rate 1 with those settings that its signature has and that differ from AdamW's: else its own defaults."""
    takes, usual = inspect.signature(make).parameters, inspect.signature(optax.adamw).parameters
    given: dict[str, Any] = {key: v for key, v in settings.items() if key in takes and v != usual[key].default}
    own = {"weight_decay", "mask"} <= takes.keys()
    if own:
        given |= {"weight_decay": decay, "mask": mask}
    elif "weight_decay" in takes:
        given["weight_decay"] = 0.0
    if "muon_weight_dimension_numbers" in takes:
        given["muon_weight_dimension_numbers"] = _kernels
    update = make(learning_rate=1.0, **given)
    return update if own or not decay else optax.chain(update, optax.add_decayed_weights(-decay, mask=mask))


def _kernels(leaves: Mapping[str, Any]) -> dict[str, optax.contrib.MuonDimensionNumbers | None]:
    """The matrices among the leaves, kernels and the factors of their low-rank updates; axes before the last two count layers."""
    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return {path: matrix if re.search(r"(^|/)kernel(_lora_[ab])?$", path) else None for path in leaves}
