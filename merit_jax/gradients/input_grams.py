"""The Gram matrices of the inputs of linear maps at given parameters, for RegMean (Jin et al., ICLR 2023, §3)."""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp

from merit_jax.core import tree
from merit_jax.core.types import Batch, InputGrams, Leaves, Params


def mean_input_grams(
    input_grams: InputGrams,
    params: Params,
    batches: Iterable[Batch],
    *,
    trainable: Sequence[str] = (".*",),
    place: Callable[[Batch], Batch] = lambda batch: batch,
) -> Leaves:
    """Computes `G = (1/n) Xᵀ X` of each kernel, X the n inputs that it has in the batches: tokens or patches, without padding.

    The matrices of all kernels and one batch's are in memory.

    Args:
        input_grams: The model's.
        params: The parameters at which they are taken.
        batches: Examples in batches of fixed shapes; each shape is compiled once.
        trainable: Regular expressions over parameter paths; kernels that do not match are left out.
        place: Puts a batch on the devices.

    Returns:
        float32 [*layers, in, in] by the kernel's path; zeros for a kernel without inputs, as a tower's without images.

    Raises:
        ValueError: There is no batch, or no kernel among the trainable parameters.

    Examples:
        >>> def grams(params, batch):
        ...     x = batch.tokens.reshape(-1, 1) * jnp.array([[1.0, 2.0]])
        ...     return {"dense/kernel": x.T @ x}, {"dense/kernel": jnp.float32(len(x))}
        >>> ids = jnp.array([[0, 2]], jnp.int32)
        >>> batch = Batch(tokens=ids, targets=ids, weights=jnp.ones((1, 2)), positions=ids, segments=ids)
        >>> mean_input_grams(grams, {"dense": {"kernel": jnp.ones((2, 3))}}, [batch, batch])["dense/kernel"].tolist()
        [[2.0, 4.0], [4.0, 8.0]]
    """

    @jax.jit
    def take(params: Params, batch: Batch) -> tuple[Leaves, Leaves]:
        grams, counts = input_grams(params, batch)
        wanted = [path for path in tree.matching(tree.flatten(params), trainable) if path in grams]
        return {path: grams[path] for path in wanted}, {path: counts[path] for path in wanted}

    add = jax.jit(lambda total, more: jax.tree.map(jnp.add, total, more), donate_argnums=0)
    total: tuple[Leaves, Leaves] | None = None
    for batch in batches:
        found = take(params, place(batch))
        total = found if total is None else add(total, found)
    if total is None or not total[0]:
        raise ValueError("no example, or no trainable kernel, to take the Gram matrices of inputs of")
    return {path: gram / jnp.maximum(total[1][path], 1)[..., None, None] for path, gram in total[0].items()}
