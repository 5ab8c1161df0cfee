"""The Gemma 3 text family: four norms in a layer, windows with a RoPE of their own in most, scaled token vectors."""

import math
from typing import Any

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import attention_biases, parse_decoder
from merit_jax.models.families.rope_parsing import by_layer_type, ropes_by_type
from merit_jax.models.interface import DecoderConfig


def parse_text(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Gemma 3 text config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    return parse_decoder(config, "gemma3_text", _settings, tied=True, activation="hidden_activation")


def _settings(full: Section) -> dict[str, Any]:
    full.expect("use_bidirectional_attention", None, False)
    full.expect("attn_logit_softcapping", None)
    return {
        **by_layer_type(full, ropes_by_type(full)),
        **attention_biases(full),
        "query_key_norm": "head",
        "attention_scale": full.positive("query_pre_attn_scalar") ** -0.5,
        "norms": "both",
        "norm_offset": 1.0,
        "embedding_scale": math.sqrt(full.integer("hidden_size")),
        "logit_cap": None if full.get("final_logit_softcapping") is None else full.positive("final_logit_softcapping"),
    }
