"""The diagonal of the Fisher information at given parameters (Matena and Raffel, NeurIPS 2022, §3)."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.types import Array, Batch, Leaves, LossFn, Params


def diagonal_fisher(
    loss_fn: LossFn,
    params: Params,
    batches: Iterable[Batch],
    *,
    trainable: Sequence[str] = (".*",),
    place: Callable[[Batch], Batch] = lambda batch: batch,
) -> Leaves:
    """Computes `F = (1/N) Σ_i (∇ nll_i / tokens_i)²`, entry by entry: the empirical Fisher information.

    As for the calibration gradients, an example's mean loss over its supervised tokens is differentiated. One gradient is in
    memory at a time.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]), one example per row; rows without tokens are ignored.
        params: The parameters at which it is taken.
        batches: Examples in batches of fixed shapes; each shape is compiled once.
        trainable: Regular expressions over parameter paths; other leaves have no part in it.
        place: Puts a batch on the devices.

    Returns:
        float32, the trainable leaves.

    Raises:
        ValueError: No example has supervised tokens.

    Examples:
        >>> def loss(params, batch):
        ...     return params["w"][batch.tokens].sum(axis=1), batch.weights.sum(axis=1)
        >>> ids = jnp.array([[0, 1], [1, 1]], jnp.int32)
        >>> batch = Batch(tokens=ids, targets=ids, weights=jnp.ones((2, 2)), positions=ids, segments=ids)
        >>> diagonal_fisher(loss, {"w": jnp.zeros(2)}, [batch])["w"].tolist()
        [0.125, 0.625]
    """
    leaves, frozen = tree.split(params, trainable)
    squares = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, dtype=jnp.float32), leaves)
    count = jnp.zeros((), jnp.float32)
    add = _accumulator(loss_fn)
    for batch in batches:
        squares, count = add(squares, count, leaves, frozen, place(batch))
    if not float(count):
        raise ValueError("no example with supervised tokens to take the Fisher information on")
    return jax.tree.map(lambda square: square / count, squares)


@lru_cache(maxsize=4)
def _accumulator(loss_fn: LossFn) -> Callable:
    """A compiled `(squares, count, leaves, frozen, batch) -> (squares, count)`, one row at a time; one for all branches."""

    def loss(leaves: Leaves, frozen: Leaves, row: Batch) -> tuple[Float[Array, ""], Float[Array, ""]]:
        nll, tokens = loss_fn(tree.join(leaves, frozen), jax.tree.map(lambda x: x[None], row))
        return (nll / jnp.maximum(tokens, 1)).sum(), (tokens > 0).sum().astype(jnp.float32)

    @partial(jax.jit, donate_argnums=(0, 1))
    def add(squares: Leaves, count: Array, leaves: Leaves, frozen: Leaves, batch: Batch) -> tuple[Leaves, Array]:
        def one(state: tuple[Leaves, Array], row: Batch) -> tuple[tuple[Leaves, Array], None]:
            gradient, more = jax.grad(loss, has_aux=True)(leaves, frozen, row)
            total = jax.tree.map(lambda square, g: square + jnp.square(g.astype(jnp.float32)), state[0], gradient)
            return (total, state[1] + more), None

        return jax.lax.scan(one, (squares, count), batch)[0]

    return add
