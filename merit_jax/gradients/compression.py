"""Compressors of gradients: coordinates are taken on the devices of each leaf and put together on the host.

A compressor is a linear map. No leaf is gathered for it, and no device holds more of the result than of the gradient.
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
"""Path -> shape of the leaf, and its `NamedSharding`; None where it is not sharded."""


class Compressor(ABC):
    """A linear map from gradient leaves to the coordinates that are kept."""

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
class Stride(Compressor):
    """A stride along the last axis: `x[..., ::s]` of every leaf, in path order (MERIT §4.1: s = 5).

    Attributes:
        stride: s.

    Examples:
        >>> Stride(2)({"b": np.arange(5, dtype=np.float32), "a": np.array([[7, 8, 9]], np.float32)}).tolist()
        [7.0, 9.0, 0.0, 2.0, 4.0]
    """

    stride: int

    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """Takes each device's own entries of a leaf; where the last axis is sharded, padded to the same number on each."""
        return {path: self._leaf(leaf, layout[path]) for path, leaf in leaves.items()}

    def row(self, kept: Leaves, layout: LeafShardings) -> Float[np.ndarray, " d"]:
        """Joins the leaves, in path order, without the padding."""
        row, start = np.empty(self.size(layout), np.result_type(*(part.dtype for part in kept.values()))), 0
        for path in sorted(kept):
            part, real = to_host(kept[path]), self._real(layout[path])
            part = part if real.all() else part[..., real]
            row[start : start + part.size] = part.reshape(-1)
            start += part.size
        return row

    def size(self, layout: LeafShardings) -> int:
        """Returns the number of entries that are kept."""
        return sum(math.prod(like.shape[:-1]) * -(-like.shape[-1] // self.stride) for like in layout.values())

    def _leaf(self, leaf: Array, like: jax.ShapeDtypeStruct) -> Array:
        axes = _axes(like)[-1]
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
        """The places along the last axis of `device_part`'s result that are entries of the leaf."""
        parts = _parts(like, _axes(like)[-1])
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

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> u, v = rng.standard_normal((2, 10_000)).astype(np.float32)
        >>> sketch = CountSketch(4096)
        >>> a, b = sketch({"w": u}), sketch({"w": u + v})
        >>> round(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 1)
        0.7
    """

    width: int

    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """Computes the sketch, called "sketch"."""
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
        """Returns the sketch."""
        return to_host(kept["sketch"])

    def size(self, layout: LeafShardings) -> int:
        """Returns the width."""
        return self.width

    def _own(self, leaves: Leaves, layout: LeafShardings) -> Float[Array, " width"]:
        """The sketch of a device's entries; of copies of a leaf, the first counts."""
        total = jnp.zeros(self.width, jnp.float32)
        for path in sorted(leaves):
            add = partial(self._leaf, leaf=leaves[path], like=layout[path], seed=zlib.crc32(path.encode()))
            total = jax.lax.cond(_is_first(layout[path]), add, lambda total: total, total)
        return total

    def _leaf(
        self, total: Float[jax.Array, " width"], leaf: Array, like: jax.ShapeDtypeStruct, seed: int
    ) -> Float[jax.Array, " width"]:
        """Adds the entries of a leaf, or of a device's part of it, some rows at a time."""
        starts, matrix = _starts(leaf, like), leaf.reshape(-1, leaf.shape[-1])
        first = _places(leaf.shape[:-1], starts[:-1], like.shape) + starts[-1]
        rows, columns = matrix.shape
        block = min(rows, max(1, BLOCK // columns))

        def add(start: Any, total: jax.Array, count: int) -> jax.Array:
            places = jax.lax.dynamic_slice(first, (start,), (count,))[:, None] + jax.lax.iota(jnp.uint32, columns)
            bits = _hash(places, seed)
            sign = 1.0 - 2.0 * (bits >> 31).astype(jnp.float32)
            bucket = (bits % jnp.uint32(self.width)).astype(jnp.int32)
            return total.at[bucket].add(sign * jax.lax.dynamic_slice(matrix, (start, 0), (count, columns)))

        total = jax.lax.fori_loop(0, rows // block, lambda i, total: add(i * block, total, block), total)
        return add(rows - rows % block, total, rows % block) if rows % block else total


@dataclasses.dataclass(frozen=True)
class Concatenated(Compressor):
    """Several compressors of the same gradient, their rows joined.

    Attributes:
        parts: The compressors.

    Examples:
        >>> Concatenated((Stride(2), Stride(3)))({"w": np.arange(6, dtype=np.float32)}).tolist()
        [0.0, 2.0, 4.0, 0.0, 3.0]
    """

    parts: tuple[Compressor, ...]

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


def make_compressor(name: str, *, stride: int, width: int) -> Compressor:
    """Makes the compressor that config key `gradients.reduction` names, with its own of the two settings.

    Raises:
        ValueError: There is no such compressor.

    Examples:
        >>> make_compressor("stride", stride=5, width=64)
        Stride(stride=5)
    """
    makers: dict[str, Callable[[], Compressor]] = {
        "stride": lambda: Stride(stride),
        "countsketch": lambda: CountSketch(width),
    }
    return lookup(makers, name, "gradients.reduction")()


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


def _axes(like: jax.ShapeDtypeStruct) -> list[tuple[str, ...]]:
    """Per dimension, the mesh axes over which it is sharded."""
    spec = () if like.sharding is None else like.sharding.spec
    named = [(axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in spec]
    return named + [()] * (len(like.shape) - len(named))


def _parts(like: jax.ShapeDtypeStruct, axes: Sequence[str]) -> int:
    return math.prod(like.sharding.mesh.shape[axis] for axis in axes)


def _is_first(like: jax.ShapeDtypeStruct) -> Any:
    """True on the first of the devices that hold the same part."""
    used = {axis for axes in _axes(like) for axis in axes}
    copies = () if like.sharding is None else tuple(axis for axis in like.sharding.mesh.axis_names if axis not in used)
    return jax.lax.axis_index(copies) == 0 if copies else True


def _starts(part: Array, like: jax.ShapeDtypeStruct) -> list[Any]:
    """First index of a device's part in the leaf, uint32 per dimension."""
    return [
        jnp.uint32(jax.lax.axis_index(axes) * size) if axes else jnp.uint32(0)
        for axes, size in zip(_axes(like), part.shape, strict=True)
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
