"""The OLMo families: OLMo 2 (norms after attention and MLP, and of queries and keys over all heads) and OLMo 3 (windows)."""

from typing import Any

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import attention_biases, parse_decoder
from merit_jax.models.families.rope_parsing import by_layer_type, ropes_by_type, without_windows
from merit_jax.models.interface import DecoderConfig


def parse_olmo2(config: Section) -> DecoderConfig:
    """Reads a Hugging Face OLMo 2 config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    return parse_decoder(config, "olmo2", lambda full: {**_block(full), **without_windows(full)})


def parse_olmo3(config: Section) -> DecoderConfig:
    """Reads a Hugging Face OLMo 3 config; errors as for OLMo 2."""
    return parse_decoder(config, "olmo3", lambda full: {**_block(full), **by_layer_type(full, ropes_by_type(full))})


def _block(full: Section) -> dict[str, Any]:
    return {"norms": "after", "query_key_norm": "width", **attention_biases(full)}
