"""The Gemma 3 family with images: a SigLIP tower, a mean over squares of patches, and a decoder that reads an image at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import is_tied
from merit_jax.models.families.llava import TOWER, UNUSED, check_side
from merit_jax.models.families.vision_config import TOWERS, complete, parse_text, parse_tower, text_rows, tower_rows
from merit_jax.models.interface import VisionLanguageConfig
from merit_jax.models.io.weight_map import WeightRow
from merit_jax.models.modules.projector import PoolProjectorConfig
from merit_jax.models.modules.vit import ViTConfig
from merit_jax.models.processing.tiled_images import TileReader

Config = VisionLanguageConfig[ViTConfig, PoolProjectorConfig]

_PROJECTOR = "multi_modal_projector.mm_"
PROJECTOR = (
    WeightRow(f"{_PROJECTOR}input_projection_weight", "projector/output/kernel"),
    WeightRow(f"{_PROJECTOR}soft_emb_norm.weight", "projector/norm/scale"),
)


def parse(config: Section) -> Config:
    """Reads a Hugging Face Gemma 3 config with a tower.

    Raises:
        ValueError: A part is of an unknown kind, or the config asks for what the model does not implement.
    """
    full = complete(config)
    for part, kind in (("vision_config", TOWERS[1]), ("text_config", "gemma3_text")):
        config.section(part).expect("model_type", None, kind)
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
    """A reader that makes one tile of every image."""

    def __init__(self, path: str | Path, config: Config, tokenizer: Any):
        """Opens the image processor of a folder.

        Raises:
            ValueError: The folder has no image processor, or one that makes images of another size or crops of them; or the
                tokenizer does not name the tokens before and behind an image.
        """
        super().__init__(path, config, tokenizer)
        check_side(path, self.processor, config.vision.image_size)
        if getattr(self.processor, "do_pan_and_scan", None):
            raise ValueError(
                f"{path}: do_pan_and_scan = True in preprocessor_config.json is not supported, and the processor of transformers "
                "does not obey it there either; set it to false"
            )
        before, behind = (getattr(tokenizer, f"{name}_token", None) for name in ("boi", "eoi"))
        if not isinstance(before, str) or not isinstance(behind, str):
            raise ValueError(
                f"{path}: the tokenizer names no boi_token and eoi_token, which stand before and behind an image; take "
                "tokenizer_config.json of the vision-language model"
            )
        self.placeholder, self.behind = before, behind

    def tiles(self, height: int, width: int) -> int:
        """Returns 1."""
        return 1

    def expansion(self, image: Mapping[str, Any], number_of_images: int) -> str:
        """Returns the text of transformers' processor for an image."""
        return f"\n\n{self.placeholder}{self.token * self.features}{self.behind}\n\n"
