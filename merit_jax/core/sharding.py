"""Sharding of arrays: one mesh, one table from logical axis names to mesh axes."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from merit_jax.core import tree
from merit_jax.core.leaves import LeafReader
from merit_jax.core.types import Batch, Params

MESH_AXES = ("data", "fsdp", "tensor", "sequence")

ROWS = ("data", "fsdp")
"""Mesh axes over which the rows of a batch are sharded."""

TOKENS = "sequence"
"""Mesh axis over which the tokens of a row are sharded; its devices share the parameters too, as those of `fsdp` do."""

RULES: Mapping[str, tuple[str, ...]] = {
    "vocab": ("tensor",),
    "embed": ("fsdp", TOKENS),
    "heads": ("tensor",),
    "kv": ("tensor",),
    "mlp": ("tensor",),
    "experts": (),
    "layers": (),
    "norm": (),
}
"""Logical axis name of a parameter's dimension -> mesh axes over which it is sharded (none: kept whole)."""


def make_mesh(
    data: int = 1, fsdp: int = -1, tensor: int = 1, sequence: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
    """Makes a mesh with axes `MESH_AXES`.

    Args:
        data: Devices that hold copies of the parameters and share the rows of a batch.
        fsdp: Devices that share both parameters and rows; -1 takes what the others leave.
        tensor: Devices that share the width of every layer.
        sequence: Devices that share the tokens of every row, and the parameters.
        devices: The devices; None: all.

    Raises:
        ValueError: The sizes do not multiply to the number of devices.
    """
    sizes = mesh_sizes(jax.device_count() if devices is None else len(devices), data, fsdp, tensor, sequence)
    return jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * len(sizes), devices=devices)


def mesh_sizes(
    count: int, data: int = 1, fsdp: int = -1, tensor: int = 1, sequence: int = 1
) -> tuple[int, int, int, int]:
    """Returns sizes of the mesh's axes over `count` devices; arguments as for `make_mesh`.

    Raises:
        ValueError: The sizes do not multiply to the number of devices.

    Examples:
        >>> mesh_sizes(8, data=2)
        (2, 4, 1, 1)
    """
    rest, remainder = divmod(count, data * tensor * sequence)
    sizes = (data, rest if fsdp == -1 else fsdp, tensor, sequence)
    if remainder or np.prod(sizes) != count:
        raise ValueError(
            f"mesh data={data} x fsdp={fsdp} x tensor={tensor} x sequence={sequence} does not cover {count} devices; "
            f"choose sizes whose product is {count} (fsdp=-1 takes what the others leave)"
        )
    return sizes


def spec(
    axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh | AbstractMesh, path: str = "?"
) -> PartitionSpec:
    """Returns the partition of one parameter; a dimension that its mesh axes do not divide is kept whole.

    It names no axis of size 1 and ends with a name, as the result of a compiled step does: its first step and its later ones
    then run the same program.

    Raises:
        ValueError: A logical name is unknown, or two dimensions need one mesh axis.
    """
    unknown = [name for name in axes if name is not None and name not in RULES]
    if unknown:
        raise ValueError(f"parameter {path}: unknown logical axis {unknown[0]!r}; the table has {', '.join(RULES)}")
    wanted = [RULES[name] if name is not None else () for name in axes]
    taken = [axis for names in wanted for axis in names]
    if len(set(taken)) < len(taken):
        raise ValueError(f"parameter {path}: logical axes {axes} put two dimensions on one mesh axis {tuple(wanted)}")
    used = [tuple(axis for axis in names if mesh.shape[axis] > 1) for names in wanted]
    fits: list[Any] = [
        (names if len(names) > 1 else names[0]) if names and not size % _devices(mesh, names) else None
        for names, size in zip(used, shape, strict=True)
    ]
    while fits and fits[-1] is None:
        fits.pop()
    return PartitionSpec(*fits)


def of_params(mesh: Mesh | AbstractMesh, logical_axes: Params, abstract: Params) -> dict[str, Any]:
    """Returns shardings of a params tree, from its tree of logical axis names and its shapes."""
    axes, shapes = tree.flatten(logical_axes), tree.flatten(abstract)
    if axes.keys() != shapes.keys():
        raise ValueError(f"parameters without logical axes or the reverse: {sorted(axes.keys() ^ shapes.keys())}")
    return tree.unflatten(
        {path: NamedSharding(mesh, spec(axes[path], leaf.shape, mesh, path)) for path, leaf in shapes.items()}
    )


