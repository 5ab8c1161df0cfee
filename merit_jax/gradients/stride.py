"""The paper's compressor: one entry in every s of the gradient."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from merit_jax.core.sharding import to_host
from merit_jax.core.types import Array, Leaves
from merit_jax.gradients.compressor import Compressor, LeafShardings, first_indices, mesh_axes, parts_along


@dataclasses.dataclass(frozen=True)
class Stride(Compressor):
    """One entry in every s: those whose indices in the leaf sum to a multiple of s, in path order (MERIT §4.1: s = 5).

    Along every axis of a leaf every s-th entry is kept, each time from another start, so that no row and no column of a
    kernel is kept more than another. `x[..., ::s]` would keep whole columns, a much worse sample of the gradient.

    Attributes:
        stride: s.

    Examples:
        >>> kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> Stride(2)({"b": np.arange(5, dtype=np.float32), "a": kernel}).tolist()
        [0.0, 2.0, 4.0, 0.0, 2.0, 4.0]
        >>> Stride(3)({"a": kernel}).tolist()
        [0.0, 5.0]
    """

    stride: int
    definition = "entries whose indices sum to a multiple of the stride"

    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """Takes each device's own entries of a leaf, at most one of every s along the last axis; 0 where there is none."""
        return {path: self._leaf(leaf, layout[path]) for path, leaf in leaves.items()}

    def row(self, kept: Leaves, layout: LeafShardings) -> Float[np.ndarray, " d"]:
        """Joins the leaves, in path order, without the padding."""
        row, start = np.empty(self.size(layout), np.result_type(*(part.dtype for part in kept.values()))), 0
        for path in sorted(kept):
            part = to_host(kept[path])
            real = self._real(layout[path])
            own = part.reshape(-1) if real is None else part[real]
            row[start : start + own.size] = own
            start += own.size
        return row

    def size(self, layout: LeafShardings) -> int:
        """Returns the number of entries that are kept."""
        return sum(self._count(like.shape) for like in layout.values())

    def _count(self, shape: tuple[int, ...]) -> int:
        """Index tuples of a shape whose sum is a multiple of s: sums of residues, axis by axis."""
        sums = [1] + [0] * (self.stride - 1)
        for size in shape:
            residues = [size // self.stride + (rest < size % self.stride) for rest in range(self.stride)]
            sums = [
                sum(sums[(total - rest) % self.stride] * count for rest, count in enumerate(residues))
                for total in range(self.stride)
            ]
        return sums[0]

    def _leaf(self, leaf: Array, like: jax.ShapeDtypeStruct) -> Array:
        def own(part: Array) -> Array:
            starts = first_indices(part, like)
            return self._own(part, sum(starts, jnp.uint32(0)) % jnp.uint32(self.stride))

        if not any(mesh_axes(like)):
            return own(leaf)
        spec = like.sharding.spec
        return jax.shard_map(own, mesh=like.sharding.mesh, in_specs=spec, out_specs=spec)(leaf)

    def _own(self, part: Array, start: Array) -> Array:
        """The entry that is kept of each s along the last axis; in every run of s, at most one has the right sum.

        Args:
            start: Sum of the indices of the part's first entry, modulo s.
        """
        if not part.ndim:
            return part[None]
        lead, size = part.shape[:-1], part.shape[-1]
        blocks = -(-size // self.stride)
        padding = [(0, 0)] * len(lead) + [(0, blocks * self.stride - size)]
        runs = jnp.pad(part, padding).reshape(*lead, blocks, self.stride)
        sums = sum((jax.lax.broadcasted_iota(jnp.uint32, lead, axis) for axis in range(len(lead))), start)
        place = (-sums.astype(jnp.int32)) % self.stride
        chosen = jax.lax.iota(jnp.int32, self.stride) == place[..., None, None]
        return jnp.where(chosen, runs, 0).sum(axis=-1)

    def _real(self, like: jax.ShapeDtypeStruct) -> Bool[np.ndarray, "..."] | None:
        """The places of `device_part`'s result that are entries of the leaf; None where all are."""
        if not like.shape:
            return None
        parts = parts_along(like, mesh_axes(like)[-1])
        size = like.shape[-1] // parts
        if size % self.stride == 0:
            return None
        of_start = np.stack([self._real_places(start, size, parts) for start in range(self.stride)])
        lead: Int[np.ndarray, ...] = np.zeros(like.shape[:-1], np.int64)
        for axis, length in enumerate(lead.shape):
            lead = lead + np.arange(length).reshape([-1 if other == axis else 1 for other in range(lead.ndim)])
        return of_start[lead % self.stride]

    def _real_places(self, lead: int, size: int, parts: int) -> Bool[np.ndarray, " n"]:
        """The same along the last axis, where the other indices sum to `lead`."""
        first = (-(lead + size * np.arange(parts))) % self.stride
        places = first[:, None] + self.stride * np.arange(math.ceil(size / self.stride))
        return (places < size).reshape(-1)
