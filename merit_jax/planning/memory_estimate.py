"""Estimates the memory of a training step from shapes alone, where there is no compiler.

The arrays stored between forward and backward pass are those that `jax.vjp` of the run's own loss stores, traced with shapes; the
rest are rules, each named by a field of `ResidentBytes` or `StepBytes`.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from merit_jax.core import tree
from merit_jax.core.types import Batch
from merit_jax.planning.execution import (
    ExecutionConfig,
    TrainingTask,
    abstract_batch,
    abstract_leaves,
    abstract_mesh,
    abstract_state,
    all_bytes,
    device_bytes,
)
from merit_jax.planning.shapes import Architecture


class ResidentBytes(NamedTuple):
    """Memory of one device between two steps, in bytes; exact.

    Attributes:
        trainable: Parameters that learn.
        frozen: The other parameters.
        optimizer: Optimizer state.
        theta0: theta0's trainable parameters, kept for the distance from them.
        batch: One batch.
        best: The best state's trainable parameters, kept for early stopping.
    """

    trainable: int
    frozen: int
    optimizer: int
    theta0: int
    batch: int
    best: int = 0


class StepBytes(NamedTuple):
    """Memory that one device needs in addition during a step, in bytes; estimated.

    Attributes:
        gradients: Gradients, and the sums over micro-batches.
        saved: Activations stored between forward and backward pass.
        working: Activations and gathered parameters of the current layer, its logits, and its gradients before they are summed.
        update: The optimizer's updates, which come after the backward pass.
    """

    gradients: int
    saved: int
    working: int
    update: int

    @property
    def peak(self) -> int:
        """The larger of the backward pass and the update."""
        return self.gradients + max(self.saved + self.working, self.update)


class SavedBytes(NamedTuple):
    """Memory stored for the backward pass, in bytes.

    Attributes:
        layers: Arrays that have the decoder's layers on a leading axis.
        others: All other arrays.
    """

    layers: int
    others: int


@dataclasses.dataclass(frozen=True, eq=False)
class Estimator:
    """Estimates of one task in many executions; the model is traced once for each number of rows.

    Attributes:
        task: The model and its training.
        architecture: Sizes of the model's blocks.
        chunk: Positions of a row whose logits exist at one time.
    """

    task: TrainingTask
    architecture: Architecture
    chunk: int

    def resident(self, execution: ExecutionConfig) -> ResidentBytes:
        """Returns the memory of a device between two steps."""
        mesh = abstract_mesh(execution)
        leaves, frozen = abstract_leaves(self.task, mesh)
        trainable, state = device_bytes(leaves), abstract_state(self.task, leaves, mesh)
        if execution.obstacle() is None:
            batch = device_bytes(abstract_batch(self.task, execution, mesh))
        else:  # rows that the devices do not divide are counted as if they did
            batch = all_bytes(self.task.row) * execution.batch_size // execution.shards
        best = trainable * self.task.keeps_best
        return ResidentBytes(trainable, device_bytes(frozen), device_bytes(state.optimizer), trainable, batch, best)

    def step(self, execution: ExecutionConfig) -> StepBytes:
        """Returns the memory that a device needs in addition during a step."""
        layers, row = self.architecture.decoder.layers, self.task.row
        trainable = device_bytes(abstract_leaves(self.task, abstract_mesh(execution))[0])
        sums = execution.micro_batches > 1
        stored, whole = self.saved(execution), self.saved(execution._replace(remat=self.task.policies[0]))
        logits = 3 * 4 * execution.rows * self.chunk * self.architecture.vocab // execution.tensor
        working = _gathered(self.task, self.architecture, execution) + max(whole.layers // layers, logits)
        working += _gathered_keys(self.task, self.architecture, execution)
        return StepBytes(
            trainable * (1 + sums),
            stored.layers + stored.others,
            max(working, _tower(self.architecture, row, execution)),
            trainable,
        )

    def saved(self, execution: ExecutionConfig) -> SavedBytes:
        """Returns the memory that the forward pass of one device's rows of a micro-batch stores, without parameters."""
        flat, decoder = tree.flatten(self.task.abstract), self.architecture.decoder
        known = {(leaf.shape, leaf.dtype) for leaf in flat.values()}
        weights, wide = {leaf.shape for leaf in flat.values()}, {decoder.mlp, decoder.query, decoder.heads}
        layers = others = 0
        for found in self._residuals(execution.rows, execution.remat):
            if (found.shape, found.dtype) in known:
                continue
            shards = execution.tensor if wide & set(found.shape[1:]) else 1
            shards = execution.fsdp * execution.tensor if found.shape in weights else shards
            size = math.prod(found.shape) * np.dtype(found.dtype).itemsize // (shards * execution.sequence)
            if found.ndim > 1 and found.shape[0] == decoder.layers:
                layers += size
            else:
                others += size
        return SavedBytes(layers, others)

    @functools.cache  # noqa: B019 - lives as long as a plan
    def _residuals(self, rows: int, remat: str) -> list[jax.ShapeDtypeStruct]:
        """Returns the shapes of the arrays that `jax.vjp` of the loss stores for so many rows."""
        flat, loss = tree.flatten(self.task.abstract), self.task.loss(remat, None)
        leaves = {path: flat[path] for path in tree.matching(flat, self.task.trainable)}
        frozen = {path: leaf for path, leaf in flat.items() if path not in leaves}

        def pull(leaves: Any, frozen: Any, batch: Any) -> Any:
            return jax.vjp(lambda learning: loss(tree.join(learning, frozen), batch)[0].sum(), leaves)[1]

        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype), self.task.row)
        return jax.tree.leaves(jax.eval_shape(pull, leaves, frozen, batch))


def _tower(architecture: Architecture, row: Batch, execution: ExecutionConfig) -> int:
    """Returns the memory of a frozen vision tower, which stores nothing: its stream, one MLP, and one block of scores twice."""
    if architecture.tower is None or row.images is None:
        return 0
    stack, work = architecture.tower, architecture.images
    stream = work.vectors * (4 * stack.width + 2 * stack.mlp) * architecture.itemsize
    return execution.rows * (stream + 2 * 4 * stack.heads * work.largest)


def _gathered_keys(task: TrainingTask, architecture: Architecture, execution: ExecutionConfig) -> int:
    """Returns the memory of the keys and values of whole rows in one layer, and their gradients, where devices share rows."""
    if execution.sequence == 1:
        return 0
    tokens = execution.rows * task.row.tokens.shape[0]
    return 4 * tokens * architecture.decoder.key * architecture.itemsize // execution.tensor


def _gathered(task: TrainingTask, architecture: Architecture, execution: ExecutionConfig) -> int:
    """Returns the memory of one gathered layer and its gradients before they are summed; likewise of the largest table."""
    if execution.fsdp * execution.sequence == 1:
        return 0
    flat = tree.flatten(task.abstract)
    learning = tree.matching(flat, task.trainable)
    layers = [path for path in flat if "layers/" in path]
    numbers = sum(math.prod(flat[path].shape) for path in layers) // architecture.decoder.layers
    gradients = 4 * numbers * bool(set(layers) & set(learning))
    table = architecture.vocab * architecture.decoder.width
    table_gradient = 4 * table * any("embed" in path for path in learning)
    return (
        numbers * architecture.itemsize + gradients + table * architecture.itemsize + table_gradient
    ) // execution.tensor
