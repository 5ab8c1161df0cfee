"""The interface of compressors: coordinates are taken on the devices of each leaf and put together on the host.

A compressor is a linear map. No leaf is gathered for it, and no device holds more of the result than of the gradient.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Float

from merit_jax.core.types import Array, Leaves

LeafShardings = Mapping[str, jax.ShapeDtypeStruct]
"""Path -> shape of the leaf, and its `NamedSharding`; None where it is not sharded."""


class Compressor(ABC):
    """A linear map from gradient leaves to the coordinates that are kept.

    Attributes:
        definition: The coordinates, in words; stored gradients of another definition cannot be compared with them.
    """

    definition: str

    @abstractmethod
    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """Computes the device's part, inside a compilation; linear in the leaves."""

    @abstractmethod
    def row(self, kept: Leaves, layout: LeafShardings) -> Float[np.ndarray, " d"]:
        """Puts the results of `device_part` into one vector, on the host."""

    @abstractmethod
    def size(self, layout: LeafShardings) -> int:
        """Returns the number of coordinates of a row, d."""

    def __call__(self, leaves: Leaves) -> Float[np.ndarray, " d"]:
        """Compresses concrete leaves, on the devices or on the host, to a row."""
        layout = leaf_shardings(leaves)
        return self.row(_compiled(self, tuple(layout.items()))(leaves), layout)


@dataclasses.dataclass(frozen=True)
class Concatenated(Compressor):
    """Several compressors of the same gradient, their rows joined.

    Attributes:
        parts: The compressors.
    """

    parts: tuple[Compressor, ...]

    @property
    def definition(self) -> str:  # type: ignore[override]
        """The definitions of the parts."""
        return "; ".join(part.definition for part in self.parts)

    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """Computes each one's part, under its number."""
        return {
            f"{number}/{path}": leaf
            for number, part in enumerate(self.parts)
            for path, leaf in part.device_part(leaves, layout).items()
        }

    def row(self, kept: Leaves, layout: LeafShardings) -> Float[np.ndarray, " d"]:
        """Joins their rows, in order."""
        own: list[Leaves] = [{} for _ in self.parts]
        for name, leaf in kept.items():
            number, _, path = name.partition("/")
            own[int(number)][path] = leaf
        return np.concatenate([part.row(leaves, layout) for part, leaves in zip(self.parts, own, strict=True)])

    def size(self, layout: LeafShardings) -> int:
        """Returns the number of their coordinates together."""
        return sum(part.size(layout) for part in self.parts)


@lru_cache(maxsize=4)
def _compiled(
    compressor: Compressor, layout: tuple[tuple[str, jax.ShapeDtypeStruct], ...]
) -> Callable[[Leaves], Leaves]:
    return jax.jit(lambda leaves: compressor.device_part(leaves, dict(layout)))


def leaf_shardings(leaves: Leaves) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and shardings of concrete leaves."""
    return {
        path: jax.ShapeDtypeStruct(leaf.shape, np.float32, sharding=_sharding(leaf)) for path, leaf in leaves.items()
    }


def _sharding(leaf: Array) -> NamedSharding | None:
    found = getattr(leaf, "sharding", None)
    return found if isinstance(found, NamedSharding) and found.mesh.size > 1 else None


def mesh_axes(like: jax.ShapeDtypeStruct) -> list[tuple[str, ...]]:
    """Returns, for each dimension of a leaf, the mesh axes over which it is sharded."""
    spec = () if like.sharding is None else like.sharding.spec
    named = [(axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in spec]
    return named + [()] * (len(like.shape) - len(named))


def parts_along(like: jax.ShapeDtypeStruct, axes: Sequence[str]) -> int:
    """Returns the number of parts into which mesh axes cut a dimension."""
    return math.prod(like.sharding.mesh.shape[axis] for axis in axes)


def first_indices(part: Array, like: jax.ShapeDtypeStruct) -> list[Any]:
    """Returns the index in the leaf, along each dimension, of a device's first entry; uint32, inside `shard_map`."""
    return [
        jnp.uint32(jax.lax.axis_index(axes) * size) if axes else jnp.uint32(0)
        for axes, size in zip(mesh_axes(like), part.shape, strict=True)
    ]


def is_first_copy(like: jax.ShapeDtypeStruct) -> Any:
    """Returns True on the first of the devices that hold the same part of a leaf, inside `shard_map`."""
    used = {axis for axes in mesh_axes(like) for axis in axes}
    copies = () if like.sharding is None else tuple(axis for axis in like.sharding.mesh.axis_names if axis not in used)
    return jax.lax.axis_index(copies) == 0 if copies else True
