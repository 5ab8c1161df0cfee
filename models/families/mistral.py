"""The Mistral families: Mistral, Ministral, Ministral 3 (queries that grow with their position) and Mixtral (experts)."""

from typing import Any

from merit_jax.models.families import layout
from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import parse_decoder
from merit_jax.models.families.qwen import layers
from merit_jax.models.families.rope_parsing import rope_settings, with_one_window
from merit_jax.models.interface import DecoderConfig, Experts, QueryGrowth
from merit_jax.models.io.weight_map import WeightRow


def parse_mistral(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Mistral config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    return parse_decoder(config, "mistral", with_one_window)


def parse_ministral(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Ministral config; errors as for Mistral."""
    return parse_decoder(config, "ministral", layers)


def parse_ministral3(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Ministral 3 config; errors as for Mistral."""
    return parse_decoder(config, "ministral3", lambda full: {**with_one_window(full), "query_growth": _growth(full)})


def _growth(full: Section) -> QueryGrowth | None:
    rope = rope_settings(full)
    beta = rope.number("llama_4_scaling_beta")
    if not beta:
        return None
    return QueryGrowth(beta, int(rope.positive("original_max_position_embeddings")))


def parse_mixtral(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Mixtral config; errors as for Mistral."""

    def settings(full: Section) -> dict[str, Any]:
        full.expect("router_jitter_noise", None, 0)
        count = full.integer("num_local_experts", full.integer("num_experts", 0))
        return {**with_one_window(full), "experts": Experts(count, full.integer("num_experts_per_tok"))}

    return parse_decoder(config, "mixtral", settings)


def mixtral_rows(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Returns the key table of a Mixtral checkpoint."""
    experts = layout.experts(f"{layout.LAYER}.block_sparse_moe", (("w1", "gate"), ("w3", "up"), ("w2", "down")))
    return (*layout.ends(config), *layout.norms(config), *layout.attention(config), *experts)
