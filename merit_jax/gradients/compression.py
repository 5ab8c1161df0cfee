"""Which coordinates of a gradient are kept: taken where each leaf lies, put together on the host.

A reduction is a linear map. No leaf is gathered for it, and no device holds more of the result than of the gradient.
"""

import dataclasses
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, UInt32

from merit_jax.core.registry import lookup
from merit_jax.core.sharding import to_host
from merit_jax.core.types import Array, Leaves

BLOCK = 2**16
"""Entries of a leaf that are hashed at a time."""

LeafShardings = Mapping[str, jax.ShapeDtypeStruct]
"""Path -> shape of the leaf, and its `NamedSharding`; None where it is not cut."""


class Compressor(ABC):
    """Gradient leaves -> the coordinates that are kept."""

    @abstractmethod
    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """The device's part, to be called in a compilation; linear in the leaves."""

    @abstractmethod
    def row(self, kept: Leaves, layout: LeafShardings) -> Float[np.ndarray, " d"]:
        """The host's part: what `kept` gave, in one vector."""

    @abstractmethod
    def size(self, layout: LeafShardings) -> int:
        """Coordinates of a row, d."""

    def __call__(self, leaves: Leaves) -> Float[np.ndarray, " d"]:
        """The row of concrete leaves, on the devices or on the host."""
        layout = leaf_shardings(leaves)
        return self.row(_compiled(self, tuple(layout.items()))(leaves), layout)


