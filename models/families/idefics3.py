"""The Idefics3 and SmolVLM family: a SigLIP tower, a pixel shuffle, a Llama decoder; images are split into tiles.

A large image is resized to whole tiles and read tile by tile, then once more as a whole.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.vision_config import complete, parse_text, parse_tower, text_rows, tower_rows
from merit_jax.models.interface import VisionLanguageConfig
from merit_jax.models.io.weight_map import WeightRow
from merit_jax.models.modules.projector import ShuffleProjectorConfig
from merit_jax.models.modules.vit import ViTConfig
from merit_jax.models.processing.image_loading import image_size
from merit_jax.models.processing.tiled_images import TileReader

Config = VisionLanguageConfig[ViTConfig, ShuffleProjectorConfig]

PROJECTOR = WeightRow("model.connector.modality_projection.proj.weight", "projector/output/kernel", transpose=True)
AROUND, WHOLE = "<fake_token_around_image>", "<global-img>"


def parse(config: Section) -> Config:
    """Reads a Hugging Face Idefics3 or SmolVLM config.

    Raises:
        ValueError: A part is of an unknown kind, or the config asks for what the model does not implement.
    """
    full = complete(config)
    text, vision = parse_text(full, full.raw["tie_word_embeddings"]), parse_tower(full)
    factor = full.integer("scale_factor")
    if factor < 1 or vision.grid % factor:
        full.refuse("scale_factor", factor, f" does not divide the {vision.grid} patches of a tile's side")
    projector = ShuffleProjectorConfig(hidden_size=text.hidden_size, factor=factor)
    family, image_token = config.raw["model_type"], full.integer("image_token_id")
    return full.make(VisionLanguageConfig, family, text, vision, projector, image_token)


def rows(config: Config) -> tuple[WeightRow, ...]:
    """Returns the key table of an Idefics3 or SmolVLM checkpoint."""
    tower = tower_rows(config.vision, "model.vision_model.")
    return (*tower, PROJECTOR, *text_rows(config.text, "model.", "model.text_model."))


class Reader(TileReader):
    """A reader that makes of a large image a grid of tiles and one tile that shows it whole, of a small one a single tile."""

    def __init__(self, path: str | Path, config: Config, tokenizer: Any):
        """Opens the image processor of a folder.

        Raises:
            ValueError: The folder has no image processor, or one that makes tiles of another size.
        """
        super().__init__(path, config, tokenizer)
        side, size = config.vision.image_size, self.processor.size
        found = getattr(self.processor, "max_image_size", None)
        made = found.get("longest_edge") if isinstance(found, Mapping) else None
        if made is None:
            raise ValueError(
                f"{path}: max_image_size = {found!r:.80} in preprocessor_config.json has no longest_edge, the side of a tile; "
                f'set it to {{"longest_edge": {side}}}'
            )
        if made != side:
            raise ValueError(
                f"{path}: the image processor makes tiles of {made} pixels, the vision tower takes {side}; set max_image_size in "
                "preprocessor_config.json"
            )
        if self.processor.do_resize and not (size.longest_edge or (size.height and size.width)):
            raise ValueError(
                f"{path}: size in preprocessor_config.json has neither longest_edge nor height and width; set one of the two"
            )

    def tiles(self, height: int, width: int) -> int:
        """Returns the number of tiles of an image of that size."""
        return math.prod(self.grid(height, width)) + 1

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Returns the lines and columns of tiles that an image of that size is split into; 0 x 0 if it is one tile."""
        from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

        processor, side = self.processor, self.config.vision.image_size
        if not processor.do_image_splitting:
            return 0, 0
        if processor.do_resize and processor.size.longest_edge:
            shape = np.broadcast_to(np.uint8(0), (3, height, width))
            height, width = get_resize_output_image_size(shape, processor.size.longest_edge)
        elif processor.do_resize:
            height, width = processor.size.height, processor.size.width
        found = whole_tiles(height, width, side)
        return (0, 0) if found == (1, 1) else found

    def expansion(self, image: Mapping[str, Any], number_of_images: int) -> str:
        """Returns the text of transformers' processor for an image: its tiles, row by row, then the whole."""
        features, (lines, columns) = self.token * self.features, self.grid(*image_size(image))
        split = "".join(
            "".join(f"{AROUND}<row_{line}_col_{column}>{features}" for column in range(1, columns + 1)) + "\n"
            for line in range(1, lines + 1)
        )
        return split + "\n" * bool(split) + AROUND + WHOLE + features + AROUND


def whole_tiles(height: int, width: int, side: int) -> tuple[int, int]:
    """Returns the rows and columns of tiles that cover an image after its longer side is stretched to whole tiles.

    In the float arithmetic of transformers' `resize_for_vision_encoder`, which may round a length just below a whole number down.
    """
    ratio = width / height
    if width >= height:
        columns = math.ceil(width / side)
        return math.ceil(int(columns * side / ratio) / side), columns
    lines = math.ceil(height / side)
    return lines, math.ceil(int(lines * side * ratio) / side)
