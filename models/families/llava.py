"""The LLaVA family: a CLIP or SigLIP tower, an MLP projector, any decoder; one tile per image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.vision_config import (
    TOWERS,
    both,
    complete,
    parse_text,
    parse_tower,
    text_rows,
    tower_rows,
)
from merit_jax.models.interface import VisionLanguageConfig
from merit_jax.models.io.weight_map import WeightRow, below
from merit_jax.models.modules.projector import MLPProjectorConfig
from merit_jax.models.modules.vit import ViTConfig
from merit_jax.models.processing.tiled_images import TileReader

Config = VisionLanguageConfig[ViTConfig, MLPProjectorConfig]

TOWER, _TEXT = "vision_tower.", "language_model."
_LAYERS = ("head.attention.out_proj", "head.layernorm", "head.mlp.fc1", "head.mlp.fc2")
_NAMES = (
    *("head.probe", "head.attention.in_proj_weight", "head.attention.in_proj_bias", "embeddings.position_ids"),
    *(f"{layer}.{kind}" for layer in _LAYERS for kind in ("weight", "bias")),
)
UNUSED = tuple(WeightRow(TOWER + name, None) for name in _NAMES)
"""SigLIP's pooling head, and the numbers 0, 1, ... that old checkpoints store."""


def parse(config: Section) -> Config:
    """Reads a Hugging Face LLaVA config.

    Raises:
        ValueError: A part is of an unknown kind, or the config asks for what the model does not implement.
    """
    full = complete(config)
    vision, raw = full.section("vision_config"), full.raw
    vision.expect("model_type", *TOWERS[:2])
    text = parse_text(full, raw["tie_word_embeddings"] or raw["text_config"].get("tie_word_embeddings", False))
    blocks, layer = vision.integer("num_hidden_layers"), full.integer("vision_feature_layer")
    if not -blocks - 1 <= layer <= blocks:
        full.refuse("vision_feature_layer", layer, f"; the tower has {blocks} layers")
    skipped = int(raw["vision_feature_select_strategy"] == "default")
    depth = layer if layer >= 0 else blocks + 1 + layer
    tower = parse_tower(full, depth=depth, normed=False, skipped=skipped)
    projector = full.make(
        MLPProjectorConfig,
        hidden_size=text.hidden_size,
        activation=raw["projector_hidden_act"],
        use_bias=raw["multimodal_projector_bias"],
    )
    return full.make(VisionLanguageConfig, "llava", text, tower, projector, full.integer("image_token_index"))


def rows(config: Config) -> tuple[WeightRow, ...]:
    """Returns the key table of a LLaVA checkpoint, as transformers 5 writes it."""
    bias = config.projector.use_bias
    layers = (("multi_modal_projector.linear_1", "up"), ("multi_modal_projector.linear_2", "down"))
    return (
        *tower_rows(config.vision, TOWER),
        *below("projector", (row for key, path in layers for row in both(key, path, bias))),
        *text_rows(config.text, "", _TEXT),
        *UNUSED,
    )


class Reader(TileReader):
    """A reader that makes one tile of every image."""

    def __init__(self, path: str | Path, config: Config, tokenizer: Any):
        """Opens the image processor of a folder.

        Raises:
            ValueError: The folder has no image processor, or one that makes images of another size.
        """
        super().__init__(path, config, tokenizer)
        check_side(path, self.processor, config.vision.image_size)

    def tiles(self, height: int, width: int) -> int:
        """Returns 1."""
        return 1

    def expansion(self, image: Mapping[str, Any], number_of_images: int) -> str:
        """Returns the image token, once per feature."""
        return self.token * self.features


def check_side(path: str | Path, processor: Any, side: int) -> None:
    """Refuses an image processor whose images are not squares of `side` pixels.

    Raises:
        ValueError: They are not.
    """
    made = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    height, width = getattr(made, "height", None), getattr(made, "width", None)
    if (height, width) != (side, side):
        raise ValueError(
            f"{path}: the image processor makes images of {height} x {width} pixels, the vision tower takes "
            f"{side} x {side}; set crop_size (or size) in preprocessor_config.json"
        )
