"""Attention in every part of every model; with gates on its heads, and the entropies of its queries, where they are asked for."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Float32

from merit_jax.models.modules.chunked_attention import chunked, in_blocks, in_rows, tokens_in_blocks
from merit_jax.models.modules.scan import ENTROPIES, GATES
from merit_jax.models.modules.sharded_attention import over_devices, shares_tokens
from merit_jax.models.modules.visible import Tokens, Visible, seen
from merit_jax.models.placement import Placement

LONGEST = {"auto": 512, "cudnn": 16384}
"""Most tokens of rows whose mask is made for all pairs; longer rows go in chunks.

Above 512 tokens, chunks take less time than all pairs on a CPU (docs/results/performance.md), and less memory anywhere. cuDNN
keeps no scores, but takes the segments of packed rows only as such a mask: 2 bytes per pair and row, 512 MiB at 16,384 tokens.
"""


class Entropies(NamedTuple):
    """Attention entropy of queries.

    Attributes:
        values: `-Σ_j p_j log p_j / log n` over the n keys that the query sees, in [0, 1]; 0 for a query that is left out.
        counted: True for queries that see at least two keys; the others have no entropy.
    """

    values: Float32[Array, "b t heads"]
    counted: Bool[Array, "b t"]


class Seen(NamedTuple):
    """The output of attention.

    Attributes:
        vectors: Weighted sums of values, by head.
        entropies: Those of the queries; None unless asked for.
    """

    vectors: Float[Array, "b t heads dim"]
    entropies: Entropies | None


def attend(
    query: Float[Array, "b t heads dim"],
    key: Float[Array, "b s kv_heads dim"],
    value: Float[Array, "b s kv_heads dim"],
    visible: Visible,
    *,
    scale: float | None = None,
    implementation: str = "auto",
    entropies: bool = False,
    placement: Placement | None = None,
) -> Seen:
    """Computes grouped-query attention, `softmax(scale q·k) v`.

    Args:
        query: One vector per token and head.
        key: Likewise; a key and value head serves `heads / kv_heads` neighbouring query heads.
        value: Likewise.
        visible: The keys that each query sees.
        scale: Factor of products; None: `1 / sqrt(dim)`.
        implementation: One of `merit_jax.models.interface.ATTENTION`; see `implementation_of`.
        entropies: Compute the probabilities themselves, float32, and the entropies of queries.
        placement: Placement on a mesh; None: that of the compiler.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if entropies:
        return _explicit_in_blocks(query, key, value, visible, scale)
    if implementation == "splash":
        from merit_jax.models.modules.splash_attention import splash  # which loads Pallas, for TPUs alone

        if (found := splash(query, key, value, visible, scale, placement)) is not None:
            return Seen(found, None)
    compute = partial(_compute, implementation=implementation, scale=scale)
    if placement is None or not shares_tokens(placement, visible, query.shape[1]):
        return Seen(compute(query, key, value, visible), None)
    return Seen(over_devices(compute, placement, (query, key, value), visible), None)


def _compute(
    query: Array, key: Array, value: Array, visible: Visible, *, implementation: str, scale: float
) -> Float[Array, "b t heads dim"]:
    """Computes attention on one device, or as the compiler places it."""
    chosen = implementation_of(implementation, query.shape[1], key.shape[1])
    if chosen == "chunked":
        return chunked(query, key, value, visible, scale)
    options: Any = {"mask": visible.dense(), "scale": scale, "implementation": chosen}
    return jax.nn.dot_product_attention(query, key, value, **options)


def implementation_of(name: str, queries: int, keys: int) -> str:
    """Returns the implementation that computes rows of so many queries and keys where `name` is configured.

    Examples:
        >>> implementation_of("auto", 128, 128), implementation_of("auto", 1, 4096), implementation_of("auto", 4096, 4096)
        ('xla', 'xla', 'chunked')
    """
    name = "auto" if name == "splash" else name
    if name not in LONGEST:
        return name
    if queries * keys > LONGEST[name] ** 2:
        return "chunked"
    return "xla" if name == "auto" else name


