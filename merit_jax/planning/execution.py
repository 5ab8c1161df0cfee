"""How a step is laid out over devices: all that may be changed so that a model fits, and what each device then holds of it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from merit_jax.core import sharding, tree
from merit_jax.core.types import Batch, LossFn, TrainState


class ExecutionConfig(NamedTuple):
    """Layout of a training step.

    Attributes:
        data: Devices with copies of the parameters, `mesh.data`.
        fsdp: Devices that share parameters and rows, `mesh.fsdp`.
        tensor: Devices that share the width of layers, `mesh.tensor`.
        batch_size: Rows of a step, `train.batch_size`.
        micro_batches: Parts of a batch, `train.micro_batches`.
        remat: What of a layer is recomputed, `model.remat`.
    """

    data: int
    fsdp: int
    tensor: int
    batch_size: int
    micro_batches: int
    remat: str

    @property
    def mesh(self) -> tuple[int, int, int]:
        """Sizes of the mesh's axes."""
        return self.data, self.fsdp, self.tensor

    @property
    def shards(self) -> int:
        """Devices among which the rows of a batch are dealt."""
        return self.data * self.fsdp

    @property
    def rows(self) -> int:
        """Rows that one device has of a micro-batch."""
        return self.batch_size // self.micro_batches // self.shards

    def obstacle(self) -> str | None:
        """Why a step cannot be laid out so; None if it can."""
        if self.batch_size % self.micro_batches:
            return f"train.micro_batches = {self.micro_batches} does not divide train.batch_size = {self.batch_size}"
        if (self.batch_size // self.micro_batches) % self.shards:
            return (
                f"{self.batch_size // self.micro_batches} rows of a micro-batch cannot be dealt over data x fsdp = "
                f"{self.shards} devices"
            )
        return None


class TrainingTask(NamedTuple):
    """What is trained, without weights or data.

    Attributes:
        abstract: Tree of the parameters' shapes and types.
        logical_axes: Tree of their logical axis names.
        trainable: Regular expressions over parameter paths.
        optimizer: The optimizer.
        loss: (remat, mesh, or None where there are no devices) -> the loss.
        policies: What `model.remat` can be, from nothing recomputed to most.
        row: Shapes and types of one row of a batch.
    """

    abstract: Any
    logical_axes: Any
    trainable: tuple[str, ...]
    optimizer: optax.GradientTransformation
    loss: Callable[[str, Mesh | None], LossFn]
    row: Batch
    policies: tuple[str, ...]


def text_row(length: int, images: Any = None) -> Batch:
    """Shapes and types of one row."""
    ids = jax.ShapeDtypeStruct((length,), jnp.int32)
    return Batch(ids, ids, jax.ShapeDtypeStruct((length,), jnp.float32), ids, ids, images)


def abstract_mesh(setting: ExecutionConfig) -> AbstractMesh:
    """The mesh of a setting, without devices."""
    return AbstractMesh(setting.mesh, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3)


Shapes = dict[str, jax.ShapeDtypeStruct]
"""Some leaves, flat: path name -> shape, type and sharding."""


def abstract_leaves(task: TrainingTask, mesh: Mesh | AbstractMesh) -> tuple[Shapes, Shapes]:
    """Trainable and frozen leaves."""
    where = tree.flatten(sharding.of_params(mesh, task.logical_axes, task.abstract))
    shapes = {path: _placed(leaf, where[path]) for path, leaf in tree.flatten(task.abstract).items()}
    chosen = set(tree.matching(shapes, task.trainable))
    learning = {path: leaf for path, leaf in shapes.items() if path in chosen}
    return learning, {path: leaf for path, leaf in shapes.items() if path not in chosen}


def abstract_state(task: TrainingTask, leaves: Shapes, mesh: Mesh | AbstractMesh) -> TrainState:
    """The state of training as shapes with shardings."""
    where = sharding.of_optimizer(task.optimizer, leaves, mesh)
    optimizer = jax.tree.map(_placed, jax.eval_shape(task.optimizer.init, leaves), where)
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    return TrainState(step, leaves, optimizer)


def abstract_batch(task: TrainingTask, setting: ExecutionConfig, mesh: Mesh | AbstractMesh) -> Batch:
    """A batch [micro-batches, rows, ...] as shapes with shardings."""
    where = NamedSharding(mesh, PartitionSpec(None, sharding.ROWS))
    leading = (setting.micro_batches, setting.batch_size // setting.micro_batches)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype, sharding=where), task.row)


def device_bytes(shapes: Any) -> int:
    """Bytes that one device holds of arrays, by their shardings."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def all_bytes(shapes: Any) -> int:
    """Bytes of whole arrays."""
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(shapes))


def _placed(leaf: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
