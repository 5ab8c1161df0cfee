"""One vision-language model for every family: a tower, a projector, and the decoder that reads their features as tokens."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Float32, Int

from models.interface import Array, KVCache, StackConfig, VisionLanguageConfig
from models.modules.decoder import Decoder, segment_mask
from models.modules.projector import MLPProjector, MLPProjectorConfig, ShuffleProjector, ShuffleProjectorConfig
from models.modules.qwen2_5_vit import PatchMerger, PatchMergerConfig, QwenVision, QwenVisionConfig
from models.modules.vit import ViT, ViTConfig

PARTS: dict[type[StackConfig], type[nn.Module]] = {
    QwenVisionConfig: QwenVision,
    PatchMergerConfig: PatchMerger,
    ViTConfig: ViT,
    MLPProjectorConfig: MLPProjector,
    ShuffleProjectorConfig: ShuffleProjector,
}
"""Type of a tower's or projector's config -> its module.

A tower is called as `vision(images) -> hidden`, and `vision.blank()` gives the smallest images of one row, all zeros. A
projector is called as `projector(hidden, images) -> features [b, f, hidden_size]`. `images` is a NamedTuple of arrays with
a batch axis that has `slots` i32[b, f] (place in the row of the token that feature f replaces), `valid` [b, f] (0: padding,
dropped) and `positions` (i32[b, t, 3] M-RoPE positions, or None).
"""


class VisionLanguage(nn.Module):
    """Token ids and images in, final hidden states or logits out."""

    config: VisionLanguageConfig

    def setup(self):
        """Names the parts."""
        c = self.config
        self.vision = PARTS[type(c.vision)](c.vision)
        self.projector = PARTS[type(c.projector)](c.projector)
        self.decoder = Decoder(c.text)

    def __call__(self, tokens: Int[Array, "b t"]) -> Float32[Array, "b t v"]:
        """Logits of unpadded rows with blank images; visits every parameter, so that `init` makes them all."""
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden, _ = self.run(self.vectors(tokens, self.vision.blank()), positions, segment_mask(jnp.ones_like(tokens)))
        return self.logits(hidden)

    def vectors(self, tokens: Int[Array, "b t"], images: Any = None) -> Float[Array, "b t d"]:
        """Input vectors: of tokens, and of image features in the places of their tokens."""
        x = self.decoder.vectors(tokens)
        return x if images is None else place(x, self.features(images), images.slots, images.valid)

    def features(self, images: Any) -> Float[Array, "b f d"]:
        """Token vectors of images."""
        return self.projector(self.vision(images), images)

    def run(
        self,
        x: Float[Array, "b t d"],
        positions: Int[Array, "b t *axes"],
        mask: Bool[Array, "b 1 t s"],
        slots: Int[Array, "b t"] | None = None,
        cache: KVCache | None = None,
    ) -> tuple[Float[Array, "b t d"], KVCache | None]:
        """What `Decoder.run` does."""
        return self.decoder.run(x, positions, mask, slots, cache)

    def logits(self, hidden: Float[Array, "*b d"]) -> Float32[Array, "*b v"]:
        """Scores over the vocabulary."""
        return self.decoder.logits(hidden)


def place(
    x: Float[Array, "b t d"], features: Float[Array, "b f d"], slots: Int[Array, "b f"], valid: Any
) -> Float[Array, "b t d"]:
    """Puts each row's valid features at its slots."""
    rows = jnp.arange(x.shape[0])[:, None]
    slots = jnp.where(jnp.asarray(valid, bool), slots, x.shape[1])
    return x.at[rows, slots].set(features.astype(x.dtype), mode="drop")
