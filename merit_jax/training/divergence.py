"""Finds the step at which a branch diverges, from the metrics of its steps and its parameters."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from merit_jax.core.types import Leaves
from merit_jax.training.step import StepMetrics


def advice(*, clip_norm: float | None = None, dtype: str = "") -> str:
    """Returns what to do about a branch that diverges.

    Args:
        clip_norm: Its largest norm of a gradient; 0: none is clipped; None: not known.
        dtype: Name of the type that it computes in; "": not known.

    Examples:
        >>> advice(clip_norm=1.0, dtype="float32")
        'lower train.learning_rate, raise train.warmup or lower train.clip_norm, and start it again with --overwrite'
    """
    clip = "set train.clip_norm (it is 0: no clipping)" if clip_norm == 0 else "lower train.clip_norm"
    finer = [] if dtype == "float32" else ["compute in float32 (model.dtype)"]
    *others, last = ["lower train.learning_rate", "raise train.warmup", clip, *finer]
    return f"{', '.join(others)} or {last}, and start it again with --overwrite"


class DivergedError(ValueError):
    """Training has come to a loss, a gradient or a parameter that is NaN or infinite, and would come to it again.

    Attributes:
        problem: What has happened.
        mend: What to do; None: as for every branch; "": `problem` says it.
    """

    def __init__(self, problem: str, mend: str | None = None) -> None:
        said = advice() if mend is None else mend
        super().__init__(f"{problem}; {said}" if said else problem)
        self.problem, self.mend = problem, mend


class Loss(NamedTuple):
    """The loss of a step.

    Attributes:
        step: Its number, from 1.
        value: The mean loss of its batch.
    """

    step: int
    value: float


def last_finite(metrics: Sequence[StepMetrics], first: int, known: Loss | None) -> Loss | None:
    """Returns the loss of the last of some steps.

    Args:
        metrics: Of the steps, on the host.
        first: Number of the first one, from 1.
        known: The last loss before them; None if there is none.

    Raises:
        DivergedError: A loss or a gradient is NaN or infinite; the step is named, and the last finite loss.
    """
    for step, one in enumerate(metrics, first):
        loss = float(one.nll) / max(float(one.divisor), 1)
        for name, value in (("loss", loss), ("norm of the gradient", float(one.gradient_norm))):
            if not math.isfinite(value):
                raise DivergedError(f"the {name} is {value} at step {step}{_since(known)}")
        known = Loss(step, loss)
    return known


def check_parameters(displacement: float, step: int, leaves: Leaves, theta0: Leaves, known: Loss | None) -> None:
    """Checks the parameters after a step, which a loss that does not depend on all of them would not show.

    Args:
        displacement: Their distance from theta0; finite only if all are.
        step: Number of the step.
        leaves: The trained parameters.
        theta0: Those that they started from.
        known: The last finite loss.

    Raises:
        DivergedError: One is NaN or infinite; it is named.
    """
    if math.isfinite(displacement):
        return
    for name, start in theta0.items():
        if not bool(jnp.isfinite(start).all()):
            raise DivergedError(
                f"theta0's parameter {name} is not finite", "give another model.path: these weights are damaged"
            )
    for name, leaf in leaves.items():
        if not bool(jnp.isfinite(leaf).all()):
            raise DivergedError(f"the parameter {name} is not finite after step {step}{_since(known)}")
    raise DivergedError(
        f"the parameters are farther from theta0 than {np.finfo(np.float32).max:.0e} after step {step}{_since(known)}"
    )


def _since(known: Loss | None) -> str:
    return "" if known is None else f" (the last finite loss is {known.value:.6g}, at step {known.step})"
