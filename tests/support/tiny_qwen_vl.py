"""Tiny Qwen2.5-VL folders with tokenizer and image processor, written without PyTorch; published configs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerFast

from merit_jax.models import build
from merit_jax.models.families.registry import FAMILIES, parse_config
from merit_jax.models.io.weight_map import expand, leaf_shapes, tensor_shape
from tests.support.tiny_tiles import WORDS, word_level

SPECIALS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ ' ' + part['text'] + ' ' }}{% endif %}"
    "{% endfor %}<end> {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TOKEN = 8
"""Side of the square of pixels that becomes one token."""
MAX_PIXELS = 40 * TOKEN**2
TEXT = {
    "vocab_size": len(WORDS) + len(SPECIALS),
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "max_position_embeddings": 512,
    "hidden_act": "silu",
    "use_sliding_window": False,
    "sliding_window": 64,
}
VISION = {
    "depth": 4,
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_heads": 2,
    "in_chans": 3,
    "out_hidden_size": 32,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "spatial_patch_size": 4,
    "window_size": 16,
    "fullatt_block_indexes": [1, 3],
    "tokens_per_second": 2,
    "temporal_patch_size": 2,
}
"""Windows of 2 x 2 tokens."""


def hf_config(**changes: Any) -> dict[str, Any]:
    """The config.json of the tiny model, in the layout of the published checkpoints."""
    content = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "image_token_id": len(WORDS) + 2,
        "video_token_id": len(WORDS) + 3,
        "vision_start_token_id": len(WORDS),
        "vision_end_token_id": len(WORDS) + 1,
        "bos_token_id": 0,
        "eos_token_id": 4,
        "tie_word_embeddings": False,
        "vision_config": VISION,
        **TEXT,
    }
    return {**content, **changes}


def image_config(**changes: Any) -> dict[str, Any]:
    """The preprocessor_config.json of the tiny model."""
    content = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 4 * TOKEN**2,
        "max_pixels": MAX_PIXELS,
        "patch_size": 4,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    return {**content, **changes}


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with the special tokens and the image part of the template of Qwen2.5-VL."""
    return word_level(WORDS, SPECIALS, TEMPLATE, eos_token="<end>")


def tensors(raw: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Random tensors of a checkpoint, none constant."""
    config = parse_config(hf_config() if raw is None else raw, "tiny")
    shapes, rng = leaf_shapes(build(config).abstract), np.random.default_rng(1)
    return {
        place.key: rng.normal(0.1, 0.2, tensor_shape(shapes[path], place)).astype(np.float32)
        for path, place in expand(FAMILIES[config.family].rows(config), shapes)
    }


def folder(path: Path, *, weights: Any = None, images: Mapping[str, Any] | None = None, **changes: Any) -> Path:
    """Writes a checkpoint folder; `changes` go into its config.json, `images` into its preprocessor_config.json."""
    return written(path, hf_config(**changes), images, weights)


def written(path: Path, raw: Mapping[str, Any], images: Mapping[str, Any] | None = None, weights: Any = None) -> Path:
    """Writes a checkpoint folder with a config.json; `images` go into its preprocessor_config.json."""
    path.mkdir(parents=True)
    save_file(tensors(raw) if weights is None else weights, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(raw))
    return helpers(path, images)


def helpers(path: Path, images: Mapping[str, Any] | None = None) -> Path:
    """Adds tokenizer and image processor to a folder."""
    tokenizer().save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(image_config(**(images or {}))))
    return path


_PUBLISHED = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 128000,
    "model_type": "qwen2_5_vl",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
_PUBLISHED_VISION = {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_chans": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    "temporal_patch_size": 2,
}
PUBLISHED = {
    "3B": {
        **_PUBLISHED,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "max_window_layers": 70,
        "num_attention_heads": 16,
        "num_hidden_layers": 36,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
        "vision_config": {**_PUBLISHED_VISION, "out_hidden_size": 2048},
    },
    "7B": {
        **_PUBLISHED,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "max_window_layers": 28,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
        "vocab_size": 152064,
        "vision_config": {**_PUBLISHED_VISION, "out_hidden_size": 3584},
    },
}
"""The config.json of the published instruction-tuned models."""
