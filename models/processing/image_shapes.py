"""Images as numbers alone: the shapes of a row's image arrays, and the work of a tower on them, before any image is read."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.interface import VisionLanguageConfig
from models.modules.patch_attention import DENSE, QUERIES
from models.modules.projector import ShuffleProjectorConfig
from models.modules.qwen2_5_vit import PatchRows, QwenVisionConfig
from models.modules.vit import TileRows


class ImageWork(NamedTuple):
    """What a tower does to one row of a batch.

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
    """Shapes and types of `Batch.images` of one row, as the family's reader makes them.

    Args:
        config: The model.
        row_length: Tokens of the row.
        image_tokens: How many of them may stand for images.
    """
    vision = config.vision
    if isinstance(vision, QwenVisionConfig):
        patches = image_tokens * vision.patches_per_token
        return PatchRows(
            _floats(patches, int(np.prod(vision.patch_shape))),
            *(_numbers(patches), _numbers(patches), _numbers(patches, 2)),
            *(_numbers(image_tokens), _numbers(image_tokens), _numbers(row_length, 3)),
        )
    tiles, features = _tiles(config, image_tokens)
    return TileRows(
        _floats(tiles, vision.grid**2, vision.patch_values),
        jax.ShapeDtypeStruct((tiles, vision.grid, vision.grid), jnp.bool_) if vision.masked else None,
        _numbers(tiles * features),
        jax.ShapeDtypeStruct((tiles * features,), jnp.bool_),
    )


def image_work(config: VisionLanguageConfig, image_tokens: int) -> ImageWork:
    """The tower's work on a row with room for so many image tokens."""
    vision = config.vision
    if not isinstance(vision, QwenVisionConfig):
        tiles, features = _tiles(config, image_tokens)
        each = vision.grid**2 + vision.clip
        return ImageWork(tiles * each, tiles * features, vision.depth * tiles * each**2, tiles * each**2)
    patches = image_tokens * vision.patches_per_token
    if patches <= DENSE:
        return ImageWork(patches, image_tokens, vision.layers * patches**2, patches**2)
    most = vision.window**2 * vision.patches_per_token
    block = most * -(-QUERIES // most)
    padded = -(-patches // block) * block
    full = len(vision.full_layers)
    windows = 3 * most * padded
    return ImageWork(
        patches, image_tokens, full * padded**2 + (vision.layers - full) * windows, max(block * padded, windows)
    )


def _tiles(config: VisionLanguageConfig, image_tokens: int) -> tuple[int, int]:
    """Tiles of a row, and features of a tile."""
    shuffled = isinstance(config.projector, ShuffleProjectorConfig)
    features = config.vision.vectors // (config.projector.factor**2 if shuffled else 1)
    return -(-image_tokens // features), features


def _floats(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _numbers(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.int32)
