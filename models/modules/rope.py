"""Rotary position embedding in the half-rotation layout of Hugging Face checkpoints."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from merit_jax.models.interface import Array
from merit_jax.models.rope_settings import LinearScaling, Llama3Scaling, LongRopeScaling, Rope, YarnScaling

Axes = tuple[int, ...] | None
"""Per rotated pair, which of a token's three positions its angle follows; None where tokens have one."""


class Turns(NamedTuple):
    """Cosines and sines of the angles of rotated pairs, times the attention factor; of several ropes on a leading axis."""

    cos: Float32[jax.Array, "*ropes b t half"]
    sin: Float32[jax.Array, "*ropes b t half"]


def frequencies(theta: float, channels: int) -> Float32[np.ndarray, " half"]:
    """Computes theta^(-2i / channels), in radians per token.

    Examples:
        >>> frequencies(100.0, 4).round(6).tolist()
        [1.0, 0.10000000149011612]
    """
    exponents = np.arange(0, channels, 2, dtype=np.float32) / np.float32(channels)
    return np.float32(1) / np.float32(theta) ** exponents


def stretch(plain: Float32[np.ndarray, " half"], scaling: Llama3Scaling) -> Float32[np.ndarray, " half"]:
    """Divides low frequencies by the factor, keeps high ones, blends linearly in between (Llama 3.1)."""
    rotations = scaling.original_length * plain / (2 * math.pi)
    kept = (rotations - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)
    return (plain * (kept + (1 - kept) / scaling.factor)).astype(np.float32)


def stretch_yarn(
    plain: Float32[np.ndarray, " half"], theta: float, scaling: YarnScaling
) -> Float32[np.ndarray, " half"]:
    """Divides low frequencies by the factor, keeps high ones, blends linearly over the pairs in between (YaRN)."""
    channels = 2 * len(plain)

    def pair(turns: float) -> float:
        """Computes the pair that turns so many times in the original context."""
        return channels * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, channels - 1)
    divided = np.clip((np.arange(len(plain), dtype=np.float32) - first) / ((last - first) or 0.001), 0, 1)
    return (plain / scaling.factor * divided + plain * (1 - divided)).astype(np.float32)


def inverse_frequencies(rope: Rope, head_dim: int) -> Float32[np.ndarray, " half"]:
    """Computes the radians per token of each rotated pair, stretched as the settings ask; of LongRoPE, without its divisors."""
    plain, scaling = frequencies(rope.theta, rope.width(head_dim)), rope.scaling
    if isinstance(scaling, LinearScaling):
        return (plain / np.float32(scaling.factor)).astype(np.float32)
    if isinstance(scaling, Llama3Scaling):
        return stretch(plain, scaling)
    if isinstance(scaling, YarnScaling):
        return stretch_yarn(plain, rope.theta, scaling)
    return plain


def pair_axes(section: tuple[int, int, int], interleaved: bool) -> tuple[int, ...]:
    """Returns which position each rotated pair follows: the temporal (0), the height (1) or the width (2).

    Args:
        section: Numbers of pairs of the three.
        interleaved: Whether pairs of the three take turns, the first position having the rest; if not, they come one after the
            other.

    Examples:
        >>> pair_axes((2, 1, 1), False), pair_axes((2, 1, 1), True), pair_axes((4, 2, 1), True)
        ((0, 0, 1, 2), (0, 1, 2, 0), (0, 1, 2, 0, 1, 0, 0))
    """
    if not interleaved:
        return tuple(np.repeat(np.arange(3), section).tolist())
    return tuple(pair % 3 if pair // 3 < section[pair % 3] else 0 for pair in range(sum(section)))


def turns(rope: Rope, head_dim: int, positions: Int[Array, "b t *axes"], axes: Axes = None) -> Turns:
    """Computes cosines and sines of tokens; arguments as for `angles`."""
    radians, scaling = inverse_frequencies(rope, head_dim), rope.scaling
    if isinstance(scaling, LongRopeScaling):
        longest = jnp.asarray(positions).reshape(len(positions), -1).max(axis=1)[:, None, None]
        short, long = (radians / np.array(divisors, np.float32) for divisors in (scaling.short, scaling.long))
        theta = angles(positions, np.ones_like(radians), axes)
        theta = theta * jnp.where(longest >= scaling.original_length, long, short)
    else:
        theta = angles(positions, radians, axes)
    factor = scaling.attention_factor if isinstance(scaling, YarnScaling | LongRopeScaling) else 1.0
    return Turns(jnp.cos(theta) * factor, jnp.sin(theta) * factor)


def angles(
    positions: Int[Array, "b t *axes"], radians: Float32[Array, " half"], axes: Axes = None
) -> Float32[jax.Array, "b t half"]:
    """Computes the angle of every rotated pair.

    Args:
        positions: One position per token, or three: temporal, height, width.
        radians: Radians per position of every pair.
        axes: With three positions: which of them each pair follows.

    Examples:
        >>> angles(np.array([[0, 3]]), np.array([1.0, 0.5], np.float32)).tolist()
        [[[0.0, 0.0], [3.0, 1.5]]]
        >>> angles(np.array([[[7, 8, 9]]]), np.ones(4, np.float32), (0, 0, 1, 2)).tolist()
        [[[7.0, 7.0, 8.0, 9.0]]]
    """
    wide = jnp.asarray(positions, jnp.float32)
    if wide.ndim == 2:
        return wide[..., None] * radians
    assert axes is not None
    return wide[..., np.array(axes)] * radians


def rotate(x: Float[Array, "b t heads dim"], theta: Float32[Array, "b t half"]) -> Float[jax.Array, "b t heads dim"]:
    """Rotates the pairs (x_i, x_{i + dim/2}) by theta_i, in float32.

    Examples:
        >>> quarter = np.full((1, 1, 1), np.pi / 2, np.float32)
        >>> rotate(jnp.array([[[[3.0, 4.0]]]]), quarter).round(4).tolist()
        [[[[-4.0, 3.0]]]]
    """
    return turn(x, Turns(jnp.cos(theta), jnp.sin(theta)))


def turn(x: Float[Array, "b t heads dim"], by: Turns) -> Float[jax.Array, "b t heads dim"]:
    """Rotates the pairs (x_i, x_{i + half}) of the first 2 half channels, in float32; the others stay."""
    cos, sin = by.cos[:, :, None, :], by.sin[:, :, None, :]
    half = cos.shape[-1]
    first, second, rest = jnp.split(x.astype(jnp.float32), (half, 2 * half), axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
