"""The Qwen2.5-VL family: a Qwen2.5 decoder with three positions per token, and a vision tower with windows."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.families import config_parsing, qwen2
from models.interface import DecoderConfig, VisionLanguageConfig
from models.io.weight_map import WeightRow, below
from models.modules.qwen2_5_vit import PatchMergerConfig, QwenVisionConfig
from models.processing.qwen2_5_vl_images import reader

__all__ = ["optional_rows", "parse", "reader", "rows"]

_DEFAULTS = {"rms_norm_eps": 1e-5, "rope_theta": 1e6}
_BLOCK, _MERGER = "visual.blocks.{layer}", "visual.merger"
VISION = (
    WeightRow(f"{_BLOCK}.norm1.weight", "vision/blocks/attention_norm/scale"),
    WeightRow(f"{_BLOCK}.attn.qkv.weight", "vision/blocks/attention/qkv/kernel", transpose=True),
    WeightRow(f"{_BLOCK}.attn.qkv.bias", "vision/blocks/attention/qkv/bias"),
    WeightRow(f"{_BLOCK}.attn.proj.weight", "vision/blocks/attention/output/kernel", transpose=True),
    WeightRow(f"{_BLOCK}.attn.proj.bias", "vision/blocks/attention/output/bias"),
    WeightRow(f"{_BLOCK}.norm2.weight", "vision/blocks/mlp_norm/scale"),
    WeightRow(f"{_BLOCK}.mlp.gate_proj.weight", "vision/blocks/mlp/gate/kernel", transpose=True),
    WeightRow(f"{_BLOCK}.mlp.gate_proj.bias", "vision/blocks/mlp/gate/bias"),
    WeightRow(f"{_BLOCK}.mlp.up_proj.weight", "vision/blocks/mlp/up/kernel", transpose=True),
    WeightRow(f"{_BLOCK}.mlp.up_proj.bias", "vision/blocks/mlp/up/bias"),
    WeightRow(f"{_BLOCK}.mlp.down_proj.weight", "vision/blocks/mlp/down/kernel", transpose=True),
    WeightRow(f"{_BLOCK}.mlp.down_proj.bias", "vision/blocks/mlp/down/bias"),
    WeightRow(f"{_MERGER}.ln_q.weight", "projector/norm/scale"),
    WeightRow(f"{_MERGER}.mlp.0.weight", "projector/input/kernel", transpose=True),
    WeightRow(f"{_MERGER}.mlp.0.bias", "projector/input/bias"),
    WeightRow(f"{_MERGER}.mlp.2.weight", "projector/output/kernel", transpose=True),
    WeightRow(f"{_MERGER}.mlp.2.bias", "projector/output/bias"),
)


def parse(raw: Mapping[str, Any], where: str) -> VisionLanguageConfig:
    """The model of a Hugging Face Qwen2.5-VL config, with the decoder's keys at the top or in text_config.

    Raises:
        ValueError: A key is missing or asks for what the model does not do.
    """
    text = parse_text(raw, where)
    vision = _section(raw, "vision_config", where)
    inside = f"{where}: vision_config"
    tower = parse_vision(vision, inside)
    width = {"out_hidden_size": config_parsing.integer(vision, "out_hidden_size", inside)}
    config_parsing.expect(width, "out_hidden_size", (text.hidden_size,), inside)
    try:
        return VisionLanguageConfig(
            family="qwen2_5_vl",
            text=text,
            vision=tower,
            projector=PatchMergerConfig(patches=tower.patches_per_token, out_size=text.hidden_size),
            image_token=config_parsing.integer(raw, "image_token_id", where, 151655),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def parse_text(raw: Mapping[str, Any], where: str) -> DecoderConfig:
    """The decoder.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not do.
    """
    nested = raw.get("text_config") is not None
    text = _section(raw, "text_config", where) if nested else raw
    if nested:
        config_parsing.expect(text, "model_type", (None, "qwen2_5_vl_text"), f"{where}: text_config")
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ValueError(f"{where}: rope_parameters = {rope!r}; expected a dictionary")
    for key in ("type", "rope_type"):
        config_parsing.expect(rope, key, (None, "default", "mrope"), where)
    plain = {"rope_theta": rope.get("rope_theta") or text.get("rope_theta") or _DEFAULTS["rope_theta"]}
    eps = _DEFAULTS["rms_norm_eps"] if text.get("rms_norm_eps") is None else text["rms_norm_eps"]
    config_parsing.integer(text, "num_key_value_heads", where)
    config = qwen2.parse({**text, "rms_norm_eps": eps, "rope_scaling": None, "rope_parameters": plain}, where)
    tied = config_parsing.is_tied(raw, where) or config_parsing.is_tied(text, where)
    try:
        return dataclasses.replace(config, tied=tied, mrope_section=_mrope_section(rope, where))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def parse_vision(raw: Mapping[str, Any], where: str) -> QwenVisionConfig:
    """The tower.

    Raises:
        ValueError: A key is missing or asks for what the tower does not do.
    """
    config_parsing.expect(raw, "model_type", (None, "qwen2_5_vl", "qwen2_5_vl_vision"), where)
    config_parsing.expect(raw, "hidden_act", (None, "silu"), where)
    for key in ("in_channels", "in_chans"):
        config_parsing.expect(raw, key, (None, 3), where)
    rope = raw.get("rope_parameters") or {}
    config_parsing.expect(rope, "rope_type", (None, "axial"), where)
    full = raw.get("fullatt_block_indexes")
    if not isinstance(full, list | tuple) or not all(type(index) is int for index in full):
        raise ValueError(f"{where}: fullatt_block_indexes = {full!r}; expected a list of whole numbers")
    try:
        return QwenVisionConfig(
            layers=config_parsing.integer(raw, "depth", where),
            hidden_size=config_parsing.integer(raw, "hidden_size", where),
            heads=config_parsing.integer(raw, "num_heads", where),
            mlp_size=config_parsing.integer(raw, "intermediate_size", where),
            patch_size=config_parsing.integer(raw, "patch_size", where),
            temporal_patch_size=config_parsing.integer(raw, "temporal_patch_size", where, 2),
            channels=3,
            merge_size=config_parsing.integer(raw, "spatial_merge_size", where, 2),
            window_size=config_parsing.integer(raw, "window_size", where),
            full_layers=tuple(full),
            rope_theta=config_parsing.number(rope, "rope_theta", where, 10000.0),
        )
    except ValueError as error:
        raise error if str(error).startswith(where) else ValueError(f"{where}: {error}") from None


def rows(config: VisionLanguageConfig) -> tuple[WeightRow, ...]:
    """Tensors of a Qwen2.5-VL checkpoint."""
    vision = config.vision
    assert isinstance(vision, QwenVisionConfig)
    shape = (vision.hidden_size, *vision.patch_shape)
    patches = WeightRow("visual.patch_embed.proj.weight", "vision/patch_embed/kernel", transpose=True, shape=shape)
    return (patches, *VISION, *below("decoder", qwen2.rows(config.text)))


def optional_rows(config: VisionLanguageConfig) -> tuple[WeightRow, ...]:
    """Tensors that some Qwen2.5-VL checkpoints also store."""
    return below("decoder", qwen2.optional_rows(config.text))


def _section(raw: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = raw.get(key)
    if not isinstance(found, Mapping):
        raise ValueError(f"{where}: {key} = {found!r}; expected a dictionary")
    return found


def _mrope_section(rope: Mapping[str, Any], where: str) -> tuple[int, int, int]:
    section = rope.get("mrope_section")
    if not isinstance(section, list | tuple) or len(section) != 3 or not all(type(n) is int for n in section):
        raise ValueError(f"{where}: mrope_section = {section!r}; expected three whole numbers, such as [16, 24, 24]")
    return tuple(section)
