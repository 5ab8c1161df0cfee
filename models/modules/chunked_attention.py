"""Attention with memory linear in the row's length: blocks of queries, each with an online softmax over blocks of keys.

The softmax is that of Milakov & Gimelshein (2018), the order of blocks that of Rabe & Staats (2021, "Self-attention does not need
O(n^2) memory"). In the backward pass, probabilities are computed again from the stored logarithms of their sums, as in
FlashAttention (Dao et al., 2022). The rule is written out: `jax.checkpoint` around a block of queries is not kept to inside a
scan over layers, which then stores all pairs.
There is no forward derivative, `merit_jax.models.interface.Model.twice` has one.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Float32, Int

from merit_jax.models.modules.visible import Tokens, Visible

BLOCK = 512
"""Most queries, and most keys, of a block."""

OUTPUT = "attention"
"""Name of attention's output and logarithms among the arrays that `jax.checkpoint` may keep."""

_LEAST = float(jnp.finfo(jnp.float32).min)


class Queries(NamedTuple):
    """Queries in blocks; those of one key head are side by side, by query head.

    Attributes:
        vectors: Queries.
        tokens: Their properties.
        reached: True for the blocks of keys that have any key which a query of the block may see.
    """

    vectors: Float[Array, "n b kv_heads rows dim"]
    tokens: Tokens
    reached: Bool[Array, "n m"]


class Keys(NamedTuple):
    """Keys and values in blocks.

    Attributes:
        keys: Keys.
        values: Values.
        tokens: Their properties.
    """

    keys: Float[Array, "m b kv_heads size dim"]
    values: Float[Array, "m b kv_heads size dim"]
    tokens: Tokens


class Sums(NamedTuple):
    """An online softmax of a block of queries, over the keys that came before.

    Attributes:
        largest: Largest product.
        total: Sum of `exp(product - largest)`.
        vectors: Likewise weighted sum of values.
    """

    largest: Float32[Array, "b kv_heads rows"]
    total: Float32[Array, "b kv_heads rows"]
    vectors: Float32[Array, "b kv_heads rows dim"]


