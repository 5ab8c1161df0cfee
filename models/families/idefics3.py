"""The Idefics3 and SmolVLM family: a SigLIP tower, a pixel shuffle, a Llama decoder; images are split into tiles.

A large image is resized to whole tiles and read tile by tile, then once more as a whole.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

from models.families import vision_config
from models.families.config_parsing import integer
from models.interface import VisionLanguageConfig
from models.io.weight_map import WeightRow
from models.modules.projector import ShuffleProjectorConfig
from models.processing.image_loading import image_processor, image_size
from models.processing.tiled_images import TileReader

PROJECTOR = (WeightRow("model.connector.modality_projection.proj.weight", "projector/output/kernel", transpose=True),)
AROUND, WHOLE = "<fake_token_around_image>", "<global-img>"


def parse(raw: Mapping[str, Any], where: str) -> VisionLanguageConfig:
    """The model of a Hugging Face Idefics3 or SmolVLM config.

    Raises:
        ValueError: A part is of an unknown kind, or the config asks for what the model does not do.
    """
    full = vision_config.complete(raw, where)
    text = vision_config.parse_text(full, full["tie_word_embeddings"], where)
    vision = vision_config.parse_tower(full, where)
    factor = integer(full, "scale_factor", where)
    if factor < 1 or vision.grid % factor:
        raise ValueError(f"{where}: scale_factor = {factor} does not divide the {vision.grid} patches of a tile's side")
    projector = ShuffleProjectorConfig(hidden_size=text.hidden_size, factor=factor)
    try:
        return VisionLanguageConfig(raw["model_type"], text, vision, projector, integer(full, "image_token_id", where))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def rows(config: VisionLanguageConfig) -> tuple[WeightRow, ...]:
    """Tensors of an Idefics3 or SmolVLM checkpoint."""
    text = vision_config.DECODERS[config.text.family].rows(config.text)
    tower = vision_config.tower_rows(config.vision, "model.vision_model.")
    return (*tower, *PROJECTOR, *vision_config.text_rows(text, "model.", "model.text_model."))


def optional_rows(config: VisionLanguageConfig) -> tuple[WeightRow, ...]:
    """Tensors that some Idefics3 and SmolVLM checkpoints also store."""
    text = vision_config.DECODERS[config.text.family].optional_rows(config.text)
    return vision_config.text_rows(text, "model.", "model.text_model.")


class Grid(NamedTuple):
    """How an image is cut; 0 x 0 if it is one tile."""

    rows: int
    columns: int


class Reader(TileReader):
    """A large image becomes a grid of tiles and one tile that shows it whole, a small one a single tile."""

    def tiles(self, height: int, width: int) -> int:
        """Into how many tiles an image of that size is made."""
        return math.prod(self.grid(height, width)) + 1

    def grid(self, height: int, width: int) -> Grid:
        """How an image of that size is cut."""
        processor, side = self.processor, self.config.vision.image_size
        if not processor.do_image_splitting:
            return Grid(0, 0)
        if processor.do_resize and processor.size.longest_edge:
            shape = np.broadcast_to(np.uint8(0), (3, height, width))
            height, width = get_resize_output_image_size(shape, processor.size.longest_edge)
        elif processor.do_resize:
            height, width = processor.size.height, processor.size.width
        found = Grid(*whole_tiles(height, width, side))
        return Grid(0, 0) if found == (1, 1) else found

    def expansion(self, image: Mapping[str, Any], number_of_images: int) -> str:
        """What transformers' processor writes for an image: its tiles, row by row, then the whole."""
        features, (lines, columns) = self.placeholder * self.features, self.grid(*image_size(image))
        split = "".join(
            "".join(f"{AROUND}<row_{line}_col_{column}>{features}" for column in range(1, columns + 1)) + "\n"
            for line in range(1, lines + 1)
        )
        return split + "\n" * bool(split) + AROUND + WHOLE + features + AROUND


def whole_tiles(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover an image after its longer side is stretched to whole tiles.

    In the float arithmetic of transformers' `resize_for_vision_encoder`, which may round a length just below a whole number down.
    """
    ratio = width / height
    if width >= height:
        columns = math.ceil(width / side)
        return math.ceil(int(columns * side / ratio) / side), columns
    lines = math.ceil(height / side)
    return lines, math.ceil(int(lines * side * ratio) / side)


def reader(path: str | Path, config: VisionLanguageConfig, tokenizer: Any) -> Reader:
    """The reader of a checkpoint's images.

    Args:
        path: Hugging Face folder.
        config: The model.
        tokenizer: The checkpoint's tokenizer.

    Raises:
        ValueError: The folder has no image processor, or one that makes tiles of another size.
    """
    processor, side = image_processor(path), config.vision.image_size
    made = getattr(processor, "max_image_size", {"longest_edge": None})["longest_edge"]
    if made != side:
        raise ValueError(
            f"{path}: the image processor makes tiles of {made} pixels, the vision tower takes {side}; set max_image_size in "
            "preprocessor_config.json"
        )
    features = config.vision.vectors // config.projector.factor**2
    return Reader(processor, config, features, tokenizer.convert_ids_to_tokens(config.image_token))
