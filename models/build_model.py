"""Builds a `Model` from a config: the only place where Flax modules become pure functions."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Float, Int, Int32

from merit_jax.models.adapters.attach import Adapter, attach
from merit_jax.models.adapters.forms import Options
from merit_jax.models.heads import Gates, HeadEntropy
from merit_jax.models.interface import (
    SWITCHES,
    Array,
    DecoderConfig,
    KVCache,
    Model,
    Params,
    VisionLanguageConfig,
)
from merit_jax.models.modules.decoder import Decoder
from merit_jax.models.modules.head_gates import gate_variables, head_counts, head_norms, measured_entropies, with_gates
from merit_jax.models.modules.input_grams import with_input_grams
from merit_jax.models.modules.scan import ENTROPIES, GRAMS
from merit_jax.models.modules.visible import Visible, image_blocks, in_cache, in_segments
from merit_jax.models.modules.vision_language import VisionLanguage
from merit_jax.models.rope_settings import LongRopeScaling

Config = DecoderConfig | VisionLanguageConfig


def override(config: Config, overrides: dict[str, Any]) -> Config:
    """Returns the config with some fields replaced.

    Args:
        config: Architecture and switches.
        overrides: Of a decoder, any fields; of a vision-language model `SWITCHES`, which go to all of its parts.

    Raises:
        ValueError: A name is not a field, or the values do not fit together.
    """
    has_parts = isinstance(config, VisionLanguageConfig)
    known = SWITCHES if has_parts else [field.name for field in dataclasses.fields(config)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(f"unknown model option {unknown[0]!r}; known: {', '.join(known)}")
    if not has_parts:
        return dataclasses.replace(config, **overrides)
    parts = {name: getattr(config, name) for name in ("text", "vision", "projector")}
    return dataclasses.replace(config, **{name: dataclasses.replace(part, **overrides) for name, part in parts.items()})


def build(config: Config, **overrides: Any) -> Model:
    """Builds the model of a config.

    Args:
        config: Architecture and switches.
        **overrides: As for `override`.

    Raises:
        ValueError: An override is not known, or the values do not fit together.
    """
    config = override(config, overrides)
    module = _module(config)

    def boxed(rng: Any) -> Any:
        return module.init(rng, jnp.zeros((1, 1), jnp.int32))["params"]

    def init(rng: Any) -> Params:
        return nn.meta.unbox(boxed(rng))

    shapes = jax.eval_shape(boxed, jax.ShapeDtypeStruct((2,), jnp.uint32))
    is_box = lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)  # noqa: E731
    axes = jax.tree.map(lambda box: tuple(box.names), shapes, is_leaf=is_box)
    plain = override(config, {"remat": "none"})
    model = Model(
        config=config,
        init=init,
        logical_axes=axes,
        abstract=nn.meta.unbox(shapes),
        input_grams=_input_grams(plain),
        heads=head_counts(config),
        gated=lambda *_: None,
        head_entropies=partial(_head_entropies, plain, {}),
        head_norms=partial(head_norms, config),
        with_gates=partial(with_gates, config),
        twice=lambda: model,
        adapted=lambda *_: None,
        **_functions(config, partial(_apply, module)),
    )
    if text_of(config).attention != "xla":
        model = dataclasses.replace(model, twice=partial(build, config, attention="xla"))
    return dataclasses.replace(model, adapted=partial(_adapted, model, module), gated=partial(_gated, model, module))


def _apply(module: nn.Module, params: Params, function: Callable[[Any], Any], **collections: Any) -> Any:
    """Returns the result of a function of the module that holds the parameters, and other collections of variables."""
    return module.apply({"params": params, **collections}, method=function)


def _gated(model: Model, module: nn.Module, gates: Gates) -> Model:
    """Makes `Model.gated`."""
    variables = gate_variables(model.config, gates)
    return dataclasses.replace(
        model,
        twice=lambda: model.twice().gated(gates),
        head_entropies=partial(_head_entropies, override(model.config, {"remat": "none"}), variables),
        **_functions(model.config, partial(_apply, module, **variables)),
    )


def _head_entropies(
    config: Config, variables: dict[str, Any], params: Params, batch: Any
) -> tuple[Any, dict[str, HeadEntropy]]:
    """Makes `Model.head_entropies`; `variables` holds the gates, if there are any."""

    def forward(module: Any) -> tuple[jax.Array, dict[str, HeadEntropy]]:
        hidden = _hidden(config, module, batch)
        return hidden, measured_entropies(config, module, module.variables, batch)

    return _module(config).apply({"params": params, **variables}, method=forward, mutable=[ENTROPIES])[0]


def _adapted(
    model: Model,
    module: nn.Module,
    form: str,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    among: Sequence[str] = (".*",),
) -> Adapter:
    """Makes `Model.adapted`."""
    exact, functions = _module(override(model.config, {"dtype": "float32"})), partial(_functions, model.config)
    return attach(module, exact, model, Options(form, rank, alpha, tuple(targets), tuple(among)), functions)


def _functions(config: Config, apply: Callable[[Params, Callable[[Any], Any]], Any]) -> dict[str, Any]:
    """Returns the functions of `Model` that read parameters, by field name; `apply` binds a module to them."""
    text = text_of(config)

    def run(params: Params, *inputs: Any) -> Any:
        return apply(params, lambda module: _run(config, module, *inputs))

    def hidden(params: Params, batch: Any) -> Float[Array, "b t d"]:
        return apply(params, lambda module: _hidden(config, module, batch))

    def unembed(params: Params, hidden: Float[Array, "*b d"]) -> Any:
        return apply(params, lambda module: _decoder(module).logits(hidden))

    def init_cache(rows: int, length: int) -> KVCache:
        _check_one_rope(text, length)
        shape = (text.layers, rows, length, text.kv_heads, text.head_dim)
        return KVCache(jnp.zeros(shape, text.dtype), jnp.zeros(shape, text.dtype), jnp.zeros((1, rows), jnp.int32))

    def prefill(params: Params, batch: Any, cache: KVCache) -> tuple[Float[jax.Array, "b t d"], KVCache]:
        places, positions = jnp.arange(batch.tokens.shape[1]), _positions(batch)
        slots = jnp.where(jnp.asarray(batch.segments) > 0, places, cache.k.shape[2])
        visible = in_cache(slots, cache.k.shape[2], _blocks(config, batch))
        cache = cache._replace(offset=_offset(positions, batch.segments))
        return run(params, batch.tokens, batch.images, positions, visible, slots, cache)

    def decode(
        params: Params, tokens: Int[Array, "b t"], slots: Int[Array, "b t"], cache: KVCache
    ) -> tuple[Float[jax.Array, "b t d"], KVCache]:
        visible = in_cache(slots, cache.k.shape[2])
        return run(params, tokens, None, slots + cache.offset[0][:, None], visible, slots, cache)

    return {
        "hidden": hidden,
        "unembed": unembed,
        "init_cache": init_cache,
        "prefill": prefill,
        "decode": decode,
    }


def _decoder(module: Any) -> Decoder:
    return module if isinstance(module, Decoder) else module.decoder


def _run(
    config: Config,
    module: Any,
    tokens: Any,
    images: Any,
    positions: Any,
    visible: Visible,
    slots: Any = None,
    cache: Any = None,
) -> tuple[Float[jax.Array, "b t d"], KVCache | None]:
    """Returns the hidden states of tokens and images, and the cache with their keys and values in it, by a bound module."""
    x, deep = module.vectors(tokens, images)
    placement = text_of(config).placement
    return _decoder(module).run(x if placement is None else placement.keep(x), positions, visible, slots, cache, deep)


def _hidden(config: Config, module: Any, batch: Any) -> Float[jax.Array, "b t d"]:
    """Returns the hidden states of a batch, by a bound module."""
    visible = in_segments(batch.segments, _blocks(config, batch))
    return _run(config, module, batch.tokens, batch.images, _positions(batch), visible)[0]


def text_of(config: Config) -> DecoderConfig:
    """Returns the decoder's config."""
    return config if isinstance(config, DecoderConfig) else config.text


