"""The parts of a layer: normalisation, projection, attention with an optional cache, gated MLP."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Float32, Int, Int32

from merit_jax.models.interface import ACTIVATIONS, Array, DecoderConfig, StackConfig
from merit_jax.models.modules import rope
from merit_jax.models.modules.attention import attend, heads_of, wants_entropies
from merit_jax.models.modules.visible import Visible

_init_kernel = nn.initializers.lecun_normal()


def parameter(module: Any, name: str, init: Callable[..., Any], shape: tuple[int, ...], *axes: str | None) -> Any:
    """Makes a parameter of a module, in its config's `param_dtype`, with a logical name for each axis; qwix may pack it."""
    return module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.dtype(module.config.param_dtype))


class Deep(NamedTuple):
    """Image features that are added to the residual stream behind the first layers (DeepStack).

    Attributes:
        features: Those of each of the layers.
        slots: Place in the row of each feature.
        valid: 1 for features that are added.
    """

    features: Float[Array, "deep b f d"]
    slots: Int[Array, "b f"]
    valid: Bool[Array, "b f"]

    def added(self, x: Float[jax.Array, "b t d"], layer: Int32[jax.Array, ""]) -> Float[jax.Array, "b t d"]:
        """Returns the residual stream behind a layer with the features of that layer, if it has any."""
        rows = jnp.arange(x.shape[0])[:, None]
        slots = jnp.where(jnp.asarray(self.valid, bool), self.slots, x.shape[1])

        def add(x: jax.Array) -> jax.Array:
            features = jax.lax.dynamic_index_in_dim(jnp.asarray(self.features), layer, keepdims=False)
            return x.at[rows, slots].add(features.astype(x.dtype), mode="drop")

        return jax.lax.cond(layer < len(self.features), add, lambda x: x, x)


class Context(NamedTuple):
    """The inputs of every layer besides the residual stream.

    Attributes:
        turns: RoPE angles of the tokens; where layers differ, those of every rope.
        visible: The keys that a token sees.
        growth: Factors of the queries; None: 1.
        slots: Cache slots of the tokens; None without a cache.
        deep: Image features for the first layers, if there are any.
    """

    turns: rope.Turns
    visible: Visible
    growth: Float32[jax.Array, "b t"] | None
    slots: Int[Array, "b t"] | None
    deep: Deep | None = None


class Kind(NamedTuple):
    """The choice of one layer, or with a leading axis of each, among what the context has.

    Attributes:
        rope: Its rope.
        window: Tokens that a token sees, itself included.
    """

    rope: Int32[Array, "*layers"]
    window: Int32[Array, "*layers"]

    def of(self, context: Context) -> Context:
        """Returns the context as the layer sees it."""
        visible = context.visible
        if visible.windows:
            visible = dataclasses.replace(visible, window=jnp.asarray(self.window))
        return context._replace(turns=rope.Turns(*(part[self.rope] for part in context.turns)), visible=visible)


class LayerCache(NamedTuple):
    """The keys and values of one layer, or, with a leading axis, of all."""

    k: Float[jax.Array, "*layers b slots kv_heads head_dim"]
    v: Float[jax.Array, "*layers b slots kv_heads head_dim"]


class Norm(nn.Module):
    """y = (scale + offset) x / sqrt(mean(x^2) + eps), in float32 or wider (RMSNorm); if `centred`, of x - mean(x), plus bias."""

    config: StackConfig
    centred: bool = False
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Float[jax.Array, "*b d"]) -> Float[jax.Array, "*b d"]:
        """Normalises the last axis."""
        scale = parameter(self, "scale", nn.initializers.constant(1 - self.offset), x.shape[-1:], "norm")
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.centred:
            wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.config.norm_eps)
        wide_scale = scale.astype(wide.dtype)
        y = normed * (wide_scale + self.offset if self.offset else wide_scale)
        if self.centred:
            y = y + parameter(self, "bias", nn.initializers.zeros_init(), x.shape[-1:], "norm").astype(wide.dtype)
        return y.astype(self.config.dtype)


