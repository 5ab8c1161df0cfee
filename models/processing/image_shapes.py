"""Computes the shapes of a row's image arrays, and the work of a tower on them, before any image is read."""

from typing import NamedTuple

import jax

from merit_jax.models.interface import VisionLanguageConfig
from merit_jax.models.modules.attention import LONGEST
from merit_jax.models.modules.chunked_attention import BLOCK
from merit_jax.models.modules.patch_rows import PatchRows, PatchTowerConfig, patch_rows
from merit_jax.models.modules.projector import features_per_tile
from merit_jax.models.modules.qwen2_5_vit import QwenVisionConfig
from merit_jax.models.modules.vit import TileRows, tile_rows


class ImageWork(NamedTuple):
    """The work of a tower on one row of a batch.

    Attributes:
        vectors: Vectors that go through its blocks.
        features: Features that come out of the projector.
        pairs: Query-key pairs that its attention scores, summed over its blocks.
        largest: Query-key pairs whose scores exist at one time.
    """

    vectors: int
    features: int
    pairs: int
    largest: int


def image_rows(config: VisionLanguageConfig, row_length: int, image_tokens: int) -> PatchRows | TileRows:
    """Returns shapes and types of `Batch.images` of one row, as the family's reader makes them.

    Args:
        config: The model.
        row_length: Tokens of the row.
        image_tokens: Number of them that may stand for images.
    """
    if isinstance(config.vision, PatchTowerConfig):
        return patch_rows(config.vision, row_length, image_tokens, jax.ShapeDtypeStruct)
    features = features_per_tile(config)
    tiles = -(-image_tokens // features)
    return tile_rows(config.vision, tiles, tiles * features, jax.ShapeDtypeStruct)


def image_work(config: VisionLanguageConfig, image_tokens: int) -> ImageWork:
    """Computes the tower's work on a row with room for so many image tokens."""
    vision = config.vision
    if not isinstance(vision, PatchTowerConfig):
        features = features_per_tile(config)
        tiles = -(-image_tokens // features)
        each = vision.grid**2 + vision.clip
        scored = each if each <= LONGEST["auto"] else min(BLOCK, each)
        return ImageWork(tiles * each, tiles * features, vision.depth * tiles * each**2, tiles * scored**2)
    patches = image_tokens * vision.patches_per_token
    if patches <= LONGEST["auto"]:
        return ImageWork(patches, image_tokens, vision.layers * patches**2, patches**2)
    full = len(vision.full_layers) if isinstance(vision, QwenVisionConfig) else vision.layers
    windows = 3 * vision.window**2 * vision.patches_per_token * patches
    pairs = full * patches**2 + (vision.layers - full) * windows
    return ImageWork(patches, image_tokens, pairs, max(BLOCK**2, windows))
