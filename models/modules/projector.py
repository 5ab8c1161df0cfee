"""Projectors from features of tiles to token vectors.

An MLP (LLaVA), a pixel shuffle and one matrix (Idefics3, SmolVLM), a mean over squares, a norm and one matrix (Gemma 3).
"""

import dataclasses
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Float

from merit_jax.models.interface import ACTIVATIONS, Array, StackConfig, VisionLanguageConfig
from merit_jax.models.modules.layers import Norm, Projection
from merit_jax.models.modules.vit import GELUS


@dataclasses.dataclass(frozen=True)
class MLPProjectorConfig(StackConfig):
    """Architecture of two layers.

    Attributes:
        hidden_size: Width of a token vector, and of the layer between.
        activation: A name of `GELUS`.
        use_bias: Whether both layers have biases.
    """

    hidden_size: int
    activation: str = "gelu"
    use_bias: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.activation not in GELUS:
            raise ValueError(f"activation = {self.activation!r}: expected one of {', '.join(GELUS)}")

    @property
    def patches_per_token(self) -> int:
        """Patches that become one token."""
        return 1


class MLPProjector(nn.Module):
    """W_2 activation(W_1 x + b_1) + b_2, feature by feature."""

    config: MLPProjectorConfig

    @nn.compact
    def __call__(self, hidden: Float[jax.Array, "b tiles s d"], images: Any) -> Float[jax.Array, "b f e"]:
        """Returns the token vectors of all tiles of a row, one after the other."""
        c = self.config
        wide = Projection(c, c.hidden_size, ("embed", "mlp"), c.use_bias, name="up")(hidden)
        x = Projection(c, c.hidden_size, ("mlp", "embed"), c.use_bias, name="down")(ACTIVATIONS[c.activation](wide))
        return x.reshape(x.shape[0], x.shape[1] * x.shape[2], c.hidden_size)


@dataclasses.dataclass(frozen=True)
class ShuffleProjectorConfig(StackConfig):
    """Architecture of a pixel shuffle and one matrix.

    Attributes:
        hidden_size: Width of a token vector.
        factor: Squares of `factor` x `factor` patches become one token.
    """

    hidden_size: int
    factor: int

    @property
    def patches_per_token(self) -> int:
        """Patches that become one token."""
        return self.factor**2


class ShuffleProjector(nn.Module):
    """W x, x being the features of a square of patches one after the other."""

    config: ShuffleProjectorConfig

    @nn.compact
    def __call__(self, hidden: Float[jax.Array, "b tiles s d"], images: Any) -> Float[jax.Array, "b f e"]:
        """Returns the token vectors of all tiles of a row, one after the other."""
        c = self.config
        x = Projection(c, c.hidden_size, ("mlp", "embed"), name="output")(shuffle(hidden, c.factor))
        return x.reshape(x.shape[0], x.shape[1] * x.shape[2], c.hidden_size)


@dataclasses.dataclass(frozen=True)
class PoolProjectorConfig(ShuffleProjectorConfig):
    """Architecture of a mean, a norm and one matrix, over the same squares."""


class PoolProjector(nn.Module):
    """W norm(x), x being the mean of the features of a square of patches."""

    config: PoolProjectorConfig

    @nn.compact
    def __call__(self, hidden: Float[jax.Array, "b tiles s d"], images: Any) -> Float[jax.Array, "b f e"]:
        """Returns the token vectors of all tiles of a row, one after the other."""
        c = self.config
        squares = shuffle(hidden, c.factor)
        mean = squares.reshape(*squares.shape[:3], c.patches_per_token, hidden.shape[-1]).mean(axis=3)
        x = Projection(c, c.hidden_size, ("mlp", "embed"), name="output")(Norm(c, offset=1.0, name="norm")(mean))
        return x.reshape(x.shape[0], x.shape[1] * x.shape[2], c.hidden_size)


def shuffle(x: Float[Array, "b tiles s d"], factor: int) -> Float[Array, "b tiles squares values"]:
    """Joins the features of every `factor` x `factor` square of patches, line by line.

    Examples:
        >>> shuffle(jax.numpy.arange(16.0).reshape(1, 1, 16, 1), 2).astype(int).tolist()
        [[[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]]
    """
    b, tiles, s, d = x.shape
    side = round(s**0.5)
    x = x.reshape(b, tiles, side // factor, factor, side // factor, factor, d)
    return x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, tiles, s // factor**2, factor**2 * d)


def features_per_tile(config: VisionLanguageConfig) -> int:
    """Returns the number of tokens that one tile becomes."""
    return config.vision.vectors // config.projector.patches_per_token
