"""The LLaVA family: a CLIP or SigLIP tower, an MLP projector, any decoder; one tile per image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.families import vision_config
from models.families.config_parsing import expect, integer
from models.interface import VisionLanguageConfig
from models.io.weight_map import WeightRow, below
from models.modules.projector import MLPProjectorConfig
from models.processing.image_loading import image_processor
from models.processing.tiled_images import TileReader

TOWER, OLD_TOWER = "vision_tower.", "vision_tower.vision_model."
"""What the tower's tensor names begin with, as transformers 5 writes them and as most published checkpoints have them."""
_HEAD = (
    "head.probe",
    "head.attention.in_proj_weight",
    "head.attention.in_proj_bias",
    "head.attention.out_proj.weight",
    "head.attention.out_proj.bias",
    "head.layernorm.weight",
    "head.layernorm.bias",
    "head.mlp.fc1.weight",
    "head.mlp.fc1.bias",
    "head.mlp.fc2.weight",
    "head.mlp.fc2.bias",
)
UNUSED = tuple(WeightRow(TOWER + name, None) for name in (*_HEAD, "embeddings.position_ids"))
"""SigLIP's pooling head, and the numbers 0, 1, ... that old checkpoints store."""


def parse(raw: Mapping[str, Any], where: str) -> VisionLanguageConfig:
    """The model of a Hugging Face LLaVA config.

    Raises:
        ValueError: A part is of an unknown kind, or the config asks for what the model does not do.
    """
    full = vision_config.complete(raw, where)
    expect(full["vision_config"], "model_type", vision_config.TOWERS[:2], f"{where}: vision_config")
    tied = full["tie_word_embeddings"] or full["text_config"].get("tie_word_embeddings", False)
    text = vision_config.parse_text(full, tied, where)
    blocks = integer(full["vision_config"], "num_hidden_layers", where)
    layer = integer(full, "vision_feature_layer", where)
    if not -blocks - 1 <= layer <= blocks:
        raise ValueError(f"{where}: vision_feature_layer = {layer}; the tower has {blocks} layers")
    skipped = int(full["vision_feature_select_strategy"] == "default")
    depth = layer if layer >= 0 else blocks + 1 + layer
    vision = vision_config.parse_tower(full, where, depth=depth, normed=False, skipped=skipped)
    try:
        projector = MLPProjectorConfig(
            hidden_size=text.hidden_size,
            activation=full["projector_hidden_act"],
            use_bias=full["multimodal_projector_bias"],
        )
        return VisionLanguageConfig("llava", text, vision, projector, integer(full, "image_token_index", where))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def rows(config: VisionLanguageConfig) -> tuple[WeightRow, ...]:
    """Tensors of a LLaVA checkpoint, as transformers 5 writes them."""
    text = vision_config.DECODERS[config.text.family].rows(config.text)
    bias = config.projector.use_bias
    projector = (
        *vision_config.both("multi_modal_projector.linear_1", "up", bias),
        *vision_config.both("multi_modal_projector.linear_2", "down", bias),
    )
    return (
        *vision_config.tower_rows(config.vision, TOWER),
        *below("projector", projector),
        *vision_config.text_rows(text, "", "language_model."),
    )


def optional_rows(config: VisionLanguageConfig) -> tuple[WeightRow, ...]:
    """Tensors that some LLaVA checkpoints also store."""
    text = vision_config.DECODERS[config.text.family].optional_rows(config.text)
    return UNUSED + vision_config.text_rows(text, "", "language_model.")


def as_stored(rows: tuple[WeightRow, ...], tensors: Mapping[str, Any]) -> tuple[WeightRow, ...]:
    """The table with the names that a checkpoint uses for the tower."""
    if not any(key.startswith(OLD_TOWER) for key in tensors):
        return rows
    return tuple(
        row._replace(key=OLD_TOWER + row.key.removeprefix(TOWER)) if row.key.startswith(TOWER) else row for row in rows
    )


class Reader(TileReader):
    """Every image becomes one tile."""

    def tiles(self, height: int, width: int) -> int:
        """One."""
        return 1

    def expansion(self, image: Mapping[str, Any], number_of_images: int) -> str:
        """The image token, once per feature."""
        return self.placeholder * self.features


def reader(path: str | Path, config: VisionLanguageConfig, tokenizer: Any) -> Reader:
    """The reader of a checkpoint's images.

    Args:
        path: Hugging Face folder.
        config: The model.
        tokenizer: The checkpoint's tokenizer.

    Raises:
        ValueError: The folder has no image processor, or one that makes images of another size.
    """
    processor, side = image_processor(path), config.vision.image_size
    made = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    if (made.height, made.width) != (side, side):
        raise ValueError(
            f"{path}: the image processor makes images of {made.height} x {made.width} pixels, the vision tower takes "
            f"{side} x {side}; set crop_size (or size) in preprocessor_config.json"
        )
    return Reader(processor, config, config.vision.vectors, tokenizer.convert_ids_to_tokens(config.image_token))
