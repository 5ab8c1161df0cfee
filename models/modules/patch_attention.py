"""Attention among the patches of many images in one row: each to its own image, or to its own window of it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from merit_jax.models.modules import attention
from merit_jax.models.modules.attention import LONGEST, Seen
from merit_jax.models.modules.visible import in_groups


def attend(
    query: Float[Array, "b p heads dim"],
    key: Float[Array, "b p heads dim"],
    value: Float[Array, "b p heads dim"],
    segments: Int[Array | np.ndarray, "b p"],
    windows: Int[Array | np.ndarray, "b p"],
    full: Bool[Array, ""],
    most: int,
    implementation: str = "auto",
    entropies: bool = False,
) -> Seen:
    """Attends from every patch to the patches of its image if `full`, else to those of its window.

    Args:
        query: Queries of the patches; likewise keys and values.
        segments: Number of the image; 0 on padding.
        windows: Number of the window; 0 on padding. A window's patches are neighbours.
        full: True for images, False for windows.
        most: Largest number of patches in a window.
        implementation: As for `merit_jax.models.modules.attention.attend`.
        entropies: As for `merit_jax.models.modules.attention.attend`.
    """
    among = partial(attention.attend, implementation=implementation, entropies=entropies)
    if segments.shape[1] <= LONGEST["auto"]:
        return among(query, key, value, in_groups(jnp.where(full, segments, windows)))
    to_images = partial(
        attend_to_images, segments=jnp.asarray(segments), implementation=implementation, entropies=entropies
    )
    to_windows = partial(_to_windows, windows=jnp.asarray(windows), block=most, among=among)
    return jax.lax.cond(full, to_images, jax.checkpoint(to_windows), query, key, value)


def attend_to_images(
    query: Float[Array, "b p heads dim"],
    key: Float[Array, "b p heads dim"],
    value: Float[Array, "b p heads dim"],
    segments: Int[Array, "b p"],
    implementation: str = "auto",
    entropies: bool = False,
) -> Seen:
    """Attends from every patch to the patches of its image; arguments as for `attend`."""
    if segments.shape[1] > LONGEST["auto"] and implementation == "xla":
        implementation = "chunked"
    return attention.attend(query, key, value, in_groups(segments), implementation=implementation, entropies=entropies)


def _to_windows(
    query: Float[Array, "b p heads dim"],
    key: Float[Array, "b p heads dim"],
    value: Float[Array, "b p heads dim"],
    windows: Int[Array, "b p"],
    block: int,
    among: Callable[..., Seen],
) -> Seen:
    """Attends to windows: no window is larger than a block, so each block sees itself and its two neighbours."""

    def blocks(x: Array) -> Array:
        filled = jnp.pad(x, [(0, 0), (0, -x.shape[1] % block)] + [(0, 0)] * (x.ndim - 2))
        return filled.reshape(-1, block, *x.shape[2:])

    def around(x: Array, outside: int) -> Array:
        parts = blocks(x).reshape(x.shape[0], -1, block, *x.shape[2:])
        ends = [(0, 0), (1, 1)] + [(0, 0)] * (parts.ndim - 2)
        wide = jnp.pad(parts, ends, constant_values=outside)
        near = jnp.concatenate([wide[:, :-2], wide[:, 1:-1], wide[:, 2:]], axis=2)
        return near.reshape(-1, *near.shape[2:])

    visible = in_groups(blocks(windows), around(windows, -1))
    seen = among(blocks(query), around(key, 0), around(value, 0), visible)
    return jax.tree.map(lambda x: x.reshape(len(windows), -1, *x.shape[2:])[:, : windows.shape[1]], seen)