def prepared(visible: Visible, implementation: str) -> Visible:
    """Returns the description for all layers of a model, with the mask of all pairs if the implementation needs it."""
    if implementation == "splash":
        return visible
    queries, keys = (jnp.shape(jax.tree.leaves(tokens)[0])[1] for tokens in (visible.query, visible.key))
    if implementation_of(implementation, queries, keys) == "chunked":
        return visible
    return dataclasses.replace(visible, pairs=seen(visible.query, visible.key))


def _explicit_in_blocks(
    query: Float[Array, "b t heads dim"],
    key: Float[Array, "b s kv_heads dim"],
    value: Float[Array, "b s kv_heads dim"],
    visible: Visible,
    scale: float,
) -> Seen:
    """Computes attention and entropies with the probabilities of a block of queries at a time."""
    (b, t), blocks = query.shape[:2], -(-query.shape[1] // LONGEST["auto"])
    size = -(-t // blocks)

    def of_block(block: tuple[Array, Tokens]) -> Seen:
        return _explicit(block[0], key, value, Visible(block[1], of_keys, visible.window).dense(), scale)

    of_keys = jax.tree.map(lambda x: x[0], tokens_in_blocks(visible.key, b, key.shape[1], key.shape[1], padding=-1))
    of_queries = tokens_in_blocks(visible.query, b, t, size, padding=-2)
    found = jax.lax.map(of_block, (in_blocks(query, size), of_queries))
    return jax.tree.map(lambda x: in_rows(x, t), found)


def _explicit(
    query: Float[Array, "b t heads dim"],
    key: Float[Array, "b s kv_heads dim"],
    value: Float[Array, "b s kv_heads dim"],
    mask: Bool[Array, "#b 1 t s"] | None,
    scale: float,
) -> Seen:
    """Computes attention, and entropies, by float32 probabilities [b, heads, t, s]."""
    b, t, heads, dim = query.shape
    s, kv_heads = key.shape[1:3]
    grouped = query.reshape(b, t, kv_heads, heads // kv_heads, dim)
    products = jnp.einsum("btkgd,bskd->bkgts", grouped, key, preferred_element_type=jnp.float32) * scale
    shown = jnp.broadcast_to(True if mask is None else mask, (b, 1, t, s))[:, :, None]
    logs = jax.nn.log_softmax(jnp.where(shown, products, jnp.finfo(jnp.float32).min), axis=-1)
    shares = jnp.exp(logs)
    vectors = jnp.einsum("bkgts,bskd->btkgd", shares.astype(value.dtype), value).reshape(query.shape)
    keys = shown[:, 0, 0].sum(axis=-1)
    entropy = -jnp.sum(jnp.where(shown, shares * logs, 0), axis=-1).reshape(b, heads, t)
    values = jnp.moveaxis(entropy, 1, 2) / jnp.log(jnp.maximum(keys, 2))[..., None]
    return Seen(vectors, Entropies(jnp.where((keys > 1)[..., None], values, 0), keys > 1))


def wants_entropies(module: nn.Module) -> bool:
    """Returns whether the model is being run for the entropies of its heads."""
    return module.is_mutable_collection(ENTROPIES) and not module.is_initializing()


def heads_of(module: nn.Module, seen: Seen) -> Float[Array, "b t width"]:
    """Returns what a module's heads give to its output projection, side by side: each times its gate, if there are gates.

    Args:
        module: It has gates where the model is applied with them, f32[rows, heads], of one row, or of each, for the images of
            a row alike; and keeps the entropies, if there are any.
        seen: Its attention.
    """
    vectors, entropies = seen
    if entropies is not None:
        _keep(module, entropies)
    if module.has_variable(GATES, "gates"):
        gates: Any = module.get_variable(GATES, "gates")
        gates = jnp.repeat(gates, vectors.shape[0] // len(gates), axis=0)
        wide = jnp.promote_types(vectors.dtype, jnp.float32)
        vectors = (vectors.astype(wide) * gates[:, None, :, None].astype(wide)).astype(vectors.dtype)
    rows, tokens, heads, dim = vectors.shape
    return vectors.reshape(rows, tokens, heads * dim)


def _keep(module: nn.Module, entropies: Entropies) -> None:
    nothing: Any = lambda: jax.tree.map(jnp.zeros_like, entropies)  # noqa: E731
    module.sow(ENTROPIES, "entropies", entropies, reduce_fn=lambda _, new: new, init_fn=nothing)