def chunked(
    query: Float[Array, "b t heads dim"],
    key: Float[Array, "b s kv_heads dim"],
    value: Float[Array, "b s kv_heads dim"],
    visible: Visible,
    scale: float,
) -> Float[Array, "b t heads dim"]:
    """Computes grouped-query attention, `softmax(scale q·k) v`, in blocks; a query that sees no key gets 0.

    Blocks of keys that no query of a block can see by the ranges of their groups and places are left out.

    Args:
        query: One vector per token and head.
        key: Likewise; a key and value head serves `heads / kv_heads` neighbouring query heads.
        value: Likewise.
        visible: The keys that each query sees.
        scale: Factor of products.
    """
    (b, t, heads, dim), kv_heads = query.shape, key.shape[2]
    queries, of_queries = in_blocks(query, _size(t)), tokens_in_blocks(visible.query, b, t, _size(t), padding=-2)
    s, (keys, values) = key.shape[1], (in_blocks(x, _size(key.shape[1])) for x in (key, value))
    of_keys = tokens_in_blocks(visible.key, b, s, _size(s), padding=-1)
    grouped = jnp.moveaxis(queries.reshape(*queries.shape[:3], kv_heads, heads // kv_heads, dim), 2, 4)
    vectors, reached = (
        grouped.reshape(*grouped.shape[:3], grouped.shape[3] * grouped.shape[4], dim),
        _reached(of_queries, of_keys, visible.window),
    )
    parts = Keys(jnp.moveaxis(keys, 2, 3), jnp.moveaxis(values, 2, 3), of_keys)
    found = _attend(scale, Queries(vectors, of_queries, reached), parts, visible.window)[0]
    return in_rows(jnp.moveaxis(found.reshape(grouped.shape), 4, 2), t).reshape(query.shape)


def _size(length: int) -> int:
    """Returns the size of blocks that cover a length with the least padding."""
    return -(-length // -(-length // BLOCK))


def in_blocks(x: Array, size: int) -> Array:
    """Divides tokens [b, t, ...] into blocks; copies of the last token fill the last block."""
    filled = jnp.pad(x, [(0, 0), (0, -x.shape[1] % size)] + [(0, 0)] * (x.ndim - 2), mode="edge")
    return jnp.moveaxis(filled.reshape(len(x), filled.shape[1] // size, size, *x.shape[2:]), 1, 0)


def in_rows(x: Array, length: int) -> Array:
    """Undoes `in_blocks`."""
    blocks, b, size = x.shape[:3]
    return jnp.moveaxis(x, 0, 1).reshape(b, blocks * size, *x.shape[3:])[:, :length]


def tokens_in_blocks(tokens: Tokens, b: int, length: int, size: int, padding: int) -> Tokens:
    """Divides properties of tokens into blocks, [blocks, b, size]; what fills the last one has the group `padding`."""
    group = jnp.zeros((1, 1), jnp.int32) if tokens.group is None else tokens.group
    rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (b, length)), tokens._replace(group=group))
    blocks = jax.tree.map(lambda x: in_blocks(x, size), rows)
    real = jnp.arange(blocks.group.shape[0] * size).reshape(-1, 1, size) < length
    return blocks._replace(group=jnp.where(real, blocks.group, padding))


def _reached(query: Tokens, key: Tokens, window: Int[Array, ""] | None) -> Bool[Array, "n m"]:
    """Returns True for blocks of queries and of keys whose ranges of groups and places let a query see a key."""

    def overlap(query: Any, key: Any) -> Array:
        (low, high), (first, last) = _range(query), _range(key)
        return (low[:, None] <= last) & (first <= high[:, None])

    found = overlap(query.group, key.group)
    if query.place is not None:
        (low, high), (first, last) = _range(query.place), _range(key.place)
        before = first <= high[:, None]
        if query.block is not None:
            before = before | overlap(query.block, key.block)
        found = found & before
        if window is not None:
            found = found & (low[:, None] - last < window)
    return found.any(axis=-1)


def _range(x: Any) -> tuple[Int[Array, "n b"], Int[Array, "n b"]]:
    return x.min(axis=-1), x.max(axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    scale: float, queries: Queries, keys: Keys, window: Int[Array, ""] | None
) -> tuple[Float[Array, "n b kv_heads rows dim"], Float32[Array, "n b kv_heads rows"]]:
    """Computes attention, and the logarithm of each query's sum of exponentials."""

    def of_block(block: Queries) -> tuple[Array, Array]:
        def add(sums: Sums, one: tuple[Array, Keys]) -> tuple[Sums, None]:
            return jax.lax.cond(one[0], partial(_added, scale, window, block), lambda sums, _: sums, sums, one[1]), None

        rows = block.vectors.shape[:-1]
        empty = Sums(jnp.full(rows, _LEAST / 2), jnp.zeros(rows), jnp.zeros(block.vectors.shape, jnp.float32))
        sums = jax.lax.scan(add, empty, (block.reached, keys))[0]
        total = jnp.maximum(sums.total, jnp.finfo(jnp.float32).tiny)
        return (sums.vectors / total[..., None]).astype(block.vectors.dtype), sums.largest + jnp.log(total)

    return jax.lax.map(of_block, queries)


def _added(scale: float, window: Int[Array, ""] | None, block: Queries, sums: Sums, keys: Keys) -> Sums:
    """Adds a block of keys to an online softmax."""
    products = _products(scale, window, block, keys)
    largest = jnp.maximum(sums.largest, products.max(axis=-1))
    weights, shrunk = jnp.exp(products - largest[..., None]), jnp.exp(sums.largest - largest)
    vectors = _dot("bkrs,bksd->bkrd", weights.astype(keys.values.dtype), keys.values)
    return Sums(largest, sums.total * shrunk + weights.sum(axis=-1), sums.vectors * shrunk[..., None] + vectors)


def _products(scale: float, window: Int[Array, ""] | None, block: Queries, keys: Keys) -> Float32[Array, "b k rows s"]:
    """Computes the scaled products of a block of queries with a block of keys; the least number where the key is not seen."""
    products = scale * _dot("bkrd,bksd->bkrs", block.vectors, keys.keys)
    mask: Any = Visible(block.tokens, keys.tokens, window).dense()
    return jnp.where(jnp.tile(mask, (1, 1, products.shape[2] // mask.shape[2], 1)), products, _LEAST)


def _dot(equation: str, a: Array, b: Array) -> Float32[Array, "..."]:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _forward(scale: float, queries: Queries, keys: Keys, window: Int[Array, ""] | None) -> tuple[Any, Any]:
    """Computes attention, and keeps it with its operands."""
    found, logs = checkpoint_name(_attend(scale, queries, keys, window), OUTPUT)
    return (found, logs), (queries, keys, window, found, logs)


def _backward(scale: float, kept: Any, slopes: tuple[Array, Array]) -> tuple[Queries, Keys, None]:
    """Computes the gradients of queries, keys and values, from that of the output; that of the logarithms is not used.

    With p the probabilities, o the output and s the products, `ds_j = p_j (do·v_j - do·o)`.
    """
    queries, keys, window, found, logs = kept

    def of_block(sums: tuple[Array, Array], one: Any) -> tuple[tuple[Array, Array], Array]:
        block, out, log, slope = one
        shared = jnp.sum(out.astype(jnp.float32) * slope.astype(jnp.float32), axis=-1, keepdims=True)

        def pulled(change: Array, sums: tuple[Array, Array], keys: Keys) -> tuple[Array, tuple[Array, Array]]:
            shares = jnp.exp(_products(scale, window, block, keys) - log[..., None])
            products = scale * shares * (_dot("bkrd,bksd->bkrs", slope, keys.values) - shared)
            products, shares = products.astype(slope.dtype), shares.astype(slope.dtype)
            of_keys = sums[0] + _dot("bkrs,bkrd->bksd", products, block.vectors)
            of_values = sums[1] + _dot("bkrs,bkrd->bksd", shares, slope)
            return change + _dot("bkrs,bksd->bkrd", products, keys.keys), (of_keys, of_values)

        def add(change: Array, part: Any) -> tuple[Array, tuple[Array, Array]]:
            reached, keys, sums = part
            return jax.lax.cond(reached, pulled, lambda change, sums, _: (change, sums), change, sums, keys)

        change, sums = jax.lax.scan(add, jnp.zeros(slope.shape, jnp.float32), (block.reached, keys, sums))
        return sums, change.astype(slope.dtype)

    empty = jnp.zeros(keys.keys.shape, jnp.float32), jnp.zeros(keys.values.shape, jnp.float32)
    sums, changes = jax.lax.scan(of_block, empty, (queries, found, logs, slopes[0]))
    of_keys, of_values = (x.astype(keys.keys.dtype) for x in sums)
    nothing: Any = None
    return Queries(changes, nothing, nothing), Keys(of_keys, of_values, nothing), None


_attend.defvjp(_forward, _backward)