@dataclasses.dataclass(frozen=True)
class Stride(Compressor):
    """`x[..., ::s]` of every leaf, in path order (MERIT §4.1: s = 5).

    Attributes:
        stride: s.
    """

    stride: int = 5

    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """Per leaf, its own part of each device; where the last axis is cut, padded to the same number on each."""
        return {path: self._leaf(leaf, layout[path]) for path, leaf in leaves.items()}

    def row(self, kept: Leaves, layout: LeafShardings) -> Float[np.ndarray, " d"]:
        """The leaves one after the other, in path order, without the padding."""
        row, start = np.empty(self.size(layout), np.result_type(*(part.dtype for part in kept.values()))), 0
        for path in sorted(kept):
            part, real = to_host(kept[path]), self._real(layout[path])
            part = part if real.all() else part[..., real]
            row[start : start + part.size] = part.reshape(-1)
            start += part.size
        return row

    def size(self, layout: LeafShardings) -> int:
        """Entries that are kept."""
        return sum(math.prod(like.shape[:-1]) * -(-like.shape[-1] // self.stride) for like in layout.values())

    def _leaf(self, leaf: Array, like: jax.ShapeDtypeStruct) -> Array:
        axes = _cuts(like)[-1]
        if not axes:
            return leaf[..., :: self.stride]
        size = like.shape[-1] // _parts(like, axes)

        def own(part: Array) -> Array:
            first = (-jax.lax.axis_index(axes) * size) % self.stride
            places = first + self.stride * jnp.arange(-(-size // self.stride))
            return jnp.take(part, places, axis=-1, mode="fill", fill_value=0)

        spec = like.sharding.spec
        return jax.shard_map(own, mesh=like.sharding.mesh, in_specs=spec, out_specs=spec)(leaf)

    def _real(self, like: jax.ShapeDtypeStruct) -> Bool[np.ndarray, " n"]:
        """Which places along the last axis of what `kept` gave are entries of the leaf."""
        parts = _parts(like, _cuts(like)[-1])
        size = like.shape[-1] // parts
        first = (-size * np.arange(parts)) % self.stride
        places = first[:, None] + self.stride * np.arange(-(-size // self.stride))
        return (places < size).reshape(-1)


@dataclasses.dataclass(frozen=True)
class CountSketch(Compressor):
    """A CountSketch of all entries (Charikar et al. 2002): inner products are kept in expectation.

    Bucket and sign of an entry are hashes of its leaf's path and its place in the leaf, so they depend on neither the
    number of devices nor the other leaves. The variance of a sketched cosine is at most 2 / width. Each device sketches
    its own entries; the sketches are summed.

    Attributes:
        width: Buckets.
    """

    width: int = 2**18

    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """The sketch, as "sketch"."""
        meshes = {like.sharding.mesh for like in layout.values() if like.sharding is not None}
        if not meshes:
            return {"sketch": self._own(leaves, layout)}
        (mesh,) = meshes
        specs = {path: layout[path].sharding.spec for path in leaves}

        def own(leaves: Leaves) -> Array:
            return jax.lax.psum(self._own(leaves, layout), mesh.axis_names)

        whole = jax.shard_map(own, mesh=mesh, in_specs=(specs,), out_specs=PartitionSpec(), check_vma=False)
        return {"sketch": whole(leaves)}

    def row(self, kept: Leaves, layout: LeafShardings) -> Float[np.ndarray, " d"]:
        """The sketch."""
        return to_host(kept["sketch"])

    def size(self, layout: LeafShardings) -> int:
        """The width."""
        return self.width

    def _own(self, leaves: Leaves, layout: LeafShardings) -> Float[Array, " width"]:
        """The sketch of a device's entries; of copies of a leaf, the first counts."""
        total = jnp.zeros(self.width, jnp.float32)
        for path in sorted(leaves):
            add = partial(self._leaf, leaf=leaves[path], like=layout[path], seed=zlib.crc32(path.encode()))
            total = jax.lax.cond(_is_first(layout[path]), add, lambda total: total, total)
        return total

    def _leaf(
        self, total: Float[Array, " width"], leaf: Array, like: jax.ShapeDtypeStruct, seed: int
    ) -> Float[Array, " width"]:
        """Adds the entries of a leaf, or of a device's part of it, some rows at a time."""
        starts, matrix = _starts(leaf, like), leaf.reshape(-1, leaf.shape[-1])
        first = _places(leaf.shape[:-1], starts[:-1], like.shape) + starts[-1]
        rows, columns = matrix.shape
        block = min(rows, max(1, BLOCK // columns))

        def add(start: Any, total: Array, count: int) -> Array:
            places = jax.lax.dynamic_slice(first, (start,), (count,))[:, None] + jax.lax.iota(jnp.uint32, columns)
            bits = _hash(places, seed)
            sign = 1.0 - 2.0 * (bits >> 31).astype(jnp.float32)
            bucket = (bits % jnp.uint32(self.width)).astype(jnp.int32)
            return total.at[bucket].add(sign * jax.lax.dynamic_slice(matrix, (start, 0), (count, columns)))

        total = jax.lax.fori_loop(0, rows // block, lambda i, total: add(i * block, total, block), total)
        return add(rows - rows % block, total, rows % block) if rows % block else total


@dataclasses.dataclass(frozen=True)
class Concatenated(Compressor):
    """Several reductions of the same gradient, one after the other.

    Attributes:
        parts: The reductions.
    """

    parts: tuple[Compressor, ...]

    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """Each one's part, under its number."""
        return {
            f"{number}/{path}": leaf
            for number, part in enumerate(self.parts)
            for path, leaf in part.device_part(leaves, layout).items()
        }

    def row(self, kept: Leaves, layout: LeafShardings) -> Float[np.ndarray, " d"]:
        """Their rows, in order."""
        own: list[Leaves] = [{} for _ in self.parts]
        for name, leaf in kept.items():
            number, _, path = name.partition("/")
            own[int(number)][path] = leaf
        return np.concatenate([part.row(leaves, layout) for part, leaves in zip(self.parts, own, strict=True)])

    def size(self, layout: LeafShardings) -> int:
        """Their coordinates together."""
        return sum(part.size(layout) for part in self.parts)


def make_compressor(name: str, *, stride: int = 5, width: int = 2**18) -> Compressor:
    """The reduction that config key `gradients.reduction` names."""
    makers: dict[str, Callable[[], Compressor]] = {
        "stride": lambda: Stride(stride),
        "countsketch": lambda: CountSketch(width),
    }
    return lookup(makers, name, "gradients.reduction")()


@lru_cache(maxsize=4)
def _compiled(
    reduction: Compressor, layout: tuple[tuple[str, jax.ShapeDtypeStruct], ...]
) -> Callable[[Leaves], Leaves]:
    return jax.jit(lambda leaves: reduction.device_part(leaves, dict(layout)))


def leaf_shardings(leaves: Leaves) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of concrete leaves, and how they are cut."""
    return {
        path: jax.ShapeDtypeStruct(leaf.shape, np.float32, sharding=_sharding(leaf)) for path, leaf in leaves.items()
    }


def _sharding(leaf: Array) -> NamedSharding | None:
    found = getattr(leaf, "sharding", None)
    return found if isinstance(found, NamedSharding) and found.mesh.size > 1 else None


def _cuts(like: jax.ShapeDtypeStruct) -> list[tuple[str, ...]]:
    """Per dimension, the mesh axes along which it is cut."""
    spec = () if like.sharding is None else like.sharding.spec
    named = [(axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in spec]
    return named + [()] * (len(like.shape) - len(named))


def _parts(like: jax.ShapeDtypeStruct, axes: Sequence[str]) -> int:
    return math.prod(like.sharding.mesh.shape[axis] for axis in axes)


def _is_first(like: jax.ShapeDtypeStruct) -> Any:
    """Whether this device is the first of those that hold the same part."""
    cut = {axis for axes in _cuts(like) for axis in axes}
    copies = () if like.sharding is None else tuple(axis for axis in like.sharding.mesh.axis_names if axis not in cut)
    return jax.lax.axis_index(copies) == 0 if copies else True


def _starts(part: Array, like: jax.ShapeDtypeStruct) -> list[Any]:
    """Where in the leaf a device's part begins, uint32 per dimension."""
    return [
        jnp.uint32(jax.lax.axis_index(axes) * size) if axes else jnp.uint32(0)
        for axes, size in zip(_cuts(like), part.shape, strict=True)
    ]


def _places(lead: Sequence[int], starts: Sequence[Any], shape: Sequence[int]) -> UInt32[Array, " r"]:
    """Index, in the flattened leaf, at which each row of a part has the leaf's column 0."""
    index = jnp.zeros(lead, jnp.uint32)
    for axis, start in enumerate(starts):
        index = index * jnp.uint32(shape[axis]) + start + jax.lax.broadcasted_iota(jnp.uint32, lead, axis)
    return index.reshape(-1) * jnp.uint32(shape[-1])


def _hash(index: UInt32[Array, "*n"], seed: int) -> UInt32[Array, "*n"]:
    """murmur3's finaliser of (seed, index)."""
    x = index * jnp.uint32(0x9E3779B1) + jnp.uint32(seed)
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
