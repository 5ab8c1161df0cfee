"""The memory of a training step from shapes alone, where there is no compiler to ask.

What is stored between forward and backward pass is what `jax.vjp` of the run's own loss would store, traced with shapes; the
rest are rules, each named by a field of `Footprint`.
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
    abstract_leaves,
    abstract_mesh,
    abstract_state,
    all_bytes,
    device_bytes,
)
from merit_jax.planning.shapes import Architecture


class ResidentBytes(NamedTuple):
    """What one device holds between two steps, in bytes; exact.

    Attributes:
        trainable: Parameters that learn.
        frozen: The other parameters.
        optimizer: Moments.
        theta0: theta0's trainable parameters, kept beside for the distance from them.
        batch: One batch.
    """

    trainable: int
    frozen: int
    optimizer: int
    theta0: int
    batch: int


class StepBytes(NamedTuple):
    """What one device needs besides while it takes a step, in bytes; estimated.

    Attributes:
        gradients: Gradients, and the sums over micro-batches.
        saved: Activations stored between forward and backward pass.
        working: Activations and gathered parameters of the layer that is worked on, its logits, and its gradients before they
            are summed.
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


class Saved(NamedTuple):
    """Bytes stored for the backward pass.

    Attributes:
        layers: Of arrays that have the decoder's layers on a leading axis.
        others: Of the rest.
    """

    layers: int
    others: int


@dataclasses.dataclass(frozen=True, eq=False)
class Estimator:
    """Estimates of one task in many settings; the model is traced once for each number of rows.

    Attributes:
        task: What is trained.
        architecture: Sizes of the model's blocks.
        chunk: Positions of a row whose logits exist at one time.
    """

    task: TrainingTask
    architecture: Architecture
    chunk: int

    def held(self, setting: ExecutionConfig) -> ResidentBytes:
        """What a device holds between two steps."""
        mesh = abstract_mesh(setting)
        leaves, frozen = abstract_leaves(self.task, mesh)
        trainable, state = device_bytes(leaves), abstract_state(self.task, leaves, mesh)
        batch = all_bytes(self.task.row) * setting.batch_size // setting.shards
        return ResidentBytes(trainable, device_bytes(frozen), device_bytes(state.optimizer), trainable, batch)

    def passing(self, setting: ExecutionConfig) -> StepBytes:
        """What a device needs besides while it takes a step."""
        layers, row = self.architecture.decoder.layers, self.task.row
        trainable = device_bytes(abstract_leaves(self.task, abstract_mesh(setting))[0])
        sums = setting.micro_batches > 1
        stored, whole = self.saved(setting), self.saved(setting._replace(remat=self.task.policies[0]))
        logits = 3 * 4 * setting.rows * self.chunk * self.architecture.vocab // setting.tensor
        working = _gathered(self.task, self.architecture, setting) + max(whole.layers // layers, logits)
        return StepBytes(
            trainable * (1 + sums),
            stored.layers + stored.others,
            max(working, _tower(self.architecture, row, setting)),
            trainable,
        )

    def saved(self, setting: ExecutionConfig) -> Saved:
        """What the backward pass of one device's rows of a micro-batch needs of the forward pass, parameters left out."""
        flat, decoder = tree.flatten(self.task.abstract), self.architecture.decoder
        known = {(leaf.shape, leaf.dtype) for leaf in flat.values()}
        weights, wide = {leaf.shape for leaf in flat.values()}, {decoder.mlp, decoder.query, decoder.heads}
        layers = others = 0
        for found in self._residuals(setting.rows, setting.remat):
            if (found.shape, found.dtype) in known:
                continue
            cut = setting.tensor if wide & set(found.shape[1:]) else 1
            cut = setting.fsdp * setting.tensor if found.shape in weights else cut
            size = math.prod(found.shape) * np.dtype(found.dtype).itemsize // cut
            if found.ndim > 1 and found.shape[0] == decoder.layers:
                layers += size
            else:
                others += size
        return Saved(layers, others)

    @functools.cache  # noqa: B019 - lives as long as a plan
    def _residuals(self, rows: int, remat: str) -> list[jax.ShapeDtypeStruct]:
        """Shapes of what `jax.vjp` of the loss stores for so many rows."""
        flat, loss = tree.flatten(self.task.abstract), self.task.loss(remat, None)
        leaves = {path: flat[path] for path in tree.matching(flat, self.task.trainable)}
        frozen = {path: leaf for path, leaf in flat.items() if path not in leaves}

        def pull(leaves: Any, frozen: Any, batch: Any) -> Any:
            return jax.vjp(lambda learning: loss(tree.join(learning, frozen), batch)[0].sum(), leaves)[1]

        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype), self.task.row)
        return jax.tree.leaves(jax.eval_shape(pull, leaves, frozen, batch))


def _tower(architecture: Architecture, row: Batch, setting: ExecutionConfig) -> int:
    """A frozen vision tower keeps nothing; while it works it holds its stream, one MLP, and one block of scores twice."""
    if architecture.tower is None or row.images is None:
        return 0
    stack, work = architecture.tower, architecture.images
    stream = work.vectors * (4 * stack.width + 2 * stack.mlp) * architecture.itemsize
    return setting.rows * (stream + 2 * 4 * stack.heads * work.largest)


def _gathered(task: TrainingTask, architecture: Architecture, setting: ExecutionConfig) -> int:
    """Where parameters are cut: one layer of them whole, and its gradients before they are summed; likewise the largest table."""
    if setting.fsdp == 1:
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
    ) // setting.tensor
