"""The Qwen2.5-VL family: a Qwen2.5 decoder with three positions per token, and a vision tower with windows."""

from typing import Any

from merit_jax.models.families import layout
from merit_jax.models.families.config_parsing import Section, completed
from merit_jax.models.families.decoder_parsing import parse_decoder
from merit_jax.models.families.qwen import qwen2_settings
from merit_jax.models.families.rope_parsing import rope_settings
from merit_jax.models.families.vision_config import both
from merit_jax.models.interface import DecoderConfig, VisionLanguageConfig
from merit_jax.models.io.weight_map import WeightRow, below
from merit_jax.models.modules.qwen2_5_vit import PatchMergerConfig, QwenVisionConfig

Config = VisionLanguageConfig[QwenVisionConfig, PatchMergerConfig]

_BLOCK, _MERGER = "visual.blocks.{layer}", "visual.merger"
VISION = (
    *both(f"{_BLOCK}.norm1", "vision/blocks/attention_norm", bias=False),
    *both(f"{_BLOCK}.attn.qkv", "vision/blocks/attention/qkv"),
    *both(f"{_BLOCK}.attn.proj", "vision/blocks/attention/output"),
    *both(f"{_BLOCK}.norm2", "vision/blocks/mlp_norm", bias=False),
    *both(f"{_BLOCK}.mlp.gate_proj", "vision/blocks/mlp/gate"),
    *both(f"{_BLOCK}.mlp.up_proj", "vision/blocks/mlp/up"),
    *both(f"{_BLOCK}.mlp.down_proj", "vision/blocks/mlp/down"),
    *both(f"{_MERGER}.ln_q", "projector/norm", bias=False),
    *both(f"{_MERGER}.mlp.0", "projector/input"),
    *both(f"{_MERGER}.mlp.2", "projector/output"),
)


def parse(config: Section) -> Config:
    """Reads a Hugging Face Qwen2.5-VL config, with the decoder's keys at the top or in text_config.

    Raises:
        ValueError: A key is missing or asks for what the model does not implement.
    """
    config.section("vision_config").expect("model_type", None, "qwen2_5_vl", "qwen2_5_vl_vision")
    if config.get("text_config") is not None:
        config.section("text_config").expect("model_type", None, "qwen2_5_vl_text")
    full = completed(config)
    text, vision = parse_text(full), full.section("vision_config")
    tower = parse_vision(vision)
    vision.expect("out_hidden_size", text.hidden_size)
    projector = PatchMergerConfig(patches=tower.patches_per_token, out_size=text.hidden_size)
    image_token = full.integer("image_token_id")
    return full.make(VisionLanguageConfig, "qwen2_5_vl", text, tower, projector, image_token)


def parse_text(full: Section) -> DecoderConfig:
    """Reads the decoder of a completed config.

    Raises:
        ValueError: It asks for what the decoder does not implement.
    """
    text = full.section("text_config")
    rope = rope_settings(text)
    section = mrope_section(rope)
    rope.expect("rope_type", "default")
    inside = Section({**text.raw, "tie_word_embeddings": full.raw["tie_word_embeddings"]}, text.where)
    return parse_decoder(inside, "qwen2", lambda full: {**qwen2_settings(full), "mrope_section": section})


def mrope_section(rope: Section) -> tuple[int, int, int]:
    """Returns the numbers of pairs that follow each of a token's positions, of the settings of M-RoPE.

    Raises:
        ValueError: They are not three whole numbers.
    """
    found = rope.get("mrope_section")
    if not isinstance(found, list | tuple) or len(found) != 3 or not all(type(n) is int and n >= 0 for n in found):
        rope.refuse("mrope_section", found, "; expected three whole numbers, such as [16, 24, 24]")
    temporal, height, width = found
    return temporal, height, width


def parse_vision(config: Section) -> QwenVisionConfig:
    """Reads the tower of a completed config.

    Raises:
        ValueError: It asks for what the tower does not implement.
    """
    config.expect("hidden_act", "silu")
    full = config.get("fullatt_block_indexes")
    if not isinstance(full, list | tuple) or not all(type(index) is int for index in full):
        config.refuse("fullatt_block_indexes", full, "; expected a list of whole numbers")
    return config.make(
        QwenVisionConfig,
        **parse_patches(config),
        window_size=config.integer("window_size"),
        full_layers=tuple(full),
    )


def parse_patches(config: Section) -> dict[str, Any]:
    """Returns the fields of `PatchTowerConfig` of a completed config.

    Raises:
        ValueError: It asks for what the towers do not implement.
    """
    config.expect("is_causal", None, False)
    for key in ("in_channels", "in_chans"):
        config.expect(key, None, 3)
    rope = rope_settings(config)
    rope.expect("rope_type", "axial")
    hidden, heads = config.integer("hidden_size"), config.integer("num_heads")
    config.expect("head_dim", None, hidden // max(heads, 1))
    return {
        "layers": config.integer("depth"),
        "hidden_size": hidden,
        "heads": heads,
        "mlp_size": config.integer("intermediate_size"),
        "patch_size": config.integer("patch_size"),
        "temporal_patch_size": config.integer("temporal_patch_size"),
        "channels": 3,
        "merge_size": config.integer("spatial_merge_size"),
        "rope_theta": rope.positive("rope_theta"),
    }


def rows(config: Config) -> tuple[WeightRow, ...]:
    """Returns the key table of a Qwen2.5-VL checkpoint."""
    shape = (config.vision.hidden_size, *config.vision.patch_shape)
    patches = WeightRow("visual.patch_embed.proj.weight", "vision/patch_embed/kernel", transpose=True, shape=shape)
    return (patches, *VISION, *below("decoder", layout.rows(config.text)))
