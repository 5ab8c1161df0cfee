"""Describes the sharding of a training step: everything that may change so that a model fits, and each device's part."""

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
    """Sharding, batching and recomputation of a training step.

    Attributes:
        data: Devices with replicas of the parameters, `mesh.data`.
        fsdp: Devices over which parameters and rows are sharded, `mesh.fsdp`.
        tensor: Devices over which the width of layers is sharded, `mesh.tensor`.
        batch_size: Rows of a step, `train.batch_size`.
        micro_batches: Parts of a batch, `train.micro_batches`.
        remat: The policy by which layers are recomputed, `model.remat`.
        sequence: Devices over which the tokens of a row, and the parameters, are sharded, `mesh.sequence`.
    """

    data: int
    fsdp: int
    tensor: int
    batch_size: int
    micro_batches: int
    remat: str
    sequence: int = 1

    @property
    def mesh(self) -> tuple[int, int, int, int]:
        """Sizes of the mesh's axes."""
        return self.data, self.fsdp, self.tensor, self.sequence

    @property
    def shards(self) -> int:
        """Devices over which the rows of a batch are sharded."""
        return self.data * self.fsdp

    @property
    def rows(self) -> int:
        """Rows of a micro-batch on one device."""
        return self.batch_size // self.micro_batches // self.shards

    def obstacle(self) -> str | None:
        """Returns the reason why a step cannot be sharded so; None if it can."""
        if self.batch_size % self.micro_batches:
            return f"train.micro_batches = {self.micro_batches} does not divide train.batch_size = {self.batch_size}"
        return sharding.uneven_rows(self.batch_size // self.micro_batches, self.shards)


class TrainingTask(NamedTuple):
    """A model and its training, without weights or data.

    Attributes:
        abstract: Tree of the parameters' shapes and types.
        logical_axes: Tree of their logical axis names.
        trainable: Regular expressions over parameter paths.
        optimizer: The optimizer.
        loss: (remat, mesh, or None where there are no devices) -> the loss.
        row: Shapes and types of one row of a batch.
        policies: Values of `model.remat`, from nothing recomputed to most.
        average: What the loss of a step averages over, as `train.average` names it.
        datasets: Datasets whose losses a step sums apart; 0: none.
        keeps_best: Whether the best state is kept, for early stopping.
    """

    abstract: Any
    logical_axes: Any
    trainable: tuple[str, ...]
    optimizer: optax.GradientTransformation
    loss: Callable[[str, Mesh | None], LossFn]
    row: Batch
    policies: tuple[str, ...]
    average: str = "token"
    datasets: int = 0
    keeps_best: bool = False


def text_row(length: int, images: Any = None, *, owned: bool = False) -> Batch:
    """Returns the shapes and types of one row; an owned one says which dataset each token is from."""
    ids: Any = jax.ShapeDtypeStruct((length,), jnp.int32)
    mask: Any = jax.ShapeDtypeStruct((length,), jnp.float32)
    return Batch(ids, ids, mask, ids, ids, images, ids if owned else None)


def abstract_mesh(execution: ExecutionConfig) -> AbstractMesh:
    """Returns the mesh of an execution, without devices."""
    return AbstractMesh(execution.mesh, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 4)


Shapes = dict[str, jax.ShapeDtypeStruct]
"""Some leaves, flat: path name -> shape, type and sharding."""


def abstract_leaves(task: TrainingTask, mesh: Mesh | AbstractMesh) -> tuple[Shapes, Shapes]:
    """Returns the trainable and the frozen leaves."""
    axes, leaves = tree.flatten(task.logical_axes), tree.flatten(task.abstract)
    shapes = {path: _sharded(leaf, axes[path], mesh, path) for path, leaf in leaves.items()}
    chosen = set(tree.matching(shapes, task.trainable))
    learning = {path: leaf for path, leaf in shapes.items() if path in chosen}
    return learning, {path: leaf for path, leaf in shapes.items() if path not in chosen}


def _sharded(leaf: Any, axes: tuple[str | None, ...], mesh: Mesh | AbstractMesh, path: str) -> Any:
    """Returns a leaf with its sharding; of one in a few bits, its numbers and their scales each with theirs."""

    def place(x: Any) -> jax.ShapeDtypeStruct:
        return _placed(x, NamedSharding(mesh, sharding.spec(axes, x.shape, mesh, path)))

    return jax.tree.map(place, leaf)


def abstract_state(task: TrainingTask, leaves: Any, mesh: Mesh | AbstractMesh) -> TrainState:
    """Returns the state of training as shapes with shardings."""
    shardings = sharding.of_optimizer(task.optimizer, leaves, mesh)
    optimizer = jax.tree.map(_placed, jax.eval_shape(task.optimizer.init, leaves), shardings)
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    return TrainState(step, leaves, optimizer)


def abstract_batch(task: TrainingTask, execution: ExecutionConfig, mesh: Mesh | AbstractMesh) -> Batch:
    """Returns a batch [micro-batches, rows, ...] as shapes with shardings."""
    leading = (execution.micro_batches, execution.batch_size // execution.micro_batches)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype), task.row)
    return jax.tree.map(_placed, shapes, sharding.of_batch(shapes, mesh, leading=1))


def device_bytes(shapes: Any) -> int:
    """Returns the bytes of one device's shards of arrays."""
    return sum(bits(x.dtype) * math.prod(x.sharding.shard_shape(x.shape)) // 8 for x in jax.tree.leaves(shapes))


def bits(dtype: Any) -> int:
    """Returns the bits of a number, 4 of one of four bits, which XLA packs in pairs.

    Examples:
        >>> bits(jnp.uint4), bits(jnp.bfloat16)
        (4, 16)
    """
    return jnp.iinfo(dtype).bits if jnp.issubdtype(dtype, jnp.integer) else 8 * jnp.dtype(dtype).itemsize


def all_bytes(shapes: Any) -> int:
    """Returns the bytes of whole arrays."""
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(shapes))


def _placed(leaf: Any, placement: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement)
