"""The Gemma 3 family with images: a SigLIP tower, a mean over squares of patches, and a decoder that reads an image at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import is_tied
from merit_jax.models.families.llava import TOWER, UNUSED, check_side
from merit_jax.models.families.vision_config import TOWERS, complete, parse_text, parse_tower, text_rows, tower_rows
from merit_jax.models.interface import VisionLanguageConfig
from merit_jax.models.io.weight_map import WeightRow
from merit_jax.models.modules.projector import PoolProjectorConfig
from merit_jax.models.modules.vit import ViTConfig
from merit_jax.models.processing.image_loading import image_size
from merit_jax.models.processing.tiled_images import TileReader

Config = VisionLanguageConfig[ViTConfig, PoolProjectorConfig]

_PROJECTOR = "multi_modal_projector.mm_"
PROJECTOR = (
    WeightRow(f"{_PROJECTOR}input_projection_weight", "projector/output/kernel"),
    WeightRow(f"{_PROJECTOR}soft_emb_norm.weight", "projector/norm/scale"),
)
CROPS = ("pan_and_scan_min_crop_size", "pan_and_scan_max_num_crops", "pan_and_scan_min_ratio_to_activate")
"""Settings of the image processor that decide the crops of a long image."""


def parse(config: Section) -> Config:
    """Reads a Hugging Face Gemma 3 config with a tower.

    Raises:
        ValueError: A part is of an unknown kind, or the config asks for what the model does not implement.
    """
    full = complete(config)
    full.section("vision_config").expect("model_type", TOWERS[1])
    full.section("text_config").expect("model_type", "gemma3_text")
    text, tower = parse_text(full, is_tied(config, True)), parse_tower(full)
    tokens = full.integer("mm_tokens_per_image")
    side = int(max(tokens, 0) ** 0.5)
    if side < 1 or side**2 != tokens or tower.grid % side:
        full.refuse(
            "mm_tokens_per_image", tokens, f"; expected the square of a divisor of the {tower.grid} patches of a side"
        )
    projector = PoolProjectorConfig(text.hidden_size, tower.grid // side, norm_eps=tower.norm_eps)
    return full.make(
        VisionLanguageConfig, "gemma3", text, tower, projector, full.integer("image_token_index"), image_blocks=True
    )


def rows(config: Config) -> tuple[WeightRow, ...]:
    """Returns the key table of a Gemma 3 checkpoint, as transformers 5 writes it."""
    return (*tower_rows(config.vision, TOWER), *PROJECTOR, *text_rows(config.text, "", "language_model."), *UNUSED)


class Reader(TileReader):
    """A reader that makes one tile of every image, and, where the image processor pans and scans, one of each crop of a long one."""

    def __init__(self, path: str | Path, config: Config, tokenizer: Any):
        """Opens the image processor of a folder.

        Raises:
            ValueError: The folder has no image processor, or one that makes images of another size or has no sizes of crops; or
                the tokenizer does not name the tokens before and behind an image.
        """
        super().__init__(path, config, tokenizer)
        check_side(path, self.processor, config.vision.image_size)
        before, behind = (getattr(tokenizer, f"{name}_token", None) for name in ("boi", "eoi"))
        if not isinstance(before, str) or not isinstance(behind, str):
            raise ValueError(
                f"{path}: the tokenizer names no boi_token and eoi_token, which stand before and behind an image; take "
                "tokenizer_config.json of the vision-language model"
            )
        self.placeholder, self.behind = before, behind
        if self.processor.do_pan_and_scan:
            for key in CROPS:
                if not getattr(self.processor, key):
                    raise ValueError(
                        f"{path}: do_pan_and_scan is on in preprocessor_config.json, but {key} = {getattr(self.processor, key)}; "
                        "expected a number above 0"
                    )

    def crops(self, height: int, width: int) -> int:
        """Returns the number of crops of an image of that size, besides the whole."""
        if not self.processor.do_pan_and_scan:
            return 0
        shape = np.broadcast_to(np.uint8(0), (3, height, width))
        return len(self.processor.pan_and_scan(shape, **{key: getattr(self.processor, key) for key in CROPS}))

    def tiles(self, height: int, width: int) -> int:
        """Returns the number of tiles of an image of that size."""
        return 1 + self.crops(height, width)

    def expansion(self, image: Mapping[str, Any], number_of_images: int) -> str:
        """Returns the text of transformers' processor for an image, and for its crops."""
        one = f"\n\n{self.placeholder}{self.token * self.features}{self.behind}\n\n"
        crops = self.crops(*image_size(image))
        if not crops:
            return one
        return (
            f"Here is the original image {one} and here are some crops to help you see better {' '.join([one] * crops)}"
        )
