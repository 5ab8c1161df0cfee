"""A sketch of a gradient whose size does not grow with the model."""

import dataclasses
import hashlib
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int32, UInt32

from merit_jax.core.sharding import to_host
from merit_jax.core.types import Array, Leaves
from merit_jax.gradients.compressor import Compressor, LeafShardings, first_indices, is_first_copy

BLOCK = 2**16
"""Entries of a leaf that are hashed at a time."""

WORD = 2**32
"""Rows, and columns, that a hash tells apart."""


@dataclasses.dataclass(frozen=True)
class CountSketch(Compressor):
    """A CountSketch of all entries (Charikar et al. 2002): inner products are kept in expectation.

    Bucket and sign of an entry are hashes of its leaf's path, its row (all but its last index) and its column, so they
    depend on neither the number of devices nor the other leaves. The variance of a sketched cosine is at most 2 / width.
    Each device sketches its own entries; the sketches are summed.

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
    definition = "hashes of path, row and column"

    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """Computes the sketch, called "sketch".

        Raises:
            ValueError: A leaf has more rows or columns than a hash tells apart.
        """
        for path, like in layout.items():
            if math.prod(like.shape[:-1]) > WORD or (like.shape or (1,))[-1] > WORD:
                raise ValueError(f"{path}: a leaf of shape {like.shape} has more than 2^32 rows or columns to sketch")
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

    def places(
        self, path: str, rows: UInt32[Array, "..."], columns: UInt32[Array, "..."]
    ) -> tuple[Int32[Array, "..."], Float[Array, "..."]]:
        """Returns bucket and sign of entries of a leaf, by their rows (all indices but the last, flattened) and columns."""
        return self._of_hash(_hash(rows, columns, _keys(path)))

    def _of_hash(self, bits: UInt32[Array, "..."]) -> tuple[Int32[Array, "..."], Float[Array, "..."]]:
        bucket = ((bits & jnp.uint32(2**31 - 1)) % jnp.uint32(self.width)).astype(jnp.int32)
        return bucket, 1.0 - 2.0 * (bits >> 31).astype(jnp.float32)

    def _own(self, leaves: Leaves, layout: LeafShardings) -> Float[Array, " width"]:
        """The sketch of a device's entries; of copies of a leaf, the first counts."""
        total = jnp.zeros(self.width, jnp.float32)
        for path in sorted(leaves):
            add = partial(self._leaf, leaf=leaves[path], like=layout[path], path=path)
            total = jax.lax.cond(is_first_copy(layout[path]), add, lambda total: total, total)
        return total

    def _leaf(
        self, total: Float[jax.Array, " width"], leaf: Array, like: jax.ShapeDtypeStruct, path: str
    ) -> Float[jax.Array, " width"]:
        """Adds the entries of a leaf, or of a device's part of it, some rows at a time."""
        starts, shape = first_indices(leaf, like) or [jnp.uint32(0)], leaf.shape or (1,)
        matrix = leaf.reshape(-1, shape[-1])
        row_of = _flat_index(shape[:-1], starts[:-1], like.shape[:-1])
        rows, columns = matrix.shape
        block = min(rows, max(1, BLOCK // columns))

        def add(start: Any, total: jax.Array, count: int) -> jax.Array:
            place = jax.lax.dynamic_slice(row_of, (start,), (count,))[:, None]
            bucket, sign = self.places(path, place, (starts[-1] + jax.lax.iota(jnp.uint32, columns))[None])
            own = jax.lax.dynamic_slice(matrix, (start, 0), (count, columns)).astype(jnp.float32)
            return total.at[bucket].add(sign * own)

        total = jax.lax.fori_loop(0, rows // block, lambda i, total: add(i * block, total, block), total)
        return add(rows - rows % block, total, rows % block) if rows % block else total


def _flat_index(lead: tuple[int, ...], starts: list[Any], shape: tuple[int, ...]) -> UInt32[Array, " r"]:
    """Row, in the leaf, of each row of a device's part."""
    index = jnp.zeros(lead, jnp.uint32)
    for axis, start in enumerate(starts):
        index = index * jnp.uint32(shape[axis]) + start + jax.lax.broadcasted_iota(jnp.uint32, lead, axis)
    return index.reshape(-1)


def _keys(path: str) -> np.ndarray:
    """Two words for each leaf, by which its hashes are independent of other leaves'."""
    return np.frombuffer(hashlib.sha256(path.encode()).digest()[:8], "<u4")


def _hash(rows: UInt32[Array, "..."], columns: UInt32[Array, "..."], keys: np.ndarray) -> UInt32[Array, "..."]:
    """Hashes (leaf, row, column): the exclusive or of a word for each row and one for each column, mixed once more.

    As in tabulation hashing (Zobrist 1970; Patrascu and Thorup 2012). Each index is mixed under a key of its leaf before
    they meet, so that the entries of two leaves, or of two rows, that have the same hash follow no pattern.
    """
    return _mix(_mix(rows ^ jnp.uint32(keys[0])) ^ _mix(_mix(columns) ^ jnp.uint32(keys[1])))


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """murmur3's finaliser."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