class Projection(nn.Module):
    """y = x W + b with a two-dimensional kernel [in, out].

    Attributes:
        config: Types of computation and parameters.
        features: Width of the output.
        axes: Logical names of the kernel's two dimensions.
        use_bias: Whether there is a b.
        out_dtype: Type of the output; None for the computation's.
    """

    config: StackConfig
    features: int
    axes: tuple[str | None, str | None]
    use_bias: bool = False
    out_dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[jax.Array, "*b f"]:
        """Projects the last axis."""
        dtype = self.config.dtype
        kernel = parameter(self, "kernel", _init_kernel, (x.shape[-1], self.features), *self.axes)
        tokens = x.astype(dtype).reshape(-1, x.shape[-1])
        last_and_first = (((1,), (0,)), ((), ()))
        y = jax.lax.dot_general(tokens, kernel.astype(dtype), last_and_first, preferred_element_type=self.out_dtype)
        y = y.reshape(*x.shape[:-1], self.features)
        if not self.use_bias:
            return y
        return y + parameter(self, "bias", nn.initializers.zeros_init(), (self.features,), self.axes[1]).astype(dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "b t d"], context: Context, cache: LayerCache | None
    ) -> tuple[Float[jax.Array, "b t d"], LayerCache | None]:
        """Attends within x, or, with a cache of this layer, to the cache with x in it, and returns x's keys and values too."""
        c = self.config
        query = self._heads(x, "query", c.heads, "heads", c.query_key_norm)
        key = self._heads(x, "key", c.kv_heads, "kv", c.query_key_norm)
        value = self._heads(x, "value", c.kv_heads, "kv")
        query, key = rope.turn(query, context.turns), rope.turn(key, context.turns)
        if context.growth is not None:
            query = (query * context.growth[:, :, None, None]).astype(query.dtype)
        new = None
        if cache is not None:
            new = LayerCache(key, value)
            key, value = write(cache, new, jnp.asarray(context.slots))
        wanted = wants_entropies(self)
        options: Any = {
            "scale": c.attention_scale,
            "implementation": c.attention,
            "entropies": wanted,
            "placement": c.placement,
        }
        heads = heads_of(self, attend(query, key, value, context.visible, **options))
        return Projection(c, c.hidden_size, ("heads", "embed"), c.output_bias, name="output")(heads), new

    def _heads(
        self, x: Float[jax.Array, "b t d"], name: str, heads: int, axis: str, norm: str | None = None
    ) -> Float[jax.Array, "b t heads dim"]:
        c = self.config
        y = Projection(c, heads * c.head_dim, ("embed", axis), c.qkv_bias, name=name)(x)
        if norm == "width":
            y = Norm(c, offset=c.norm_offset, name=f"{name}_norm")(y)
        y = y.reshape(*x.shape[:2], heads, c.head_dim)
        return Norm(c, offset=c.norm_offset, name=f"{name}_norm")(y) if norm == "head" else y


def write(cache: LayerCache, new: LayerCache, slots: Int[jax.Array, "b t"]) -> LayerCache:
    """Writes keys and values to their slots, in one layer or in all; slots past the end are dropped."""
    rows = jnp.arange(slots.shape[0])[:, None]
    return LayerCache(*(old.at[..., rows, slots, :, :].set(x, mode="drop") for old, x in zip(cache, new, strict=True)))


class MLP(nn.Module):
    """W_down (a(W_gate x) * W_up x) with the nonlinearity a, SwiGLU if it is silu; with a bias on each product if `use_bias`."""

    config: Any
    use_bias: bool = False
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: Float[jax.Array, "b t d"]) -> Float[jax.Array, "b t d"]:
        """Applies the gated layer to each token."""
        c = self.config
        gate = Projection(c, c.mlp_size, ("embed", "mlp"), self.use_bias, name="gate")(x)
        up = Projection(c, c.mlp_size, ("embed", "mlp"), self.use_bias, name="up")(x)
        return Projection(c, c.hidden_size, ("mlp", "embed"), self.use_bias, name="down")(
            ACTIVATIONS[self.activation](gate) * up
        )