def of_optimizer(optimizer: optax.GradientTransformation, leaves: Mapping[str, Any], mesh: Mesh | AbstractMesh) -> Any:
    """Returns shardings of an optimizer's state: what has a leaf's path and shape is sharded as the leaf, all else replicated."""
    replicated = NamedSharding(mesh, PartitionSpec())

    def sharding(keys: tuple[Any, ...], like: jax.ShapeDtypeStruct) -> Any:
        own = [leaves[key.key] for key in keys if isinstance(key, jax.tree_util.DictKey) and key.key in leaves]
        return own[-1].sharding if own and own[-1].shape == like.shape else replicated

    return jax.tree_util.tree_map_with_path(sharding, jax.eval_shape(optimizer.init, leaves))


def place(array: Any, sharding: NamedSharding) -> jax.Array:
    """Places a host array, known whole to every process, as one global array."""
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def load(leaves: LeafReader, shardings: Params) -> dict[str, Any]:
    """Reads params one leaf at a time and places each by `shardings`."""
    targets = tree.flatten(shardings)
    return tree.unflatten({path: place(leaves.read(path), targets[path]) for path in leaves.paths()})


def _devices(mesh: Mesh | AbstractMesh, axes: Sequence[str]) -> int:
    """Returns the number of devices along axes of a mesh."""
    return math.prod(mesh.shape[axis] for axis in axes)


def _check_rows(rows: int, mesh: Mesh) -> None:
    if reason := uneven_rows(rows, _devices(mesh, ROWS)):
        raise ValueError(reason)


def uneven_rows(rows: int, shards: int) -> str | None:
    """Returns the reason why the rows of a batch, or micro-batch, cannot be sharded over so many devices; None if they can."""
    if rows % shards == 0:
        return None
    return f"{rows} rows of a batch cannot be sharded over data x fsdp = {shards} devices; use a multiple of {shards}"


def own_rows(rows: int, mesh: Mesh) -> frozenset[int]:
    """Returns the rows of a batch that devices of this process have a part of.

    They are the same for a batch in micro-batches, of which number i holds every n-th row from i.

    Raises:
        ValueError: The devices do not divide the rows.
    """
    _check_rows(rows, mesh)
    parts = NamedSharding(mesh, PartitionSpec(ROWS)).addressable_devices_indices_map((rows,))
    return frozenset(row for part in parts.values() if part is not None for row in range(rows)[part[0]])


def place_batch(batch: Batch, mesh: Mesh, leading: int = 0) -> Batch:
    """Places a host batch with its rows sharded over `ROWS`, and their tokens over `TOKENS` if it divides them.

    Args:
        batch: Leaves [..., rows, ...], the same on every process.
        mesh: The mesh.
        leading: Axes before the rows, kept whole.

    Raises:
        ValueError: The devices do not divide the rows.
    """
    _check_rows(batch.tokens.shape[leading], mesh)
    return jax.tree.map(place, batch, of_batch(batch, mesh, leading))


def of_batch(batch: Batch, mesh: Mesh | AbstractMesh, leading: int = 0) -> Batch:
    """Returns shardings of a batch; arguments as for `place_batch`, arrays or their shapes."""
    of_rows = PartitionSpec(*[None] * leading, ROWS)
    over = mesh.shape[TOKENS] > 1 and not batch.tokens.shape[leading + 1] % mesh.shape[TOKENS]
    of_tokens = PartitionSpec(*of_rows, TOKENS) if over else of_rows
    specs = jax.tree.map(lambda _: of_tokens, batch._replace(images=None))
    specs = specs._replace(images=jax.tree.map(lambda _: of_rows, batch.images))
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The placement of activations, which the model keeps to.

    Attributes:
        mesh: Makes the mesh; called where a model is traced, so that a config can be read without its devices.
        rows: Mesh axes of rows.
        heads: Mesh axis of attention heads.
        tokens: Mesh axis of the tokens of a row.
    """

    mesh: Callable[[], Mesh]
    rows: tuple[str, ...] = ROWS
    heads: str = "tensor"
    tokens: str = TOKENS

    def keep(self, x: jax.Array) -> jax.Array:
        """Constrains token vectors [rows, tokens, ...] to be sharded as their batch is.

        Without it the compiler may shard the width of token vectors instead, as the embedding's is, and every device holds every
        row. Rows that the devices do not divide are left to the compiler.
        """
        mesh = self.mesh()
        if x.shape[0] % _devices(mesh, self.rows):
            return x
        over = mesh.shape[self.tokens] > 1 and not x.shape[1] % mesh.shape[self.tokens]
        spec = PartitionSpec(self.rows, self.tokens) if over else PartitionSpec(self.rows)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def to_host(array: Any) -> np.ndarray:
    """Returns a possibly sharded array, whole, in this process's memory."""
    if isinstance(array, jax.Array) and isinstance(array.sharding, NamedSharding) and not array.is_fully_addressable:
        array = jax.jit(lambda x: x, out_shardings=NamedSharding(array.sharding.mesh, PartitionSpec()))(array)
    return np.asarray(array)
