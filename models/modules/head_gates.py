"""Reads the number of attention heads from configs, puts gates on them, and collects their entropies."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Float32

from merit_jax.models.heads import DECODER, VISION, Gates, HeadCount, HeadEntropy
from merit_jax.models.interface import DecoderConfig, Params, VisionLanguageConfig
from merit_jax.models.modules.attention import Entropies
from merit_jax.models.modules.scan import ENTROPIES, GATES
from merit_jax.models.modules.vit import ViTConfig

PROJECTIONS = ("query", "key", "value", "qkv", "output")
"""Projections that an attention module may have."""

Config = DecoderConfig | VisionLanguageConfig


def head_counts(config: Config) -> dict[str, HeadCount]:
    """Returns the layers and heads of each part that has any; of a tower, the layers that are run.

    Examples:
        >>> sizes = {"vocab_size": 8, "hidden_size": 8, "kv_heads": 1, "head_dim": 4, "mlp_size": 8}
        >>> head_counts(DecoderConfig(family="llama", layers=3, heads=2, **sizes))
        {'decoder': HeadCount(layers=3, heads=2, groups=1)}
    """
    if isinstance(config, DecoderConfig):
        return {DECODER: HeadCount(config.layers, config.heads, config.kv_heads)}
    tower = config.vision
    layers = tower.depth if isinstance(tower, ViTConfig) else tower.layers
    return head_counts(config.text) | {VISION: HeadCount(layers, tower.heads, tower.heads)}


def attention_paths(config: Config) -> dict[str, tuple[str, ...]]:
    """Returns part -> the path of its attention modules, and so of their projections' parameters."""
    attention = ("layers", "attention")
    if isinstance(config, DecoderConfig):
        return {DECODER: attention}
    of_blocks = ("blocks",) if isinstance(config.vision, ViTConfig) else ("blocks", "attention")
    return {DECODER: (DECODER, *attention), VISION: (VISION, *of_blocks)}


def gate_variables(config: Config, gates: Gates) -> dict[str, Any]:
    """Returns the variables with which a module multiplies what its heads give by gates.

    Args:
        config: The model's.
        gates: Some parts' gates, [layers, heads] or [layers, rows, heads].

    Raises:
        ValueError: A part has no heads, or gates have another shape than the part's heads.
    """
    counts, paths = head_counts(config), attention_paths(config)
    found = {}
    for part, values in gates.items():
        if part not in counts:
            raise ValueError(f"gates of {part!r}: this model has heads in {', '.join(counts)}")
        values, count = jnp.asarray(values), counts[part]
        if values.ndim not in (2, 3) or (values.shape[0], values.shape[-1]) != (count.layers, count.heads):
            raise ValueError(f"gates of {part!r} have shape {values.shape}; expected {count.layers, count.heads}")
        found[*paths[part], "gates"] = values[:, None] if values.ndim == 2 else values
    return {GATES: unflatten_dict(found)} if found else {}


def measured_entropies(
    config: Config, module: nn.Module, variables: Mapping[str, Any], batch: Any
) -> dict[str, HeadEntropy]:
    """Returns each part's entropies, from the variables that a run with `ENTROPIES` mutable has left.

    Args:
        config: The model's.
        module: The model's module.
        variables: Those of the run.
        batch: Its batch.
    """
    left, found = flatten_dict(variables.get(ENTROPIES, {})), {}
    for part, path in attention_paths(config).items():
        if (*path, "entropies") in left:
            entropies = left[*path, "entropies"]
            tokens = jnp.asarray(batch.segments) > 0
            real = tokens if part == DECODER else module.vision.counted(batch.images, entropies.counted.shape[1:])
            found[part] = _of_rows(entropies, real, len(batch.tokens))
    return found


def _of_rows(entropies: Entropies, real: Bool[Array, "n t"], rows: int) -> HeadEntropy:
    """Returns the mean over the queries of each row that count, and their number."""
    values, counted = entropies
    layers, _, _, heads = values.shape
    counts = (counted & real).reshape(layers, rows, counted[0].size // rows)
    by_row = values.reshape(*counts.shape, heads)
    total = jnp.sum(jnp.where(counts[..., None], by_row, 0), axis=2)
    queries: Float[Array, "layers b"] = counts.sum(axis=2).astype(jnp.float32)
    mean: Float32[Array, "layers b heads"] = total / jnp.maximum(queries, 1)[..., None]
    return HeadEntropy(mean, queries)


def head_norms(config: Config, params: Params) -> dict[str, Float32[Array, "layers heads"]]:
    """Returns the Frobenius norm of each head's weights: of its query and output, and of the key and value that it reads."""
    found, leaves = {}, flatten_dict(params)
    for part, path in attention_paths(config).items():
        count, squares = head_counts(config)[part], []
        for name in PROJECTIONS:
            if (*path, name, "kernel") in leaves:
                kernel = jnp.asarray(leaves[*path, name, "kernel"][: count.layers], jnp.float32)
                by_column = jnp.square(kernel).sum(axis=2 if name == "output" else 1)
                holders = count.groups if name in ("key", "value") else count.heads
                by_holder = by_column.reshape(count.layers, 3 if name == "qkv" else 1, holders, -1).sum(axis=(1, 3))
                squares.append(jnp.repeat(by_holder, count.heads // holders, axis=1))
        found[part] = jnp.sqrt(sum(squares))
    return found


def with_gates(config: Config, params: Params, gates: Gates) -> Params:
    """Returns params, all or some, in which the output rows of each head are multiplied by its gate [layers, heads].

    Raises:
        ValueError: As for `gate_variables`.
    """
    found = flatten_dict(params)
    for path, values in flatten_dict(gate_variables(config, gates).get(GATES, {})).items():
        output = (*path[:-1], "output", "kernel")
        if output in found:
            kernel = jnp.asarray(found[output])
            rows = jnp.repeat(values[:, 0], kernel.shape[1] // values.shape[-1], axis=-1)
            rows = jnp.pad(rows, [(0, len(kernel) - len(rows)), (0, 0)], constant_values=1)
            found[output] = (kernel * rows[..., None]).astype(kernel.dtype)
    return unflatten_dict(found)
