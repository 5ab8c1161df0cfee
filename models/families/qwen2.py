"""The Qwen2 and Qwen2.5 family: Llama with biases on query, key and value."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.families import config_parsing, llama
from models.interface import DecoderConfig
from models.io.weight_map import WeightRow

BIASES = (
    WeightRow("model.layers.{layer}.self_attn.q_proj.bias", "layers/attention/query/bias"),
    WeightRow("model.layers.{layer}.self_attn.k_proj.bias", "layers/attention/key/bias"),
    WeightRow("model.layers.{layer}.self_attn.v_proj.bias", "layers/attention/value/bias"),
)


def parse(raw: Mapping[str, Any], where: str) -> DecoderConfig:
    """The decoder of a Hugging Face Qwen2 config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not do.
    """
    return dataclasses.replace(config_parsing.parse_decoder(raw, "qwen2", where), qkv_bias=True)


def rows(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Tensors of a Qwen2 checkpoint."""
    return llama.rows(config) + BIASES


def optional_rows(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Tensors that some Qwen2 checkpoints also store."""
    return llama.optional_rows(config)
