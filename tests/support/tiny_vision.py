"""A tiny Qwen2.5-VL folder without weights, pictures, and rows that name them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import PreTrainedTokenizerFast

from tests.support.tiny_tokenizer import tiny_tokenizer

VISION = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}{{ '" + "".join(VISION) + "' }}{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIDE = 8
"""Pixels of one image token's side."""


def tokenizer(template: str = TEMPLATE, special: tuple[str, ...] = VISION) -> PreTrainedTokenizerFast:
    """The byte-level tokenizer with image tokens and a template that takes parts."""
    result = tiny_tokenizer(template)
    result.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *special]})
    return result


def folder(path: Path, words: PreTrainedTokenizerFast | None = None, **changes: Any) -> Path:
    """Writes config, image processor and tokenizer; `changes` go into the config."""
    words = words or tokenizer()
    words.save_pretrained(path)
    config = {
        "model_type": "qwen2_5_vl",
        "image_token_id": tokenizer().convert_tokens_to_ids("<|image_pad|>"),
        "vocab_size": len(tokenizer()),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "tie_word_embeddings": True,
        "vision_config": {
            "depth": 1,
            "hidden_size": 16,
            "out_hidden_size": 16,
            "num_heads": 2,
            "intermediate_size": 32,
            "patch_size": SIDE // 2,
            "window_size": 2 * SIDE,
            "fullatt_block_indexes": [0],
        },
        **changes,
    }
    images = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "size": {"shortest_edge": SIDE * SIDE, "longest_edge": 64 * SIDE * SIDE},
        "patch_size": SIDE // 2,
        "merge_size": 2,
        "temporal_patch_size": 2,
    }
    for name, content in {"config": config, "preprocessor_config": images}.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def picture(path: Path, height: int, width: int, mode: str = "RGB", **options: Any) -> Path:
    """Writes a picture of noise; `options` are those of Pillow's `save`."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    Image.fromarray(noise, "RGBA").convert("RGB" if mode == "P" else mode).convert(mode).save(path, **options)
    return path


def llava(images: str | list[str] = (), question: str = "What is this?", answer: str = "noise", **fields: Any) -> dict:
    """A row of LLaVA's format; without images, one of text."""
    count = 1 if isinstance(images, str) else len(images)
    turns = [{"from": "human", "value": "<image>\n" * count + question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, **fields, **({"image": images} if count else {})}
