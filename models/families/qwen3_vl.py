"""The Qwen3-VL family: a Qwen3 decoder with three positions per token, which reads inner layers of the tower too (DeepStack)."""

from typing import Any

from merit_jax.models.families.config_parsing import Section, completed
from merit_jax.models.families.decoder_parsing import parse_decoder
from merit_jax.models.families.qwen import qwen3_attention
from merit_jax.models.families.qwen2_5_vl import mrope_section, parse_patches
from merit_jax.models.families.rope_parsing import one_rope, rope_settings
from merit_jax.models.families.vision_config import both, text_rows
from merit_jax.models.interface import DecoderConfig, VisionLanguageConfig
from merit_jax.models.io.weight_map import WeightRow
from merit_jax.models.modules.qwen3_vit import DeepMergerConfig, Qwen3VisionConfig
from merit_jax.models.modules.vit import GELUS

Config = VisionLanguageConfig[Qwen3VisionConfig, DeepMergerConfig]

_VISUAL, _BLOCK = "model.visual", "model.visual.blocks.{layer}"
VISION = (
    WeightRow(f"{_VISUAL}.patch_embed.proj.bias", "vision/patch_embed/bias"),
    WeightRow(f"{_VISUAL}.pos_embed.weight", "vision/positions"),
    *both(f"{_BLOCK}.norm1", "vision/blocks/attention_norm"),
    *both(f"{_BLOCK}.attn.qkv", "vision/blocks/attention/qkv"),
    *both(f"{_BLOCK}.attn.proj", "vision/blocks/attention/output"),
    *both(f"{_BLOCK}.norm2", "vision/blocks/mlp_norm"),
    *both(f"{_BLOCK}.mlp.linear_fc1", "vision/blocks/up"),
    *both(f"{_BLOCK}.mlp.linear_fc2", "vision/blocks/down"),
)
MERGER = (("norm", "norm"), ("linear_fc1", "input"), ("linear_fc2", "output"))
"""(name in the checkpoint, name of ours) of a merger's parts."""


def parse(config: Section) -> Config:
    """Reads a Hugging Face Qwen3-VL config.

    Raises:
        ValueError: A key is missing or asks for what the model does not implement.
    """
    config.section("vision_config").expect("model_type", None, "qwen3_vl", "qwen3_vl_vision")
    config.section("text_config").expect("model_type", None, "qwen3_vl_text")
    full = completed(config)
    text, vision = parse_text(full), full.section("vision_config")
    tower = parse_vision(vision)
    vision.expect("out_hidden_size", text.hidden_size)
    if len(tower.deep) > text.layers:
        vision.refuse("deepstack_visual_indexes", list(tower.deep), f"; the decoder has only {text.layers} layers")
    projector = DeepMergerConfig(tower.patches_per_token, text.hidden_size, len(tower.deep))
    return full.make(VisionLanguageConfig, "qwen3_vl", text, tower, projector, full.integer("image_token_id"))


def parse_text(full: Section) -> DecoderConfig:
    """Reads the decoder of a completed config.

    Raises:
        ValueError: It asks for what the decoder does not implement.
    """
    text = full.section("text_config")
    rope = rope_settings(text)
    rope.expect("mrope_interleaved", None, True)
    section = mrope_section(Section({"mrope_section": [24, 20, 20], **rope.raw}, rope.where))
    inside = Section({**text.raw, "tie_word_embeddings": full.raw["tie_word_embeddings"]}, text.where)

    def settings(full: Section) -> dict[str, Any]:
        return {
            **qwen3_attention(full),
            "rope": one_rope(full),
            "mrope_section": section,
            "mrope_interleaved": True,
        }

    return parse_decoder(inside, "qwen3", settings)


def parse_vision(config: Section) -> Qwen3VisionConfig:
    """Reads the tower of a completed config.

    Raises:
        ValueError: It asks for what the tower does not implement.
    """
    config.expect("hidden_act", *GELUS)
    deep = config.get("deepstack_visual_indexes")
    if not isinstance(deep, list | tuple) or not all(type(index) is int for index in deep):
        config.refuse("deepstack_visual_indexes", deep, "; expected a list of whole numbers")
    return config.make(
        Qwen3VisionConfig,
        **parse_patches(config),
        position_rows=config.integer("num_position_embeddings"),
        deep=tuple(deep),
        activation=config.raw["hidden_act"],
    )


def rows(config: Config) -> tuple[WeightRow, ...]:
    """Returns the key table of a Qwen3-VL checkpoint."""
    shape = (config.vision.hidden_size, *config.vision.patch_shape)
    patches = WeightRow(f"{_VISUAL}.patch_embed.proj.weight", "vision/patch_embed/kernel", transpose=True, shape=shape)
    mergers = [(f"{_VISUAL}.merger", "projector/merger")]
    if config.vision.deep:
        mergers.append((f"{_VISUAL}.deepstack_merger_list.{{layer}}", "projector/deep/merger"))
    merged = (row for key, path in mergers for old, new in MERGER for row in both(f"{key}.{old}", f"{path}/{new}"))
    return (patches, *VISION, *merged, *text_rows(config.text, "model.", "model.language_model."))
