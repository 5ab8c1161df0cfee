"""Compares the memory of the optimizers' states for one model: exact, from their shapes."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from merit_jax.planning.execution import (
    ExecutionConfig,
    TrainingTask,
    abstract_leaves,
    abstract_mesh,
    abstract_state,
    all_bytes,
    device_bytes,
)
from merit_jax.training.optimizer import make_optimizer

COMPARED = ("adamw", "lion", "muon", "adafactor", "sgd", "schedule_free_adamw", "schedule_free_sgd")
"""Optimizers that plans compare."""


class OptimizerMemory(NamedTuple):
    """The state of one optimizer.

    Attributes:
        name: As `train.optimizer` names it.
        state: Bytes on one device.
        per_parameter: Bytes in all for each trained number.
    """

    name: str
    state: int
    per_parameter: float


def optimizer_memory(
    task: TrainingTask, execution: ExecutionConfig, configured: str, names: Sequence[str] = COMPARED
) -> tuple[OptimizerMemory, ...]:
    """Returns the states of the configured optimizer, as it is configured, and of others with their usual settings.

    Args:
        task: The model and its training.
        execution: Sharding of the step.
        configured: Name of the task's optimizer.
        names: Of the others.
    """
    mesh = abstract_mesh(execution)
    leaves, _ = abstract_leaves(task, mesh)
    numbers = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(leaves))
    found = []
    for name in (configured, *(name for name in names if name != configured)):
        optimizer = task.optimizer if name == configured else make_optimizer(name)
        state = abstract_state(task._replace(optimizer=optimizer), leaves, mesh).optimizer
        found.append(OptimizerMemory(name, device_bytes(state), all_bytes(state) / max(numbers, 1)))
    return tuple(found)
