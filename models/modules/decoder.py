"""One decoder for every family: embedding, a scan over layers, final norm, unembedding."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Float32, Int

from merit_jax.models.interface import NORMS, Array, DecoderConfig, KVCache
from merit_jax.models.modules import rope
from merit_jax.models.modules.attention import prepared
from merit_jax.models.modules.experts import MoE
from merit_jax.models.modules.layers import (
    MLP,
    Attention,
    Context,
    Deep,
    Kind,
    LayerCache,
    Norm,
    Projection,
    parameter,
    write,
)
from merit_jax.models.modules.scan import stacked
from merit_jax.models.modules.visible import Visible, in_segments


class Embedding(nn.Module):
    """A table of token vectors [vocab, embed]."""

    config: DecoderConfig

    def setup(self):
        """Makes the table."""
        c = self.config
        shape = (c.vocab_size, c.hidden_size)
        self.embedding = parameter(self, "embedding", nn.initializers.normal(0.02), shape, "vocab", "embed")

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[jax.Array, "b t d"]:
        """Looks up tokens; an id past the end of the table gives NaN."""
        return jnp.take(self.embedding, tokens, axis=0, mode="fill").astype(self.config.dtype)

    def attend(self, hidden: Float[Array, "*b d"]) -> Float32[jax.Array, "*b v"]:
        """Computes dot products with every token vector, in float32."""
        dtype, table = self.config.dtype, self.embedding.astype(self.config.dtype)
        return jnp.einsum("...d,vd->...v", hidden.astype(dtype), table, preferred_element_type=jnp.float32)


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), with norms before, after or both, as the config says."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "b t d"],
        context: Context,
        kind: Kind | None,
        number: Int[jax.Array, ""] | None,
        cache: LayerCache | None,
    ) -> tuple[Float[jax.Array, "b t d"], LayerCache | None]:
        """Runs one step of the scan over layers: the residual stream is the carry, the cache an input, its new part an output."""
        c = self.config
        before, after = NORMS[c.norms]
        context = context if kind is None else kind.of(context)

        def norm(x: jax.Array, name: str, present: bool) -> jax.Array:
            return Norm(c, offset=c.norm_offset, name=name)(x) if present else x

        def add(x: jax.Array, y: jax.Array) -> jax.Array:
            return x + (y if c.residual_scale == 1 else y * jnp.asarray(c.residual_scale, y.dtype))

        attended, new = Attention(c, name="attention")(norm(x, "attention_norm", before), context, cache)
        x = add(x, norm(attended, "attention_out_norm", after))
        mlp = MLP(c, c.mlp_bias, c.activation, name="mlp") if c.experts is None else MoE(c, name="mlp")
        x = add(x, norm(mlp(norm(x, "mlp_norm", before)), "mlp_out_norm", after))
        return x if context.deep is None or number is None else context.deep.added(x, number), new


class Decoder(nn.Module):
    """Token ids or vectors in, final hidden states or logits out."""

    config: DecoderConfig

    def setup(self):
        """Makes the parts."""
        c = self.config
        self.embed = Embedding(c)
        self.layers = stacked(Layer, c, c.layers, in_axes=(nn.broadcast, 0, 0, 0))(c)
        self.final_norm = Norm(c, offset=c.norm_offset)
        if not c.tied:
            self.unembed = Projection(c, c.vocab_size, ("embed", "vocab"), out_dtype="float32")

    def __call__(self, tokens: Int[Array, "b t"]) -> Float32[Array, "b t v"]:
        """Computes logits of unpadded rows; visits every parameter, so that `init` makes them all."""
        return self.read(*self.vectors(tokens))

    def read(self, x: Float[jax.Array, "b t d"], deep: Deep | None = None) -> Float32[Array, "b t v"]:
        """Computes logits of the input vectors of unpadded rows."""
        positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        return self.logits(self.run(x, positions, in_segments(jnp.ones_like(positions)), deep=deep)[0])

    def vectors(self, tokens: Int[Array, "b t"], images: Any = None) -> tuple[Float[jax.Array, "b t d"], None]:
        """Looks up the input vectors of tokens; there are no features for later layers.

        Raises:
            ValueError: There are images.
        """
        if images is not None:
            raise ValueError("the batch has images, but this model reads text only: use a vision-language checkpoint")
        c, x = self.config, self.embed(tokens)
        return x if c.embedding_scale == 1 else x * jnp.asarray(c.embedding_scale, x.dtype), None

    def run(
        self,
        x: Float[jax.Array, "b t d"],
        positions: Int[Array, "b t *axes"],
        visible: Visible,
        slots: Int[Array, "b t"] | None = None,
        cache: KVCache | None = None,
        deep: Deep | None = None,
    ) -> tuple[Float[jax.Array, "b t d"], KVCache | None]:
        """Computes final, normalised hidden states of input vectors.

        Args:
            x: Input vectors: of tokens, or of images in their place.
            positions: RoPE positions; with M-RoPE, three per token or one that stands for all three.
            visible: The keys that a token sees.
            slots: Places of the tokens in the cache; None without a cache.
            cache: Earlier keys and values of all layers, or None.
            deep: Image features that are added behind the first layers, or None.

        Returns:
            Hidden states, and the cache with x written into it (None without a cache).
        """
        c = self.config
        context, kinds = self._context(positions, visible, slots)._replace(deep=deep), _kinds(c)
        numbers = None if deep is None else jnp.arange(c.layers)
        if cache is None:
            return self.final_norm(self.layers(x, context, kinds, numbers, None)[0]), None
        old = LayerCache(cache.k, cache.v)
        x, new = self.layers(x, context, kinds, numbers, old)
        return self.final_norm(x), cache._replace(**write(old, new, jnp.asarray(slots))._asdict())

    def logits(self, hidden: Float[Array, "*b d"]) -> Float32[jax.Array, "*b v"]:
        """Computes scores over the vocabulary."""
        c = self.config
        scores = self.embed.attend(hidden) if c.tied else self.unembed(hidden)
        scores = scores if c.logit_scale == 1 else scores * c.logit_scale
        return scores if c.logit_cap is None else c.logit_cap * jnp.tanh(scores / c.logit_cap)

    def _context(
        self, positions: Int[Array, "b t *axes"], visible: Visible, slots: Int[Array, "b t"] | None
    ) -> Context:
        """Computes what the layers share: angles of every rope, the mask of all pairs if there is one, growth of queries."""
        c, growth = self.config, None
        found = [_turns(c, one, positions) for one in c.ropes]
        turns = rope.Turns(*(jnp.stack(part) for part in zip(*found, strict=True))) if c.kinds else found[0]
        if any(kind.window for kind in c.kinds):
            visible = dataclasses.replace(visible, windows=tuple(dict.fromkeys(_windows(c))))
        if c.query_growth is not None:
            beta, length = c.query_growth
            growth = 1 + beta * jnp.log1p(jnp.floor(jnp.asarray(positions, jnp.float32) / length))
        return Context(turns, prepared(visible, c.attention), growth, slots)


def _turns(config: DecoderConfig, one: rope.Rope | None, positions: Int[Array, "b t *axes"]) -> rope.Turns:
    """Computes the angles of a rope; without one, none of the pairs turn."""
    if one is not None:
        axes = None if config.mrope_section is None else rope.pair_axes(config.mrope_section, config.mrope_interleaved)
        return rope.turns(one, config.head_dim, positions, axes)
    shape = (*positions.shape[:2], config.rope.width(config.head_dim) // 2)
    return rope.Turns(jnp.ones(shape), jnp.zeros(shape))


def _kinds(config: DecoderConfig) -> Kind | None:
    """Returns the kinds of all layers; None if they are alike."""
    if not config.kinds:
        return None
    ropes = [config.ropes.index(kind.rope) for kind in config.kinds]
    return Kind(*(jnp.array(numbers, jnp.int32) for numbers in (ropes, _windows(config))))


def _windows(config: DecoderConfig) -> list[int]:
    """Returns the window of every layer."""
    return [kind.window or np.iinfo(np.int32).max for kind in config.kinds]
