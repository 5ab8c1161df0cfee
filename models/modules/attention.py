"""Attention in every part of every model; with gates on its heads, and the entropies of its queries, where they are asked for."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Float32

from merit_jax.models.modules.scan import ENTROPIES, GATES

Implementation = Literal["xla", "cudnn"] | None
"""Choice for `jax.nn.dot_product_attention`."""


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
    mask: Bool[Array | np.ndarray, "#b 1 #t s"] | None,
    *,
    scale: float | None = None,
    implementation: Implementation = None,
    entropies: bool = False,
) -> Seen:
    """Computes grouped-query attention, `softmax(scale q·k) v`.

    Args:
        query: One vector per token and head.
        key: Likewise; a key and value head serves `heads / kv_heads` neighbouring query heads.
        value: Likewise.
        mask: True where a query (third axis) sees a key (fourth axis); None: everywhere.
        scale: Factor of products; None: `1 / sqrt(dim)`.
        implementation: For `jax.nn.dot_product_attention`.
        entropies: Compute the probabilities themselves, float32 [b, heads, t, s], and the entropies of queries.
    """
    if not entropies:
        vectors = jax.nn.dot_product_attention(query, key, value, mask=mask, scale=scale, implementation=implementation)
        return Seen(vectors, None)
    b, t, heads, dim = query.shape
    s, kv_heads = key.shape[1:3]
    grouped = query.reshape(b, t, kv_heads, heads // kv_heads, dim)
    scale = dim**-0.5 if scale is None else scale
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
