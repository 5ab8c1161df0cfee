"""One decoder for every family: embedding, a scan over layers, final norm, unembedding."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Float32, Int

from models.interface import Array, DecoderConfig, KVCache
from models.modules import rope
from models.modules.layers import MLP, Attention, Context, LayerCache, Projection, RMSNorm, write
from models.modules.scan import stacked


class Embedding(nn.Module):
    """A table of token vectors [vocab, embed]."""

    config: DecoderConfig

    def setup(self):
        """Makes the table."""
        c = self.config
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        self.embedding = self.param("embedding", init, (c.vocab_size, c.hidden_size), jnp.dtype(c.param_dtype))

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """Looks tokens up; an id past the end of the table gives NaN."""
        return jnp.take(self.embedding, tokens, axis=0, mode="fill").astype(self.config.dtype)

    def attend(self, hidden: Float[Array, "*b d"]) -> Float32[Array, "*b v"]:
        """Dot products with every token vector, in float32."""
        dtype, table = self.config.dtype, self.embedding.astype(self.config.dtype)
        return jnp.einsum("...d,vd->...v", hidden.astype(dtype), table, preferred_element_type=jnp.float32)


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: LayerCache | None
    ) -> tuple[Float[Array, "b t d"], LayerCache | None]:
        """One step of the scan over layers: the residual stream is the carry; a cache goes in, what is new in it comes out."""
        c = self.config
        attended, new = Attention(c, name="attention")(RMSNorm(c, name="attention_norm")(x), context, cache)
        x = x + attended
        return x + MLP(c, name="mlp")(RMSNorm(c, name="mlp_norm")(x)), new


class Decoder(nn.Module):
    """Token ids or vectors in, final hidden states or logits out."""

    config: DecoderConfig

    def setup(self):
        """Names the parts."""
        c = self.config
        self.embed = Embedding(c)
        self.layers = stacked(Layer, c, c.layers, in_axes=(nn.broadcast, 0))(c)
        self.final_norm = RMSNorm(c)
        if not c.tied:
            self.unembed = Projection(c, c.vocab_size, ("embed", "vocab"), out_dtype="float32")

    def __call__(self, tokens: Int[Array, "b t"]) -> Float32[Array, "b t v"]:
        """Logits of unpadded rows; visits every parameter, so that `init` makes them all."""
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        mask = segment_mask(jnp.ones_like(tokens))
        hidden, _ = self.run(self.vectors(tokens), positions, mask)
        return self.logits(hidden)

    def vectors(self, tokens: Int[Array, "b t"], images: Any = None) -> Float[Array, "b t d"]:
        """Input vectors of tokens.

        Raises:
            ValueError: There are images.
        """
        if images is not None:
            raise ValueError("the batch has images, but this model reads text only: use a vision-language checkpoint")
        return self.embed(tokens)

    def run(
        self,
        x: Float[Array, "b t d"],
        positions: Int[Array, "b t *axes"],
        mask: Bool[Array, "b 1 t s"],
        slots: Int[Array, "b t"] | None = None,
        cache: KVCache | None = None,
    ) -> tuple[Float[Array, "b t d"], KVCache | None]:
        """Final, normalised hidden states of input vectors.

        Args:
            x: Input vectors: of tokens, or of anything that stands in their place.
            positions: RoPE positions; with M-RoPE, three per token or one that stands for all three.
            mask: True where a token may see a key.
            slots: Where the tokens go in the cache; None without a cache.
            cache: Earlier keys and values of all layers, or None.

        Returns:
            Hidden states, and the cache with x written into it (None without a cache).
        """
        c = self.config
        context = Context(rope.angles(positions, rope.inverse_frequencies(c), c.mrope_section), mask, slots)
        old = None if cache is None else LayerCache(cache.k, cache.v)
        x, new = self.layers(x, context, old)
        return self.final_norm(x), None if old is None else cache._replace(**write(old, new, slots)._asdict())

    def logits(self, hidden: Float[Array, "*b d"]) -> Float32[Array, "*b v"]:
        """Scores over the vocabulary."""
        return self.embed.attend(hidden) if self.config.tied else self.unembed(hidden)


def segment_mask(segments: Int[Array, "b t"]) -> Bool[Array, "b 1 t t"]:
    """A token sees itself and earlier tokens of its own segment."""
    same = segments[:, :, None] == segments[:, None, :]
    causal = jnp.tri(segments.shape[1], dtype=bool)
    return (same & causal)[:, None]


def slot_mask(slots: Int[Array, "b t"], length: int) -> Bool[Array, "b 1 t s"]:
    """A token at slot p sees slots 0 to p of a cache of `length` slots."""
    return (jnp.arange(length) <= jnp.asarray(slots)[:, :, None])[:, None]
