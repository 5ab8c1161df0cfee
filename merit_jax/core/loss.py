"""Next-token cross-entropy that never holds a batch's logits whole."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32

from merit_jax.core.types import Array, Batch, LossFn, Model, Params


def next_token_loss(model: Model, chunk: int = 64, shards: int = 1) -> LossFn:
    """Makes the loss of MERIT's gradients and branches: `-Σ_t log p(y_t | y_<t)` over supervised tokens.

    Args:
        model: Gives hidden states and logits.
        chunk: Tokens of each row whose logits exist at one time.
        shards: Devices that share the tokens of a row; each reads its own part, in chunks. What they do not divide stays whole.

    Returns:
        A `LossFn`: (params, batch) -> (nll f32[B] in nats, supervised tokens f32[B]), sums per row.
    """

    def loss(params: Params, batch: Batch) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        rows, length = batch.tokens.shape
        parts = 1 if length % shards else shards

        def divide(x: Array) -> Array:
            return x.reshape(rows * parts, length // parts, *x.shape[2:])

        hidden, targets, weights = (divide(x) for x in (model.hidden(params, batch), batch.targets, batch.weights))
        nll = chunked_nll(lambda h: model.unembed(params, h), hidden, targets, weights, chunk)
        return nll.reshape(rows, parts).sum(axis=-1), batch.weights.sum(axis=-1)

    return loss


def per_example(batch: Batch) -> Batch:
    """Divides the weights of each example by their sum, in rows of one or several examples.

    A `LossFn` then sums the examples' mean losses, `Σ_i nll_i / tokens_i`, and counts the examples that have supervised tokens.

    Args:
        batch: Leaves [b, t]; examples of a row differ in their segment.

    Examples:
        >>> ids = jnp.zeros((1, 5), jnp.int32)
        >>> segments = jnp.array([[1, 1, 1, 2, 0]], jnp.int32)
        >>> row = Batch(ids, ids, jnp.array([[0.0, 1.0, 1.0, 1.0, 0.0]]), ids, segments)
        >>> per_example(row).weights.tolist()
        [[0.0, 0.5, 0.5, 1.0, 0.0]]
    """

    def totals(weights: Float[Array, " t"], segments: Int32[Array, " t"]) -> Float[Array, " t"]:
        return jax.ops.segment_sum(weights, segments, num_segments=len(segments) + 1)[segments]

    totals_of_rows = jax.vmap(totals)(jnp.asarray(batch.weights), jnp.asarray(batch.segments))
    return batch._replace(weights=batch.weights / jnp.maximum(totals_of_rows, 1))


def chunked_nll(
    unembed: Callable[[Array], Array],
    hidden: Float[Array, "b t d"],
    targets: Int32[Array, "b t"],
    weights: Float[Array, "b t"],
    chunk: int,
) -> Float[Array, " b"]:
    """Computes the weighted negative log-likelihood of `targets`, summed per row (see `chunked_sum`).

    Examples:
        >>> hidden = jnp.zeros((1, 3, 4))
        >>> targets, weights = jnp.array([[2, 0, 1]], jnp.int32), jnp.array([[1.0, 0.0, 1.0]])
        >>> nll = chunked_nll(lambda h: h, hidden, targets, weights, chunk=2)
        >>> [round(float(x), 4) for x in nll / jnp.log(4)]
        [2.0]
    """

    def nll(hidden: Array, targets: Array, weights: Array) -> Array:
        return (weights * token_nll(unembed(hidden), targets)).sum(axis=-1)

    return chunked_sum(nll, hidden, targets, weights, chunk)


def chunked_sum(
    measure: Callable[[Array, Array, Array], Array],
    hidden: Float[Array, "b t d"],
    targets: Int32[Array, "b t"],
    weights: Float[Array, "b t"],
    chunk: int,
) -> Float[Array, "*m b"]:
    """Sums a measure over each row's supervised positions.

    Each row's supervised positions are moved to its front, and the row is read `chunk` positions at a time; a chunk without
    supervised tokens costs nothing, so prompts are never multiplied with the vocabulary. Logits are recomputed for the gradient.

    Args:
        measure: (hidden f32[b, c, d], targets i32[b, c], weights f32[b, c]) -> f32[..., b], sums that leave weight 0 out.
        hidden: Hidden states.
        targets: Id that follows each position.
        weights: 0 where it is not supervised.
        chunk: Positions of each row whose logits exist at one time.
    """
    rows, length, _ = hidden.shape
    order = jnp.argsort(weights == 0, axis=1, stable=True)
    chunk = min(chunk, length)
    padding = -length % chunk

    def in_chunks(x: Array) -> Array:
        """Divides [b, t, ...], in the new order, to [chunks, b, chunk, ...]."""
        x = jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)
        x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(rows, -1, chunk, *x.shape[2:]), 1, 0)

    chunks = tuple(map(in_chunks, (hidden, targets, weights)))
    first = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in chunks]
    like = jax.eval_shape(measure, *first)
    nothing = jnp.zeros(like.shape, like.dtype)

    def add(total: Array, part: tuple[Array, Array, Array]) -> tuple[Array, None]:
        return total + jax.lax.cond(part[2].any(), measure, lambda *_: nothing, *part), None

    # The checkpoint is around the cond: inside it, the gradient would store the unembedding once for every chunk.
    return jax.lax.scan(jax.checkpoint(add), nothing, chunks)[0]


def token_nll(logits: Float[Array, "*b v"], targets: Int32[Array, "*b"]) -> Float[Array, "*b"]:
    """Computes `-log softmax(logits)[target]` in nats, in float32 or the logits' own wider type.

    Examples:
        >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
        >>> [round(float(p), 3) for p in jnp.exp(-token_nll(logits, jnp.array([1, 2], jnp.int32)))]
        [0.25, 0.8]
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
