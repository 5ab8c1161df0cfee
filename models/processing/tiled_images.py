"""Images as square tiles of one size: the arrays of a batch, and the reader that fills them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL.Image import Image as PILImage

from models.modules.vit import TileRows
from models.processing.image_loading import PixelCache, image_name

CACHE_BYTES = 512 * 2**20


class Tiles(NamedTuple):
    """One processed image.

    Attributes:
        pixels: As in `TileRows`.
        mask: As in `TileRows`.
    """

    pixels: Float[np.ndarray, "tiles patches values"]
    mask: Bool[np.ndarray, "tiles grid grid"] | None


class Cut(NamedTuple):
    """A tile on its way into a row: its pixels, its mask, and the places of its tokens, fewer than it has features if cut."""

    pixels: Float[np.ndarray, "patches values"]
    mask: Bool[np.ndarray, "grid grid"] | None
    places: Int[np.ndarray, " n"]


class TileReader:
    """Reads images for a family whose images are tiles of one size; a family adds `tiles` and `expansion`.

    Attributes:
        processor: The checkpoint's image processor.
        config: The model.
        features: Features per tile.
        placeholder: The text of the image token.
        settings: What the image processor does, as JSON.
    """

    def __init__(self, processor: Any, config: Any, features: int, placeholder: str):
        self.processor, self.config, self.features, self.placeholder = processor, config, features, placeholder
        self.settings = {"image_processor": json.loads(processor.to_json_string()), "features_per_tile": features}
        self._read = PixelCache(self.process, CACHE_BYTES)

    def tiles(self, height: int, width: int) -> int:
        """Into how many tiles an image of that size is made."""
        raise NotImplementedError

    def expansion(self, image: Mapping[str, Any], number_of_images: int) -> str:
        """The text that stands for an image."""
        raise NotImplementedError

    def count(self, tokens: Int[np.ndarray, " n"]) -> int:
        """How many of the tokens stand for images."""
        return int(np.count_nonzero(tokens == self.config.image_token))

    def check(self, image: Mapping[str, Any]) -> None:
        """Reads one image whole.

        Raises:
            ValueError: It cannot be read.
        """
        self._read(image)

    def process(self, image: PILImage) -> Tiles:
        """The tiles of an image, as the processor makes them."""
        vision = self.config.vision
        found = self.processor([image], return_tensors="np")
        pixels = found["pixel_values"].reshape(-1, vision.channels, *found["pixel_values"].shape[-2:])
        expected = (self.tiles(image.height, image.width), vision.channels, vision.image_size, vision.image_size)
        if pixels.shape != expected:
            raise ValueError(f"the image processor gives pixels of shape {pixels.shape}, expected {expected}")
        mask = None
        if vision.masked:
            mask = np.ones((len(pixels), vision.grid, vision.grid), bool)
        return Tiles(patches(pixels.astype(np.float32), vision.patch_size), mask)

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
        cuts = [cut for start, example in placed for cut in self._cuts(start, example)]
        cuts.sort(key=lambda cut: len(cut.places) < self.features)  # what does not fit is cut: nothing reads its tokens
        row = self._blank(room)
        for tile, cut in enumerate(cuts[:room]):
            row.pixels[tile] = cut.pixels
            if row.mask is not None:
                row.mask[tile] = cut.mask
            first = tile * self.features
            row.slots[first : first + len(cut.places)] = cut.places
            row.valid[first : first + len(cut.places)] = True
        return row

    def _cuts(self, start: int, example: Any) -> Iterator[Cut]:
        """The tiles of which an example has tokens."""
        places = start + np.flatnonzero(example.tokens[:-1] == self.config.image_token).astype(np.int32)
        for image in example.images:
            if not len(places):
                return
            for pixels, mask in _each(self._read(image)):
                if len(places):
                    yield Cut(pixels, mask, places[: self.features])
                places = places[self.features :]
        if len(places):
            names = ", ".join(image_name(image) for image in example.images) or "no image"
            raise ValueError(
                f"{len(places)} of an example's {self.placeholder!r} tokens stand for no image (it has {names}); tokenise the "
                "data with the checkpoint's own image settings, and keep the token out of the text"
            )

    def _blank(self, room: int) -> TileRows:
        vision, features = self.config.vision, room * self.features
        return TileRows(
            np.zeros((room, vision.grid**2, vision.patch_values), np.float32),
            np.zeros((room, vision.grid, vision.grid), bool) if vision.masked else None,
            np.zeros(features, np.int32),
            np.zeros(features, bool),
        )


def _each(tiles: Tiles) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    for number, pixels in enumerate(tiles.pixels):
        yield pixels, None if tiles.mask is None else tiles.mask[number]


def patches(
    pixels: Float[np.ndarray, "tiles colours height width"], size: int
) -> Float[np.ndarray, "tiles patches values"]:
    """Cuts tiles into patches, line by line; what is left at the right and the bottom is dropped."""
    tiles, colours, height, width = pixels.shape
    lines, columns = height // size, width // size
    whole = pixels[:, :, : lines * size, : columns * size].reshape(tiles, colours, lines, size, columns, size)
    return whole.transpose(0, 2, 4, 1, 3, 5).reshape(tiles, lines * columns, colours * size * size)
