"""Attention by JAX's kernel for TPUs, splash attention: linear memory, and no work on blocks that the order or a window hides."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from merit_jax.models.modules.chunked_attention import OUTPUT
from merit_jax.models.modules.sharded_attention import over_devices, shares_tokens, token_shards
from merit_jax.models.modules.visible import Tokens, Visible
from merit_jax.models.placement import Placement

BLOCKS = (512, 256, 128)
"""Sizes of blocks, of queries and of keys, from the best to the least."""
INTERPRET = False
"""Whether the kernel is interpreted, for tests on other devices."""


class OrderMask(splash_attention_mask.LocalMask):
    """The order of tokens, and a window if there is one, for the kernel, which computes it where a block is partly seen.

    Before that, JAX asks for every block of the mask on the host, minutes for 131,072 tokens, to see whether it has any or all
    keys. Here two numbers stand for a block; and ones for a column, since every token sees itself.
    """

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        """Returns whether any, and whether all, pairs of a block are seen."""
        rows, columns = (range(*part.indices(size)) for part, size in zip(index, self.shape, strict=True))
        if len(columns) == 1:
            return np.ones((len(rows), 1), np.bool_)
        least, most = rows[0] - columns[-1], rows[-1] - columns[0]
        left = self.shape[0] if self.window_size[0] is None else self.window_size[0]
        return np.array([most >= 0 and least <= left, least >= 0 and most <= left])


def splash(
    query: Float[Array, "b t heads dim"],
    key: Float[Array, "b s kv_heads dim"],
    value: Float[Array, "b s kv_heads dim"],
    visible: Visible,
    scale: float,
    placement: Placement | None,
) -> Float[Array, "b t heads dim"] | None:
    """Computes attention within rows, on the devices of a mesh or on one; None for what the kernel does not do.

    It has groups, the order, and windows, but no images that see themselves whole (their mask would need all pairs), no cache,
    and no parts of rows smaller than its smallest block.

    Args:
        query: One vector per token and head.
        key: Likewise; a key and value head serves `heads / kv_heads` neighbouring query heads.
        value: Likewise.
        visible: The keys that each query sees; if there are windows, `visible.windows` has all that `visible.window` may be.
        scale: Factor of products.
        placement: Placement on a mesh; None: one device.
    """
    if not visible.whole or visible.query.block is not None:
        return None
    shards = (
        token_shards(placement) if placement is not None and shares_tokens(placement, visible, query.shape[1]) else 1
    )
    size = _block(query.shape[1], shards)
    if size is None or query.shape[1] % shards**2:  # as JAX requires of masks that are sharded
        return None
    padded = -(-query.shape[1] // size) * size
    heads = query.shape[2] // _head_shards(placement, key.shape[2])
    windows = visible.windows if visible.query.place is not None else ()
    kernels = [_kernel(padded, heads, size, shards, window, visible) for window in windows or (None,)]
    compute = partial(_of_device, scale=scale, padding=padded - query.shape[1])
    if placement is None:
        return compute(query, key, value, visible, kernels)
    blocks = NamedSharding(placement.mesh(), PartitionSpec(None, placement.tokens if shards > 1 else None))
    specs = [kernel.manual_sharding_spec(blocks) for kernel in kernels]
    return over_devices(compute, placement, (query, key, value), visible, (kernels,), (specs,))


def _block(tokens: int, shards: int) -> int | None:
    """Returns the size of blocks of rows; None if the parts of a row have no such size. Whole rows are padded to one.

    Examples:
        >>> _block(8192, 1), _block(1100, 1), _block(100, 1), _block(2048, 8), _block(1024, 16)
        (512, 128, 128, 256, None)
    """
    if shards > 1:
        return next((size for size in BLOCKS if not tokens // shards % size), None)
    padded = -(-tokens // BLOCKS[-1]) * BLOCKS[-1]
    return next(size for size in BLOCKS if not padded % size)


def _head_shards(placement: Placement | None, kv_heads: int) -> int:
    """Returns the number of devices that share the heads."""
    shards = 1 if placement is None else placement.mesh().shape[placement.heads]
    return 1 if kv_heads % shards else shards


def _kernel(tokens: int, heads: int, size: int, shards: int, window: int | None, visible: Visible) -> Any:
    """Makes the kernel of rows of so many tokens, for the heads of one device."""
    shape = (tokens, tokens)
    mask: Any = splash_attention_mask.FullMask(shape)
    if visible.query.place is not None:
        left = None if window is None or window > tokens else window - 1
        mask = OrderMask(shape, (left, 0), offset=0, shard_count=shards)
    forward: dict[str, Any] = {"block_q": size, "block_kv": size, "block_kv_compute": size}
    backward: dict[str, Any] = {f"{name}_dkv": size for name in forward} | {"block_kv_dkv_compute": size}
    del backward["block_kv_compute_dkv"]
    sizes = splash_attention_kernel.BlockSizes(**forward, **backward, block_q_dq=size, block_kv_dq=size)
    return splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=shards,
        residual_checkpoint_name=OUTPUT,
        interpret=INTERPRET,
    )


def _of_device(
    query: Array, key: Array, value: Array, visible: Visible, kernels: Any, *, scale: float, padding: int
) -> Array:
    """Computes attention of one device's rows, by the kernel of the layer's window."""

    def heads_first(x: Array) -> Array:
        return jnp.moveaxis(jnp.pad(x, [(0, 0), (0, padding), (0, 0), (0, 0)]), 2, 1)

    b, t = query.shape[:2]
    segments = None
    if visible.query.group is not None:
        sides = (_groups(visible.query, b, padding), _groups(visible.key, b, padding))
        segments = splash_attention_kernel.SegmentIds(*sides)
    scaled = (query * jnp.asarray(scale, jnp.float32)).astype(query.dtype)
    operands = (*map(heads_first, (scaled, key, value)), segments)
    if len(kernels) == 1:
        found = jax.vmap(kernels[0])(*operands)
    else:
        assert visible.window is not None
        chosen = jnp.argmax(visible.window == jnp.asarray(visible.windows))
        found = jax.lax.switch(chosen, [jax.vmap(kernel) for kernel in kernels], *operands)
    return jnp.moveaxis(found, 1, 2)[:, :t]


def _groups(tokens: Tokens, b: int, padding: int) -> Array:
    """Returns the groups of one side's tokens; padding has one of its own."""
    assert tokens.group is not None
    groups = jnp.broadcast_to(tokens.group, (b, tokens.group.shape[1])).astype(jnp.int32)
    return jnp.pad(groups, [(0, 0), (0, padding)], constant_values=np.iinfo(np.int32).max)
