"""Images as square tiles of one size: the reader that fills the arrays of a batch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32
from PIL.Image import Image

from merit_jax.models.interface import VisionLanguageConfig
from merit_jax.models.modules.projector import features_per_tile
from merit_jax.models.modules.vit import TileRows, tile_rows
from merit_jax.models.processing.image_loading import MAX_PIXELS, ImageReader, image_name


class TileReader(ImageReader):
    """A reader for a family whose images are tiles of one size; a family adds `tiles` and `expansion`.

    Attributes:
        features: Features per tile.
        settings: The settings of the image processor, as JSON.
    """

    cache_bytes = 2**29

    def __init__(self, path: str | Path, config: VisionLanguageConfig, tokenizer: Any):
        super().__init__(path, config, tokenizer.convert_ids_to_tokens(config.image_token))
        self.features = features_per_tile(config)
        self.settings = {
            "image_processor": json.loads(self.processor.to_json_string()),
            "features_per_tile": self.features,
        }

    def tiles(self, height: int, width: int) -> int:
        """Returns the number of tiles of an image of that size."""
        raise NotImplementedError

    def check(self, image: Mapping[str, Any]) -> None:
        """Reads one image whole.

        Raises:
            ValueError: It cannot be read.
        """
        self.read(image)

    def process(self, image: Image) -> Float32[np.ndarray, "tiles patches values"]:
        """Returns the tiles of an image, as the processor makes them.

        Raises:
            ValueError: The image would be resized to more than `MAX_PIXELS`.
        """
        vision = self.config.vision
        if getattr(self.processor, "do_resize", False):
            check_resized(self.processor.size, image.height, image.width)
        found = self.processor([image], return_tensors="np")["pixel_values"]
        pixels = found.reshape(-1, vision.channels, *found.shape[-2:])
        expected = (self.tiles(image.height, image.width), vision.channels, vision.image_size, vision.image_size)
        if pixels.shape != expected:
            raise ValueError(f"the image processor gives pixels of shape {pixels.shape}, expected {expected}")
        return patches(pixels.astype(np.float32), vision.patch_size)

    def row(self, placed: Sequence[Any], row_length: int, image_tokens: int) -> TileRows:
        """Reads the images of one row of a batch.

        Args:
            placed: (start, example) of each example in the row; an example has `tokens` and `images`.
            row_length: Tokens of the row.
            image_tokens: Room for image tokens; the examples have no more.

        Raises:
            ValueError: An image cannot be read, or an example has more image tokens than its images have features.
        """
        room = -(-image_tokens // self.features)
        tiles = [tile for start, example in placed for tile in self._tiles(start, example)]
        tiles.sort(
            key=lambda tile: len(tile[1]) < self.features
        )  # truncated tiles are dropped first: no token sees them
        row = tile_rows(self.config.vision, room, room * self.features, np.zeros)
        for number, (pixels, slots) in enumerate(tiles[:room]):
            row.pixels[number] = pixels
            if row.mask is not None:
                row.mask[number] = True
            here = slice(number * self.features, number * self.features + len(slots))
            row.slots[here], row.valid[here] = slots, True
        return row

    def _tiles(self, start: int, example: Any) -> Iterator[tuple[np.ndarray, Int32[np.ndarray, " n"]]]:
        """Yields each tile of which an example has tokens: pixels, and the places of its tokens, fewer if it is truncated."""
        places = start + np.flatnonzero(example.tokens[:-1] == self.config.image_token).astype(np.int32)
        for image in example.images:
            if not len(places):
                return
            for pixels in self.read(image):
                if len(places):
                    yield pixels, places[: self.features]
                places = places[self.features :]
        if len(places):
            names = ", ".join(image_name(image) for image in example.images) or "no image"
            raise ValueError(
                f"{len(places)} of an example's {self.token!r} tokens stand for no image (it has {names}); tokenise the "
                "data with the checkpoint's own image settings, and keep the token out of the text"
            )


def check_resized(size: Any, height: int, width: int) -> None:
    """Refuses to resize an image to more than `MAX_PIXELS`: a thin one grows by its length, and settings may be of any size.

    Args:
        size: `size` of an image processor.
        height: Of the image, in pixels.
        width: The same.

    Raises:
        ValueError: It would be larger.
    """
    if size.longest_edge:
        pixels = size.longest_edge**2
    elif size.shortest_edge:
        pixels = size.shortest_edge**2 * max(height, width) // min(height, width)
    else:
        pixels = (size.height or 0) * (size.width or 0)
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"an image of {height} x {width} would be resized to {pixels} pixels, at most {MAX_PIXELS} are made; crop it, delete "
            "the record, or mend size in preprocessor_config.json"
        )


def patches(
    pixels: Float[np.ndarray, "tiles colours height width"], size: int
) -> Float[np.ndarray, "tiles patches values"]:
    """Splits tiles into patches, line by line; the rest at the right and the bottom is dropped.

    Examples:
        >>> tile = np.arange(8.0).reshape(1, 1, 2, 4)
        >>> patches(tile, 2).tolist()
        [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    tiles, colours, height, width = pixels.shape
    lines, columns = height // size, width // size
    whole = pixels[:, :, : lines * size, : columns * size].reshape(tiles, colours, lines, size, columns, size)
    return whole.transpose(0, 2, 4, 1, 3, 5).reshape(tiles, lines * columns, colours * size * size)
