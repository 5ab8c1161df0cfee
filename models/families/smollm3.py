"""The SmolLM3 family: Llama with layers whose tokens have no positions (NoPE)."""

from typing import Any

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import attention_biases, parse_decoder
from merit_jax.models.families.rope_parsing import FULL, SLIDING, by_layer_type, one_rope
from merit_jax.models.interface import DecoderConfig


def parse(config: Section) -> DecoderConfig:
    """Reads a Hugging Face SmolLM3 config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    return parse_decoder(config, "smollm3", _settings, tied=True)


def _settings(full: Section) -> dict[str, Any]:
    turned, rope = full.get("no_rope_layers"), one_rope(full)
    if not isinstance(turned, list | tuple) or len(turned) < full.integer("num_hidden_layers"):
        full.refuse("no_rope_layers", turned, f"; expected a list of {full.raw['num_hidden_layers']} times 0 or 1")
    windows = full if full.switch("use_sliding_window") else Section(_unwindowed(full), full.where)
    kinds = by_layer_type(windows, {FULL: rope, SLIDING: rope}, lambda layer: bool(turned[layer]))
    return {**kinds, **attention_biases(full), "mlp_bias": full.switch("mlp_bias")}


def _unwindowed(full: Section) -> dict[str, Any]:
    full.expect("layer_types", [FULL] * full.integer("num_hidden_layers"))
    return dict(full.raw)