def _check_one_rope(config: DecoderConfig, length: int) -> None:
    """Refuses a cache in which keys of LongRoPE's short frequencies would meet queries of its long ones.

    Raises:
        ValueError: It is longer than the original context.
    """
    for rope in config.ropes:
        if rope is not None and isinstance(rope.scaling, LongRopeScaling) and length > rope.scaling.original_length:
            raise ValueError(
                f"prompt and response have room for {length} tokens, and past original_max_position_embeddings = "
                f"{rope.scaling.original_length} LongRoPE turns all earlier keys differently, which a cache cannot; use shorter "
                "prompts (evaluate.buckets) and responses (evaluate.max_new_tokens)"
            )


def _module(config: Config) -> Decoder | VisionLanguage:
    return Decoder(config) if isinstance(config, DecoderConfig) else VisionLanguage(config)


def _input_grams(config: Config) -> Callable[[Params, Any], tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
    """Makes `Model.input_grams`."""
    module = _module(config)

    def input_grams(params: Params, batch: Any) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        real = jnp.asarray(batch.segments) > 0

        def forward(module: Any) -> Any:
            def counted(path: tuple[str, ...], shape: tuple[int, ...]) -> jax.Array:
                if isinstance(module, Decoder) or path[0] == "decoder":
                    return real
                return module.counted(batch.images, path, shape)

            def run() -> Any:
                hidden, decoder = _hidden(config, module, batch), _decoder(module)
                return hidden if decoder.config.tied else decoder.logits(hidden)

            return with_input_grams(run, counted)

        _, found = module.apply({"params": params}, method=forward, mutable=[GRAMS])
        kernels = flatten_dict(params)
        parts: dict[str, dict[str, jax.Array]] = {"gram": {}, "count": {}}
        for (*path, name), leaf in flatten_dict(found.get(GRAMS, {})).items():
            parts[name]["/".join((*path, "kernel"))] = _of_all_layers(kernels[*path, "kernel"], leaf)
        return parts["gram"], parts["count"]

    return input_grams


def _of_all_layers(kernel: Array, leaf: Float[jax.Array, "*ran"]) -> Float[jax.Array, "*all"]:
    """Appends zeros for the last layers of a tower that are not run."""
    if kernel.ndim < 3:
        return leaf
    return jnp.pad(leaf, [(0, kernel.shape[0] - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1))


def _blocks(config: Config, batch: Any) -> Int[jax.Array, "b t"] | None:
    """Returns the number of each token's image, if the tokens of an image see each other in both directions."""
    if not isinstance(config, VisionLanguageConfig) or not config.image_blocks:
        return None
    return image_blocks(batch.tokens, batch.segments, config.image_token)


def _positions(batch: Any) -> Int[Array, "b t *axes"]:
    """Returns the RoPE positions of a batch: those that come with its images, if any do."""
    with_images = getattr(batch.images, "positions", None)
    return batch.positions if with_images is None else with_images


def _offset(positions: Int[Array, "b t *axes"], segments: Int[Array, "b t"]) -> Int32[jax.Array, "1 b"]:
    """Computes the position of the token after each prompt, one more than the prompt's largest, minus the prompt's length."""
    wide = jnp.asarray(positions).reshape(*segments.shape, -1)
    real = jnp.asarray(segments) > 0
    following = jnp.where(real[..., None], wide, -1).max(axis=(1, 2)) + 1
    return (following - real.sum(axis=1)).astype(jnp.int32)[None]
