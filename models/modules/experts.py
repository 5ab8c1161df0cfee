"""A mixture of experts: gated MLPs of which each token uses a few, as one product per kernel over tokens sorted by expert."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int, Int32

from merit_jax.models.interface import ACTIVATIONS, DecoderConfig
from merit_jax.models.modules.grouped import grouped_product
from merit_jax.models.modules.layers import Projection, parameter

_init_kernels = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", batch_axis=0)


class Routed(NamedTuple):
    """Vectors sorted by the expert that they go to.

    Attributes:
        x: The vectors, those of the first expert first.
        sizes: Vectors of each expert.
        tokens: Place in the batch, counted over all rows, of the token that a vector is of.
    """

    x: Float[jax.Array, "n d"]
    sizes: Int32[jax.Array, " experts"]
    tokens: Int[jax.Array, " n"]


class ExpertProjection(nn.Module):
    """y_i = x_i W_e(i) with a kernel [experts, in, out].

    Attributes:
        config: Types of computation and parameters, and number of experts.
        features: Width of the output.
        axes: Logical names of a kernel's two dimensions.
    """

    config: DecoderConfig
    features: int
    axes: tuple[str, str]

    @nn.compact
    def __call__(self, routed: Routed) -> Float[jax.Array, "n f"]:
        """Projects each vector by its expert."""
        x, sizes, _ = routed
        shape = (sizes.shape[0], x.shape[-1], self.features)
        kernel = parameter(self, "kernel", _init_kernels, shape, "experts", *self.axes)
        return grouped_product(x, kernel.astype(x.dtype), sizes)


class MoE(nn.Module):
    """Σ_e w_e MLP_e(x) over the experts with the highest router scores, w their softmax (Mixtral, Qwen3-MoE).

    Nothing balances the load of the experts: the loss is that of the tokens alone.
    """

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: Float[jax.Array, "b t d"]) -> Float[jax.Array, "b t d"]:
        """Applies each token's experts."""
        c = self.config
        assert c.experts is not None
        count, chosen = c.experts.total, c.experts.chosen
        scores = Projection(c, count, ("embed", None), out_dtype="float32", name="router")(x)
        weights, experts = jax.lax.top_k(jax.nn.softmax(scores), chosen)
        if c.experts.normalised:
            weights = weights / weights.sum(axis=-1, keepdims=True)
        order = jnp.argsort(experts.ravel(), stable=True)
        sizes = jnp.bincount(experts.ravel(), length=count).astype(jnp.int32)
        routed = Routed(x.reshape(-1, x.shape[-1])[order // chosen], sizes, order // chosen)
        gate = ExpertProjection(c, c.mlp_size, ("embed", "mlp"), name="gate")(routed)
        up = ExpertProjection(c, c.mlp_size, ("embed", "mlp"), name="up")(routed)
        gated = routed._replace(x=ACTIVATIONS[c.activation](gate) * up)
        found = ExpertProjection(c, c.hidden_size, ("mlp", "embed"), name="down")(gated)
        each = jnp.zeros_like(found).at[order].set(found).reshape(*x.shape[:-1], chosen, x.shape[-1])
        return jnp.einsum("...kd,...k->...d", each, weights.astype(x.dtype))
