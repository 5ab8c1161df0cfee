"""The Llama family: Llama 1 to 3.3, SmolLM and SmolLM2, and others with `model_type` "llama"."""

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import attention_biases, parse_decoder
from merit_jax.models.families.rope_parsing import without_windows
from merit_jax.models.interface import DecoderConfig


def parse(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Llama config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    return parse_decoder(
        config,
        "llama",
        lambda full: {**without_windows(full), **attention_biases(full), "mlp_bias": full.switch("mlp_bias")},
    )
