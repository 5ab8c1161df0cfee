"""Attention among the patches of many images in one row: each to its own image, or to its own window of it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from merit_jax.models.modules import attention
from merit_jax.models.modules.attention import Implementation, Seen

DENSE = 1024
"""Most patches of a row for which all pairs are scored at once; above, memory grows with their number alone."""
QUERIES = 256
"""Queries at a time, above `DENSE`, in attention to images."""

Among = Callable[[Array, Array, Array, Bool[Array, "b 1 t s"]], Seen]
"""(queries, keys, values, mask) -> attention, as `merit_jax.models.modules.attention.attend` computes it."""


class Rows(NamedTuple):
    """The operands of attention, by patch; fields as the arguments of `attend`."""

    query: Float[Array, "b p heads dim"]
    key: Float[Array, "b p heads dim"]
    value: Float[Array, "b p heads dim"]
    segments: Int[Array, "b p"]
    windows: Int[Array, "b p"]


def attend(
    query: Float[Array, "b p heads dim"],
    key: Float[Array, "b p heads dim"],
    value: Float[Array, "b p heads dim"],
    segments: Int[Array | np.ndarray, "b p"],
    windows: Int[Array | np.ndarray, "b p"],
    full: Bool[Array, ""],
    most: int,
    implementation: Implementation = None,
    entropies: bool = False,
) -> Seen:
    """Attends from every patch to the patches of its image if `full`, else to those of its window.

    Args:
        query: Queries of the patches; likewise keys and values.
        segments: Number of the image; 0 on padding.
        windows: Number of the window; 0 on padding. A window's patches are neighbours.
        full: True for images, False for windows.
        most: Largest number of patches in a window.
        implementation: For `jax.nn.dot_product_attention`.
        entropies: As for `merit_jax.models.modules.attention.attend`.
    """
    patches = segments.shape[1]
    among = partial(attention.attend, implementation=implementation, entropies=entropies)
    if patches <= DENSE:
        return _to_all(query, key, value, jnp.where(full, segments, windows), among)
    block = most * -(-QUERIES // most)
    padded = _padded(block, query, key, value, segments, windows)
    to_images = jax.checkpoint(partial(_to_images, block=block, among=among))
    to_windows = jax.checkpoint(partial(_to_windows, block=most, among=among))
    return _first(patches, jax.lax.cond(full, to_images, to_windows, padded))


def attend_to_images(
    query: Float[Array, "b p heads dim"],
    key: Float[Array, "b p heads dim"],
    value: Float[Array, "b p heads dim"],
    segments: Int[Array, "b p"],
    implementation: Implementation = None,
    entropies: bool = False,
) -> Seen:
    """Attends from every patch to the patches of its image; arguments as for `attend`."""
    patches = segments.shape[1]
    among = partial(attention.attend, implementation=implementation, entropies=entropies)
    if patches <= DENSE:
        return _to_all(query, key, value, segments, among)
    padded = _padded(QUERIES, query, key, value, segments, segments)
    return _first(patches, jax.checkpoint(partial(_to_images, block=QUERIES, among=among))(padded))


def _first(patches: int, seen: Seen) -> Seen:
    """Returns what the first patches see."""
    return jax.tree.map(lambda x: x[:, :patches], seen)


def _padded(block: int, *operands: Array | np.ndarray) -> Rows:
    """Appends patches of padding up to a multiple of `block`."""
    room = -operands[0].shape[1] % block
    return Rows(*(jnp.pad(x, [(0, 0), (0, room)] + [(0, 0)] * (x.ndim - 2)) for x in operands))


def _to_all(
    query: Float[Array, "b p heads dim"],
    key: Float[Array, "b p heads dim"],
    value: Float[Array, "b p heads dim"],
    groups: Int[Array, "b p"],
    among: Among,
) -> Seen:
    """Attends to the patches of the same group, with all pairs scored at once."""
    mask = (groups[:, :, None] == groups[:, None, :])[:, None]
    return among(query, key, value, mask)


def _to_images(rows: Rows, block: int, among: Among) -> Seen:
    """Attends to images, `block` queries at a time to all keys."""

    @jax.checkpoint
    def of_block(part: tuple[Array, Array]) -> Seen:
        queries, groups = part
        mask = (groups[:, :, None] == rows.segments[:, None, :])[:, None]
        return among(queries, rows.key, rows.value, mask)

    seen = jax.lax.map(of_block, (_blocks_first(rows.query, block), _blocks_first(rows.segments, block)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(*rows.segments.shape, *x.shape[3:]), seen)


def _to_windows(rows: Rows, block: int, among: Among) -> Seen:
    """Attends to windows: no window is larger than a block, so each block sees itself and its two neighbours."""

    def blocks(x: Array) -> Array:
        return x.reshape(-1, block, *x.shape[2:])

    def around(x: Array, outside: int) -> Array:
        parts = x.reshape(x.shape[0], -1, block, *x.shape[2:])
        ends = [(0, 0), (1, 1)] + [(0, 0)] * (parts.ndim - 2)
        wide = jnp.pad(parts, ends, constant_values=outside)
        near = jnp.concatenate([wide[:, :-2], wide[:, 1:-1], wide[:, 2:]], axis=2)
        return near.reshape(-1, *near.shape[2:])

    mask = blocks(rows.windows)[:, :, None] == around(rows.windows, -1)[:, None, :]
    query, key, value = blocks(rows.query), around(rows.key, 0), around(rows.value, 0)
    seen = among(query, key, value, mask[:, None])
    return jax.tree.map(lambda x: x.reshape(*rows.segments.shape, *x.shape[2:]), seen)


def _blocks_first(x: Array, block: int) -> Array:
    """Reshapes [b, p, ...] to [blocks, b, block, ...]."""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, block, *x.shape[2:]), 1, 0)
