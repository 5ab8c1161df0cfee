"""The parts of a decoder layer: normalisation, projection, attention with an optional cache, SwiGLU."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Float32, Int

from models.interface import Array, DecoderConfig, StackConfig
from models.modules import rope

_init_kernel = nn.initializers.lecun_normal()


class Context(NamedTuple):
    """What every layer needs besides the residual stream.

    Attributes:
        theta: RoPE angles of the tokens, in radians.
        mask: True where a query (third axis) may see a key (fourth axis).
        slots: Cache slots of the tokens; None without a cache.
    """

    theta: Float32[Array, "b t half"]
    mask: Bool[Array, "b 1 t s"]
    slots: Int[Array, "b t"] | None


class LayerCache(NamedTuple):
    """The keys and values of one layer, or, with a leading axis, of all."""

    k: Float[Array, "*layers b slots kv_heads head_dim"]
    v: Float[Array, "*layers b slots kv_heads head_dim"]


class RMSNorm(nn.Module):
    """y = scale * x / sqrt(mean(x^2) + eps), in float32."""

    config: StackConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Normalises the last axis."""
        init = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
        scale = self.param("scale", init, (x.shape[-1],), jnp.dtype(self.config.param_dtype))
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.config.norm_eps)
        return (normed * scale.astype(jnp.float32)).astype(self.config.dtype)


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
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b f"]:
        """Projects the last axis."""
        dtype, param_dtype = self.config.dtype, jnp.dtype(self.config.param_dtype)
        init = nn.with_logical_partitioning(_init_kernel, self.axes)
        kernel = self.param("kernel", init, (x.shape[-1], self.features), param_dtype)
        tokens = x.astype(dtype).reshape(-1, x.shape[-1])
        y = jnp.matmul(tokens, kernel.astype(dtype), preferred_element_type=self.out_dtype)
        y = y.reshape(*x.shape[:-1], self.features)
        if not self.use_bias:
            return y
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[1:])
        return y + self.param("bias", init, (self.features,), param_dtype).astype(dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: LayerCache | None
    ) -> tuple[Float[Array, "b t d"], LayerCache | None]:
        """Attends within x, or, given this layer's cache, to the cache with x in it; returns x's keys and values then."""
        c = self.config
        query = self._heads(x, "query", c.heads, "heads")
        key = self._heads(x, "key", c.kv_heads, "kv")
        value = self._heads(x, "value", c.kv_heads, "kv")
        query, key = rope.rotate(query, context.theta), rope.rotate(key, context.theta)
        new = None
        if cache is not None:
            new = LayerCache(key, value)
            key, value = write(cache, new, context.slots)
        seen = jax.nn.dot_product_attention(query, key, value, mask=context.mask, implementation=c.attention)
        seen = seen.reshape(*x.shape[:2], c.heads * c.head_dim)
        return Projection(c, c.hidden_size, ("heads", "embed"), name="output")(seen), new

    def _heads(self, x: Float[Array, "b t d"], name: str, heads: int, axis: str) -> Float[Array, "b t heads dim"]:
        c = self.config
        y = Projection(c, heads * c.head_dim, ("embed", axis), c.qkv_bias, name=name)(x)
        return y.reshape(*x.shape[:2], heads, c.head_dim)


def write(cache: LayerCache, new: LayerCache, slots: Int[Array, "b t"]) -> LayerCache:
    """Puts keys and values at their slots, in one layer or in all; slots past the end are dropped."""
    rows = jnp.arange(slots.shape[0])[:, None]
    return LayerCache(*(old.at[..., rows, slots, :, :].set(x, mode="drop") for old, x in zip(cache, new, strict=True)))


class MLP(nn.Module):
    """SwiGLU: W_down (silu(W_gate x) * W_up x)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Applies the gated layer to each token."""
        c = self.config
        gate = Projection(c, c.mlp_size, ("embed", "mlp"), name="gate")(x)
        up = Projection(c, c.mlp_size, ("embed", "mlp"), name="up")(x)
        return Projection(c, c.hidden_size, ("mlp", "embed"), name="down")(nn.silu(gate) * up)
