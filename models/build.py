"""From a `DecoderConfig` to a `Model`: the only place where Flax modules become pure functions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Float32, Int

from models.decoder import Decoder, segment_mask, slot_mask
from models.interface import Array, DecoderConfig, KVCache, Model, Params


def override(config: DecoderConfig, overrides: dict[str, Any]) -> DecoderConfig:
    """The config with some fields replaced.

    Raises:
        ValueError: A name is not a field, or the values do not fit together.
    """
    known = [field.name for field in dataclasses.fields(config)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(f"unknown decoder option {unknown[0]!r}; known: {', '.join(known)}")
    return dataclasses.replace(config, **overrides)


def build(config: DecoderConfig, **overrides: Any) -> Model:
    """The model of a config.

    Args:
        config: Architecture and switches.
        **overrides: Fields of the config to replace.

    Raises:
        ValueError: An override is not a field of the config, or the values do not fit together.
    """
    config = override(config, overrides)
    decoder = Decoder(config)

    def boxed(rng: Any) -> Any:
        return decoder.init(rng, jnp.zeros((1, 1), jnp.int32))["params"]

    def init(rng: Any) -> Params:
        return nn.meta.unbox(boxed(rng))

    shapes = jax.eval_shape(boxed, jax.ShapeDtypeStruct((2,), jnp.uint32))
    is_box = lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)  # noqa: E731
    axes = jax.tree.map(lambda box: tuple(box.names), shapes, is_leaf=is_box)
    return Model(
        config=config, init=init, logical_axes=axes, abstract=nn.meta.unbox(shapes), **_functions(config, decoder)
    )


def _functions(config: DecoderConfig, decoder: Decoder) -> dict[str, Any]:
    """The functions of `Model` that read parameters, by field name."""

    def run(params: Params, tokens: Int[Array, "b t"], *args: Any) -> Any:
        def forward(module: Decoder) -> Any:
            return module.run(module.vectors(tokens), *args)

        return decoder.apply({"params": params}, method=forward)

    def hidden(params: Params, batch: Any) -> Float[Array, "b t d"]:
        _refuse_images(batch)
        return run(params, batch.tokens, batch.positions, segment_mask(batch.segments))[0]

    def unembed(params: Params, hidden: Float[Array, "*b d"]) -> Float32[Array, "*b v"]:
        return decoder.apply({"params": params}, hidden, method=Decoder.logits)

    def init_cache(rows: int, length: int) -> KVCache:
        shape = (config.layers, rows, length, config.kv_heads, config.head_dim)
        return KVCache(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))

    def prefill(params: Params, batch: Any, cache: KVCache) -> tuple[Float[Array, "b t d"], KVCache]:
        _refuse_images(batch)
        places = jnp.arange(batch.tokens.shape[1])
        slots = jnp.where(jnp.asarray(batch.segments) > 0, places, cache.k.shape[2])
        return run(params, batch.tokens, batch.positions, slot_mask(slots, cache.k.shape[2]), slots, cache)

    def decode(
        params: Params, tokens: Int[Array, "b t"], slots: Int[Array, "b t"], cache: KVCache
    ) -> tuple[Float[Array, "b t d"], KVCache]:
        return run(params, tokens, slots, slot_mask(slots, cache.k.shape[2]), slots, cache)

    return {"hidden": hidden, "unembed": unembed, "init_cache": init_cache, "prefill": prefill, "decode": decode}


def _refuse_images(batch: Any) -> None:
    """Raises ValueError if a text model is given images."""
    if batch.images is not None:
        raise ValueError("the batch has images, but this model reads text only: use a vision-language checkpoint")
