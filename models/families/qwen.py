"""The Qwen families: Qwen2 and 2.5 (biases on query, key and value), Qwen3 (norms of queries and keys), Qwen3-MoE."""

from typing import Any

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import attention_biases, parse_decoder
from merit_jax.models.families.rope_parsing import FULL, SLIDING, by_layer_type, one_rope, with_one_window
from merit_jax.models.interface import DecoderConfig, Experts


def parse_qwen2(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Qwen2 config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    return parse_decoder(config, "qwen2", qwen2_settings)


def qwen2_settings(full: Section) -> dict[str, Any]:
    """Returns the fields of `DecoderConfig` in which Qwen2 differs from other families."""
    return {"qkv_bias": True, **layers(full)}


def parse_qwen3(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Qwen3 config; errors as for Qwen2."""
    return parse_decoder(config, "qwen3", lambda full: {**qwen3_attention(full), **layers(full)})


def parse_qwen3_moe(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Qwen3-MoE config; errors as for Qwen2."""

    def settings(full: Section) -> dict[str, Any]:
        full.expect("decoder_sparse_step", 1)
        full.expect("mlp_only_layers", [])
        experts = Experts(
            full.integer("num_experts", full.integer("num_local_experts", 0)),
            full.integer("num_experts_per_tok"),
            full.switch("norm_topk_prob"),
        )
        size = full.integer("moe_intermediate_size")
        return {**qwen3_attention(full), **with_one_window(full), "mlp_size": size, "experts": experts}

    return parse_decoder(config, "qwen3_moe", settings)


def qwen3_attention(full: Section) -> dict[str, Any]:
    """Returns the fields of `DecoderConfig` of a Qwen3 attention."""
    return {"query_key_norm": "head", **attention_biases(full)}


def layers(full: Section) -> dict[str, Any]:
    """Returns the fields of `DecoderConfig` of the layers."""
    rope = one_rope(full)
    return by_layer_type(full, {FULL: rope, SLIDING: rope})
