"""The Granite family: Llama with factors of token vectors, attention, residual stream and logits."""

from typing import Any

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import attention_biases, parse_decoder
from merit_jax.models.families.rope_parsing import without_windows
from merit_jax.models.interface import DecoderConfig


def parse(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Granite config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    return parse_decoder(config, "granite", _settings)


def _settings(full: Section) -> dict[str, Any]:
    return {
        **without_windows(full),
        **attention_biases(full),
        "mlp_bias": full.switch("mlp_bias"),
        "embedding_scale": full.number("embedding_multiplier"),
        "attention_scale": full.number("attention_multiplier"),
        "residual_scale": full.number("residual_multiplier"),
        "logit_scale": 1 / full.positive("logits_scaling"),
    }
