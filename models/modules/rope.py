"""Rotary position embedding in the half-rotation layout of Hugging Face checkpoints."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from merit_jax.models.interface import Array, DecoderConfig, Llama3Scaling


def inverse_frequencies(config: DecoderConfig) -> Float32[np.ndarray, " half"]:
    """Computes the radians per token of each rotated pair, stretched if the config asks for it."""
    plain = frequencies(config.rope_theta, config.head_dim)
    return plain if config.rope_scaling is None else stretch(plain, config.rope_scaling)


def frequencies(theta: float, head_dim: int) -> Float32[np.ndarray, " half"]:
    """Computes theta^(-2i / head_dim), in radians per token.

    Examples:
        >>> frequencies(100.0, 4).round(6).tolist()
        [1.0, 0.10000000149011612]
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return np.float32(1) / np.float32(theta) ** exponents


def stretch(plain: Float32[np.ndarray, " half"], scaling: Llama3Scaling) -> Float32[np.ndarray, " half"]:
    """Divides low frequencies by the factor, keeps high ones, blends linearly in between (Llama 3.1)."""
    rotations = scaling.original_length * plain / (2 * math.pi)
    kept = (rotations - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)
    return (plain * (kept + (1 - kept) / scaling.factor)).astype(np.float32)


def angles(
    positions: Int[Array, "b t *axes"],
    radians: Float32[Array, " half"],
    section: tuple[int, int, int] | None = None,
) -> Float32[jax.Array, "b t half"]:
    """Computes the angle of every rotated pair.

    Args:
        positions: One position per token, or three: temporal, height, width.
        radians: Radians per position of every pair.
        section: With three positions: numbers of pairs whose angle follows the first, the second and the third.

    Examples:
        >>> angles(np.array([[0, 3]]), np.array([1.0, 0.5], np.float32)).tolist()
        [[[0.0, 0.0], [3.0, 1.5]]]
        >>> angles(np.array([[[7, 8, 9]]]), np.ones(4, np.float32), (2, 1, 1)).tolist()
        [[[7.0, 7.0, 8.0, 9.0]]]
    """
    wide = jnp.asarray(positions, jnp.float32)
    if wide.ndim == 2:
        return wide[..., None] * radians
    assert section is not None
    return wide[..., np.repeat(np.arange(3), section)] * radians


def rotate(x: Float[Array, "b t heads dim"], theta: Float32[Array, "b t half"]) -> Float[jax.Array, "b t heads dim"]:
    """Rotates the pairs (x_i, x_{i + dim/2}) by theta_i, in float32.

    Examples:
        >>> quarter = np.full((1, 1, 1), np.pi / 2, np.float32)
        >>> rotate(jnp.array([[[[3.0, 4.0]]]]), quarter).round(4).tolist()
        [[[[-4.0, 3.0]]]]
    """
    cos, sin = jnp.cos(theta)[:, :, None, :], jnp.sin(theta)[:, :, None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
