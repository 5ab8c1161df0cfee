"""Products of vectors, sorted by group, with a matrix of each group; under `vmap` one after the other, where XLA has none."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32

_OVER_VECTORS = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])


@jax.custom_vjp
def grouped_product(
    x: Float[jax.Array, "n d"], kernels: Float[jax.Array, "groups d f"], sizes: Int32[jax.Array, " groups"]
) -> Float[jax.Array, "n f"]:
    """Computes `x_i W_g(i)`, the first `sizes[0]` vectors with the first matrix, and so on.

    Examples:
        >>> kernels = jnp.array([[[1.0]], [[10.0]]])
        >>> grouped_product(jnp.array([[1.0], [2.0], [3.0]]), kernels, jnp.array([1, 2], jnp.int32)).ravel().tolist()
        [1.0, 20.0, 30.0]
    """
    return _product(x, kernels, sizes)


def _forward(x: jax.Array, kernels: jax.Array, sizes: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _product(x, kernels, sizes), (x, kernels, sizes)


def _backward(kept: tuple[jax.Array, ...], slope: jax.Array) -> tuple[jax.Array, jax.Array, np.ndarray]:
    x, kernels, sizes = kept
    of_kernels = grouped_outer(x, slope, sizes).astype(kernels.dtype)
    return _product(slope, jnp.swapaxes(kernels, 1, 2), sizes), of_kernels, np.zeros(sizes.shape, jax.dtypes.float0)


grouped_product.defvjp(_forward, _backward)


@jax.custom_batching.sequential_vmap
def _product(x: jax.Array, kernels: jax.Array, sizes: jax.Array) -> jax.Array:
    return jax.lax.ragged_dot(x, kernels, sizes)


@jax.custom_batching.sequential_vmap
def grouped_outer(
    x: Float[jax.Array, "n d"], y: Float[jax.Array, "n f"], sizes: Int32[jax.Array, " groups"]
) -> Float[jax.Array, "groups d f"]:
    """Computes `Σ_i x_iᵀ y_i` over the vectors of each group, in float32.

    Examples:
        >>> x = jnp.array([[1.0], [2.0], [3.0]])
        >>> grouped_outer(x, x, jnp.array([1, 2], jnp.int32)).ravel().tolist()
        [1.0, 13.0]
    """
    return jax.lax.ragged_dot_general(x, y, sizes, _OVER_VECTORS, preferred_element_type=jnp.float32)
