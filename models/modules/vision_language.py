"""One vision-language model for every family: a tower, a projector, and a decoder that reads their features as tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Float32, Int

from merit_jax.models.interface import Array, StackConfig, VisionLanguageConfig
from merit_jax.models.modules.decoder import Decoder
from merit_jax.models.modules.layers import Deep
from merit_jax.models.modules.projector import (
    MLPProjector,
    MLPProjectorConfig,
    PoolProjector,
    PoolProjectorConfig,
    ShuffleProjector,
    ShuffleProjectorConfig,
)
from merit_jax.models.modules.qwen2_5_vit import PatchMerger, PatchMergerConfig, QwenVision, QwenVisionConfig
from merit_jax.models.modules.qwen3_vit import (
    DeepMerger,
    DeepMergerConfig,
    Qwen3Vision,
    Qwen3VisionConfig,
    TokenVectors,
)
from merit_jax.models.modules.vit import ViT, ViTConfig

PARTS: dict[type[StackConfig], type[nn.Module]] = {
    QwenVisionConfig: QwenVision,
    PatchMergerConfig: PatchMerger,
    Qwen3VisionConfig: Qwen3Vision,
    DeepMergerConfig: DeepMerger,
    ViTConfig: ViT,
    MLPProjectorConfig: MLPProjector,
    ShuffleProjectorConfig: ShuffleProjector,
    PoolProjectorConfig: PoolProjector,
}
"""Type of a tower's or projector's config -> its module.

A tower is called as `vision(images) -> hidden`, `vision.blank()` gives the smallest images of one row, all zeros, and
`vision.counted(images, shape)` which of its vectors [*shape, d] are no padding. A projector is called as
`projector(hidden, images) -> features [b, f, hidden_size]`, or `TokenVectors` of them. `images` is a NamedTuple of arrays with a
batch axis that has `slots` i32[b, f] (place in the row of the token that feature f replaces), `valid` [b, f] (0: padding,
dropped) and `positions` (i32[b, t, 3] M-RoPE positions, or None).
"""


class VisionLanguage(nn.Module):
    """Token ids and images in, input vectors of `decoder` out."""

    config: VisionLanguageConfig

    def setup(self):
        """Makes the parts."""
        c = self.config
        self.vision = PARTS[type(c.vision)](c.vision)
        self.projector = PARTS[type(c.projector)](c.projector)
        self.decoder = Decoder(c.text)

    def __call__(self, tokens: Int[Array, "b t"]) -> Float32[Array, "b t v"]:
        """Computes logits of unpadded rows with blank images; visits every parameter, so that `init` makes them all."""
        return self.decoder.read(*self.vectors(tokens, self.vision.blank()))

    def counted(self, images: Any, path: tuple[str, ...], shape: tuple[int, ...]) -> Bool[jax.Array, "*b"]:
        """Returns which vectors of the input of a part of the tower or the projector are no padding."""
        if path[0] == "vision":
            return self.vision.counted(images, shape)
        return jnp.asarray(images.valid, bool).reshape(shape)

    def vectors(self, tokens: Int[Array, "b t"], images: Any = None) -> tuple[Float[jax.Array, "b t d"], Deep | None]:
        """Computes input vectors, of tokens and of image features in the places of theirs, and features for later layers."""
        x, _ = self.decoder.vectors(tokens)
        if images is None:
            return x, None
        features, deep = self.projected(images)
        return place(x, features, images.slots, images.valid), deep

    def features(self, images: Any) -> Float[jax.Array, "b f d"]:
        """Computes token vectors of images."""
        return self.projected(images)[0]

    def projected(self, images: Any) -> tuple[Float[jax.Array, "b f d"], Deep | None]:
        """Computes token vectors of images, and the features of them that are added behind the decoder's first layers."""
        found = self.projector(self.vision(images), images)
        if not isinstance(found, TokenVectors):
            return found, None
        return found.features, Deep(found.deep, images.slots, images.valid) if len(found.deep) else None


def place(
    x: Float[jax.Array, "b t d"], features: Float[Array, "b f d"], slots: Int[Array, "b f"], valid: Any
) -> Float[jax.Array, "b t d"]:
    """Writes each row's valid features to its slots.

    Examples:
        >>> x, features = jnp.zeros((1, 3, 1)), jnp.array([[[5.0], [7.0]]])
        >>> place(x, features, jnp.array([[2, 0]]), [[True, False]]).ravel().tolist()
        [0.0, 0.0, 5.0]
    """
    rows = jnp.arange(x.shape[0])[:, None]
    slots = jnp.where(jnp.asarray(valid, bool), slots, x.shape[1])
    return x.at[rows, slots].set(features.astype(x.dtype), mode="drop")
