"""The registry of families: `model_type` of a config.json -> the family's file."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from models.families import idefics3, llama, llava, qwen2, qwen2_5_vl
from models.interface import DecoderConfig, Model, VisionLanguageConfig
from models.io.weight_map import WeightMap, leaf_shapes, match

FAMILIES: dict[str, ModuleType] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen2_5_vl": qwen2_5_vl,
    "llava": llava,
    "idefics3": idefics3,
    "smolvlm": idefics3,
}


def parse_config(raw: Mapping[str, Any], where: str) -> DecoderConfig | VisionLanguageConfig:
    """The model that a Hugging Face config describes.

    Args:
        raw: Content of config.json.
        where: The file, for error messages.

    Raises:
        ValueError: The family is unknown, or the config asks for what the model does not do.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"{where}: model_type = {kind!r:.80} is not supported; known families: {', '.join(FAMILIES)}")
    return FAMILIES[kind].parse(raw, where)


def weight_map(model: Model, tensors: Mapping[str, tuple[int, ...]], where: str) -> WeightMap:
    """Ties a checkpoint's tensors to the leaves of a model.

    Args:
        model: The model.
        tensors: Tensor name -> shape.
        where: The checkpoint, for error messages.

    Raises:
        ValueError: A tensor is missing, unknown or of another shape.
    """
    family, config = FAMILIES[model.config.family], model.config
    as_stored = getattr(family, "as_stored", lambda rows, tensors: rows)  # one architecture, several names
    rows, optional = (as_stored(table, tensors) for table in (family.rows(config), family.optional_rows(config)))
    return match(rows, optional, leaf_shapes(model.abstract), tensors, where)
