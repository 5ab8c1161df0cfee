"""The Qwen2 and Qwen2.5 family: Llama with biases on query, key and value."""

from merit_jax.models.families import llama
from merit_jax.models.families.config_parsing import Section, parse_decoder
from merit_jax.models.interface import DecoderConfig
from merit_jax.models.io.weight_map import WeightRow

BIASES = (
    WeightRow("model.layers.{layer}.self_attn.q_proj.bias", "layers/attention/query/bias"),
    WeightRow("model.layers.{layer}.self_attn.k_proj.bias", "layers/attention/key/bias"),
    WeightRow("model.layers.{layer}.self_attn.v_proj.bias", "layers/attention/value/bias"),
)


def parse(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Qwen2 config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    return parse_decoder(config, "qwen2", qkv_bias=True)


def rows(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Returns the key table of a Qwen2 checkpoint."""
    return llama.rows(config) + BIASES
