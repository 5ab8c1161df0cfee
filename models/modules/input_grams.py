"""Gram matrices of the inputs of every projection, taken while the model runs and without a change of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from merit_jax.models.modules.experts import ExpertProjection, Routed
from merit_jax.models.modules.grouped import grouped_outer
from merit_jax.models.modules.layers import Projection
from merit_jax.models.modules.scan import GRAMS

Counted = Callable[[tuple[str, ...], tuple[int, ...]], Bool[jax.Array, "*b"]]
"""(path of a projection, shape of its input without the last axis) -> which of the input's vectors are no padding."""


def with_input_grams(run: Callable[[], Any], counted: Counted) -> Any:
    """Calls `run`, in which every projection puts the Gram matrix of its input, and their number, into `GRAMS`.

    Args:
        run: Applies a module with the collection `GRAMS` mutable.
        counted: Which vectors count.
    """

    def intercept(next_method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, Projection) and context.method_name == "__call__":
            x = args[0]
            real = counted(module.path, x.shape[:-1])
            _add(module, "gram", _gram(x, real))
            _add(module, "count", jnp.sum(real, dtype=jnp.float32))
        if isinstance(module, ExpertProjection) and context.method_name == "__call__":
            routed: Routed = args[0]
            real = counted(module.path, routed.x.shape[:-1]).ravel()[routed.tokens]
            gram, count = _grams_of_experts(routed, real)
            _add(module, "gram", gram)
            _add(module, "count", count)
        return next_method(*args, **kwargs)

    with nn.intercept_methods(intercept):
        return run()


def _add(module: nn.Module, name: str, value: jax.Array) -> None:
    module.sow(GRAMS, name, value, reduce_fn=jnp.add, init_fn=lambda: jnp.zeros_like(value))


def _gram(x: Float[jax.Array, "*b d"], real: Bool[jax.Array, "*b"]) -> Float[jax.Array, "d d"]:
    """`Xᵀ X` of the vectors that count, in float32; others may hold anything."""
    vectors = jnp.where(real[..., None], x, 0).astype(jnp.float32).reshape(-1, x.shape[-1])
    return jnp.matmul(vectors.T, vectors, precision="highest")


def _grams_of_experts(
    routed: Routed, real: Bool[jax.Array, " n"]
) -> tuple[Float[jax.Array, "experts d d"], Float[jax.Array, " experts"]]:
    """Computes `Xᵀ X` and the number of the vectors that count, of each expert's, in float32."""
    columns, ones = jnp.where(real[:, None], routed.x, 0).astype(jnp.float32), real[:, None].astype(jnp.float32)
    with jax.default_matmul_precision("highest"):
        return grouped_outer(columns, columns, routed.sizes), grouped_outer(ones, ones, routed.sizes)[:, 0, 0]
