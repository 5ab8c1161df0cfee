"""A Qwen2.5-VL of 1.3 million parameters for 36x36 pictures: nine image tokens, one for each cell of the grid."""

import json
from pathlib import Path

from merit_jax.examples.shapes.render import CELL, SIDE
from merit_jax.examples.shapes.vocabulary import END, IMAGE, PAD, VIDEO, VISION_END, VISION_START, VOCABULARY

PATCH = CELL // 2
ID = {token: number for number, token in enumerate(VOCABULARY)}


def text_config() -> dict:
    """Returns the config of the decoder."""
    return {
        "model_type": "qwen2_5_vl_text",
        "vocab_size": -(-len(VOCABULARY) // 64) * 64,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": ID[END],
        "pad_token_id": ID[PAD],
    }


def vision_config() -> dict:
    """Returns the config of the vision tower: windows of 2x2 cells in the first layer, the whole picture in the others."""
    return {
        "model_type": "qwen2_5_vl_vision",
        "depth": 3,
        "hidden_size": 96,
        "hidden_act": "silu",
        "intermediate_size": 192,
        "num_heads": 4,
        "in_channels": 3,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
        "window_size": 2 * CELL,
        "fullatt_block_indexes": [1, 2],
        "out_hidden_size": 128,
    }


def model_config() -> dict:
    """Returns the content of config.json."""
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "dtype": "float32",
        "tie_word_embeddings": True,
        "image_token_id": ID[IMAGE],
        "video_token_id": ID[VIDEO],
        "vision_start_token_id": ID[VISION_START],
        "vision_end_token_id": ID[VISION_END],
        "eos_token_id": ID[END],
        "pad_token_id": ID[PAD],
        "text_config": text_config(),
        "vision_config": vision_config(),
    }


def processor_config() -> dict:
    """Returns the content of preprocessor_config.json: a square picture of any size becomes 36x36."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE + SIDE * PATCH // 2},
        "patch_size": PATCH,
        "merge_size": 2,
        "temporal_patch_size": 2,
    }


def save_model(folder: Path) -> None:
    """Writes config.json, preprocessor_config.json and generation_config.json."""
    generation = {"do_sample": False, "eos_token_id": ID[END], "pad_token_id": ID[PAD]}
    files = {"config": model_config(), "preprocessor_config": processor_config(), "generation_config": generation}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
