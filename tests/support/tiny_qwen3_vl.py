"""Tiny Qwen3-VL folders, with the tokenizer and the image processor of the tiny Qwen2.5-VL."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tests.support.tiny_qwen_vl as qwen

TEXT = {
    "model_type": "qwen3_vl_text",
    "vocab_size": qwen.TEXT["vocab_size"],
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True},
    "max_position_embeddings": 512,
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 4,
}
VISION = {
    "model_type": "qwen3_vl",
    "depth": 4,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 32,
    "intermediate_size": 20,
    "num_heads": 2,
    "in_channels": 3,
    "out_hidden_size": 24,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 36,
    "deepstack_visual_indexes": [0, 2],
}


def hf_config(**changes: Any) -> dict[str, Any]:
    """The config.json of the tiny model, in the layout of the published checkpoints."""
    outer = {
        key: value for key, value in qwen.hf_config().items() if key not in (*qwen.TEXT, "bos_token_id", "eos_token_id")
    }
    content = {
        **outer,
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": TEXT,
        "vision_config": VISION,
    }
    return {**content, **changes}


def folder(path: Path, *, images: Mapping[str, Any] | None = None, **changes: Any) -> Path:
    """Writes a checkpoint folder; `changes` go into its config.json, `images` into its preprocessor_config.json."""
    return qwen.written(path, hf_config(**changes), images)
