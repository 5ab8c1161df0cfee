"""Products of the Gauss-Newton matrix of a loss over fixed batches with vectors (Schraudolph, Neural Computation 2002)."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.loss import chunked_sum
from merit_jax.core.registry import lookup
from merit_jax.core.types import Array, Batch, Leaves, Model, Params
from merit_jax.gradients.compressor import leaf_shardings
from merit_jax.gradients.estimate import AVERAGES


class GaussNewton(NamedTuple):
    """The Gauss-Newton matrix of the next-token loss over fixed data, as data that its products need.

    `H = mean of Jᵀ (diag p − p pᵀ) J` over supervised tokens, with J the derivative of a token's logits in the trainable leaves
    and p its predicted distribution. It is the Hessian of the loss without the curvature of the logits themselves,
    `Σ_v (p_v − 1[v = y]) ∇²logit_v`; positive semi-definite, which the Hessian at a checkpoint need not be; and the Fisher
    information of the model's own predictions (Martens, JMLR 2020).

    Attributes:
        model: Gives hidden states and logits.
        frozen: The parameters that are not varied.
        batches: Gone through anew for each product, one example per row. Each shape is compiled once.
        average: "example", the mean over examples of their mean over tokens, as for the dataset gradients, or "token".
        chunk: Tokens of each row whose logits exist at one time.
        place: Puts a batch on the devices.
    """

    model: Model
    frozen: Leaves
    batches: Iterable[Batch]
    average: str = "example"
    chunk: int = 64
    place: Callable[[Batch], Batch] = lambda batch: batch


def gauss_newton_product(matrix: GaussNewton, leaves: Leaves, vector: Leaves) -> Leaves:
    """Computes `H v`: the vector is pushed forward to the logits, and what comes of it there is pulled back.

    The forward pass is linearised once, and its linear part and the transpose of that are applied once each: 5/3 of the work of
    a gradient, where the derivative of a gradient along v takes nearly three times it; in the memory of a gradient.

    Args:
        matrix: H.
        leaves: The trainable leaves at which it is taken.
        vector: v, a tree like `leaves`.

    Returns:
        H v in float32 or the leaves' own wider type, sharded as the leaves are.

    Raises:
        ValueError: The batches have no supervised token, or the average is unknown.

    Examples:
        A model whose logits are its parameters, `p = (½, ½)`:

        >>> class Unigram:
        ...     def hidden(self, params, batch):
        ...         return jnp.ones((*batch.tokens.shape, 1))
        ...     def unembed(self, params, hidden):
        ...         return hidden * params["w"]
        ...     init_cache = prefill = decode = hidden
        >>> ids = jnp.array([[0, 1, 1]], jnp.int32)
        >>> batch = Batch(tokens=ids, targets=ids, weights=jnp.ones((1, 3)), positions=ids, segments=ids)
        >>> matrix = GaussNewton(Unigram(), {}, [batch])
        >>> gauss_newton_product(matrix, {"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 0.0])})["w"].tolist()
        [0.25, -0.25]
    """
    layout = leaf_shardings(leaves)
    add = _accumulator(matrix.model.hidden, matrix.model.unembed, matrix.average, matrix.chunk, tuple(layout.items()))
    vector = {path: vector[path].astype(leaf.dtype) for path, leaf in leaves.items()}
    sums = {
        path: jnp.zeros(leaf.shape, tree.accumulation_dtype(leaf), device=layout[path].sharding)
        for path, leaf in leaves.items()
    }
    count = jnp.zeros(())
    for batch in matrix.batches:
        sums, count = add(sums, count, leaves, matrix.frozen, vector, matrix.place(batch))
    if not float(count):
        raise ValueError("no supervised token in the batches; expected examples whose loss is defined")
    return {path: total / count.astype(total.dtype) for path, total in sums.items()}


@lru_cache(maxsize=4)
def _accumulator(
    hidden_of: Callable[[Params, Batch], Array],
    unembed: Callable[[Params, Array], Array],
    average: str,
    chunk: int,
    layout: tuple[tuple[str, jax.ShapeDtypeStruct], ...],
) -> jax.stages.Wrapped:
    """A compiled `(sums, count, leaves, frozen, vector, batch) -> (sums, count)`; sums are sharded as their leaves."""
    totals = lookup(AVERAGES, average, "gradients.average")

    def product(leaves: Leaves, frozen: Leaves, vector: Leaves, batch: Batch) -> tuple[Leaves, Array]:
        hidden, push = jax.linearize(lambda leaves: hidden_of(tree.join(leaves, frozen), batch), leaves)
        moved = push(vector)

        def head(leaves: Leaves, hidden: Array) -> tuple[Array, Array]:
            """Computes the logits' inner product with a constant, the derivative of the predictions along v."""

            def rows(both: Array, targets: Array, weights: Array) -> Float[Array, " b"]:
                at, along = jnp.split(both, 2, axis=-1)
                logits, change = jax.jvp(
                    lambda leaves, at: unembed(tree.join(leaves, frozen), at), (leaves, at), (vector, along)
                )
                p = jax.nn.softmax(logits)
                shift = jax.lax.stop_gradient(p * (change - (p * change).sum(axis=-1, keepdims=True)))
                return (weights * (shift * logits).sum(axis=-1)).sum(axis=-1)

            both = jnp.concatenate([hidden, moved], axis=-1)
            found = chunked_sum(rows, both, batch.targets, batch.weights, chunk)
            return totals(found, batch.weights.sum(axis=-1))

        (direct, at_hidden), count = jax.grad(head, argnums=(0, 1), has_aux=True)(leaves, hidden)
        (through,) = jax.linear_transpose(push, leaves)(at_hidden)
        return jax.tree.map(jnp.add, direct, through), count

    def add(
        sums: Leaves, count: Array, leaves: Leaves, frozen: Leaves, vector: Leaves, batch: Batch
    ) -> tuple[Leaves, Array]:
        found, more = product(leaves, frozen, vector, batch)
        return jax.tree.map(lambda total, x: total + x.astype(total.dtype), sums, found), count + more

    shardings = {path: like.sharding for path, like in layout}
    return jax.jit(add, donate_argnums=(0, 1), out_shardings=(shardings, None))
