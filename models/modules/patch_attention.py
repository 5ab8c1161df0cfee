"""Attention among the patches of many images in one row: each to its own image, or to its own window of it."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

DENSE = 1024
"""Most patches of a row for which all pairs are scored at once; above, memory grows with their number alone."""
QUERIES = 256
"""Queries at a time, above `DENSE`, in attention to images."""


def attend(
    query: Float[Array, "b p heads dim"],
    key: Float[Array, "b p heads dim"],
    value: Float[Array, "b p heads dim"],
    segments: Int[Array | np.ndarray, "b p"],
    windows: Int[Array | np.ndarray, "b p"],
    full: Bool[Array, ""],
    most: int,
    implementation: Literal["xla", "cudnn"] | None = None,
) -> Float[Array, "b p heads dim"]:
    """Attends from every patch to the patches of its image if `full`, else to those of its window.

    Args:
        query: Queries of the patches; likewise keys and values.
        segments: Number of the image; 0 on padding.
        windows: Number of the window; 0 on padding. A window's patches are neighbours.
        full: True for images, False for windows.
        most: Largest number of patches in a window.
        implementation: For `jax.nn.dot_product_attention`.
    """
    patches = segments.shape[1]
    if patches <= DENSE:
        groups = jnp.where(full, segments, windows)
        mask = (groups[:, :, None] == groups[:, None, :])[:, None]
        return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)
    block = most * -(-QUERIES // most)
    room = -patches % block
    query, key, value = (jnp.pad(x, ((0, 0), (0, room), (0, 0), (0, 0))) for x in (query, key, value))
    segments, windows = (jnp.pad(x, ((0, 0), (0, room))) for x in (segments, windows))
    to_images = jax.checkpoint(partial(_to_images, block=block, implementation=implementation))
    to_windows = jax.checkpoint(partial(_to_windows, block=most, implementation=implementation))
    seen = jax.lax.cond(full, to_images, to_windows, query, key, value, segments, windows)
    return seen[:, :patches]


def _to_images(
    query: Float[Array, "b p heads dim"],
    key: Float[Array, "b p heads dim"],
    value: Float[Array, "b p heads dim"],
    segments: Int[Array, "b p"],
    windows: Int[Array, "b p"],
    block: int,
    implementation: Literal["xla", "cudnn"] | None,
) -> Float[Array, "b p heads dim"]:
    """Attends to images, `block` queries at a time to all keys."""

    @jax.checkpoint
    def of_block(part: tuple[Array, Array]) -> Array:
        queries, groups = part
        mask = (groups[:, :, None] == segments[:, None, :])[:, None]
        return jax.nn.dot_product_attention(queries, key, value, mask=mask, implementation=implementation)

    seen = jax.lax.map(of_block, (_blocks_first(query, block), _blocks_first(segments, block)))
    return jnp.moveaxis(seen, 0, 1).reshape(query.shape)


def _to_windows(
    query: Float[Array, "b p heads dim"],
    key: Float[Array, "b p heads dim"],
    value: Float[Array, "b p heads dim"],
    segments: Int[Array, "b p"],
    windows: Int[Array, "b p"],
    block: int,
    implementation: Literal["xla", "cudnn"] | None,
) -> Float[Array, "b p heads dim"]:
    """Attends to windows: no window is larger than a block, so each block sees itself and its two neighbours."""

    def blocks(x: Array) -> Array:
        return x.reshape(-1, block, *x.shape[2:])

    def around(x: Array, outside: int) -> Array:
        parts = x.reshape(x.shape[0], -1, block, *x.shape[2:])
        ends = [(0, 0), (1, 1)] + [(0, 0)] * (parts.ndim - 2)
        wide = jnp.pad(parts, ends, constant_values=outside)
        near = jnp.concatenate([wide[:, :-2], wide[:, 1:-1], wide[:, 2:]], axis=2)
        return near.reshape(-1, *near.shape[2:])

    mask = blocks(windows)[:, :, None] == around(windows, -1)[:, None, :]
    seen = jax.nn.dot_product_attention(
        blocks(query), around(key, 0), around(value, 0), mask=mask[:, None], implementation=implementation
    )
    return seen.reshape(query.shape)


def _blocks_first(x: Array, block: int) -> Array:
    """Reshapes [b, p, ...] to [blocks, b, block, ...]."""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, block, *x.shape[2:]), 1, 0)
