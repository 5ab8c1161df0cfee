"""Rotary position embedding in the half-rotation layout of Hugging Face checkpoints."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from models.interface import Array, DecoderConfig, Llama3Scaling


def inverse_frequencies(config: DecoderConfig) -> Float32[np.ndarray, " half"]:
    """Radians per token of each rotated pair: theta^(-2i / head_dim), stretched if the config says so."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = np.float32(1) / np.float32(config.rope_theta) ** exponents
    if config.rope_scaling is None:
        return frequencies
    return _stretch(frequencies, config.rope_scaling)


def _stretch(frequencies: Float32[np.ndarray, " half"], scaling: Llama3Scaling) -> Float32[np.ndarray, " half"]:
    """Divides low frequencies by the factor, keeps high ones, blends linearly in between (Llama 3.1)."""
    rotations = scaling.original_length * frequencies / (2 * math.pi)
    kept = (rotations - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)
    return (frequencies * (kept + (1 - kept) / scaling.factor)).astype(np.float32)


def angles(positions: Int[Array, "b t"], frequencies: Float32[Array, " half"]) -> Float32[Array, "b t half"]:
    """Angle of every rotated pair, in radians."""
    return jnp.asarray(positions, jnp.float32)[..., None] * frequencies


def rotate(x: Float[Array, "b t heads dim"], theta: Float32[Array, "b t half"]) -> Float[Array, "b t heads dim"]:
    """Rotates the pairs (x_i, x_{i + dim/2}) by theta_i, in float32."""
    cos, sin = jnp.cos(theta)[:, :, None, :], jnp.sin(theta)[:, :, None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
