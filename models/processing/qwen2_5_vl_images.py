"""The images of Qwen2.5-VL and Qwen3-VL on the host: the number of tokens of one, and the patches and positions of a row."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64
from PIL import Image

from merit_jax.models.interface import VisionLanguageConfig
from merit_jax.models.modules.patch_rows import PatchRows, PatchTowerConfig, patch_rows
from merit_jax.models.processing.image_loading import MAX_PIXELS, ImageReader, image_name, image_size, open_image

_SIDES = ("patch_size", "merge_size", "temporal_patch_size")
_FIELDS = (*_SIDES, "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
_FIXED = {"do_resize": True, "do_convert_rgb": True}


class QwenReader(ImageReader):
    """A reader that fills `PatchRows`."""

    def __init__(self, path: str | Path, config: VisionLanguageConfig[PatchTowerConfig, Any], tokenizer: Any):
        """Opens the image processor of a folder; `tokenizer` does not matter: all have the same text of the image token.

        Raises:
            ValueError: The image processor cannot be read, or does not fit the model.
        """
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

        super().__init__(path, config, "<|image_pad|>")
        self._resize = smart_resize
        processor = self.processor
        if not isinstance(processor, Qwen2VLImageProcessorPil):
            raise ValueError(
                f"{path}: the image processor is {type(processor).__name__}; expected Qwen2VLImageProcessor"
            )
        for name, value in ({name: getattr(config.vision, name) for name in _SIDES} | _FIXED).items():
            if getattr(processor, name) != value:
                raise ValueError(
                    f"{path}: {name} = {getattr(processor, name)!r} in preprocessor_config.json; the model needs {value!r}"
                )
        self.settings = {name: _plain(getattr(processor, name)) for name in _FIELDS} | {
            "size": [processor.size["shortest_edge"], processor.size["longest_edge"]]
        }

    def process(self, image: Image.Image) -> Float32[np.ndarray, "p d"]:
        """Returns the normalised patches of an image as the processor gives them, those of a token together."""
        return self.processor(images=[image], return_tensors="np")["pixel_values"]

    def grid(self, image: Mapping[str, Any]) -> tuple[int, int]:
        """Returns rows and columns of the image's tokens, from its size alone.

        Raises:
            ValueError: The image's size cannot be read, or its sides are too unequal.
        """
        height, width = image_size(image)
        size, side = self.processor.size, self.processor.patch_size * self.processor.merge_size
        try:
            height, width = self._resize(height, width, side, size["shortest_edge"], size["longest_edge"])
            if height * width > MAX_PIXELS:
                raise ValueError(f"it would be resized to {height} x {width}, at most {MAX_PIXELS} pixels are made")
        except ValueError as error:
            raise ValueError(f"{image_name(image)}: {error}; crop it or delete the record") from None
        return height // side, width // side

    def expansion(self, image: Mapping[str, Any], number_of_images: int) -> str:
        """Returns the image token, once per token of the image."""
        rows, columns = self.grid(image)
        return self.token * (rows * columns)

    def check(self, image: Mapping[str, Any]) -> None:
        """Reads one image whole.

        Raises:
            ValueError: It cannot be read.
        """
        self.grid(image)
        open_image(image)

    def row(self, placed: Sequence[Any], row_length: int, image_tokens: int) -> PatchRows:
        """Reads the images of one row of a batch.

        An example may be truncated: of an image whose last tokens are missing, only the patches of the others are shown,
        and an image without tokens is not read.

        Args:
            placed: The examples of the row (`start`, `example`); an example's last token is only a target.
            row_length: Tokens of the row.
            image_tokens: Room for image tokens.

        Raises:
            ValueError: An image cannot be read or does not fit its tokens, or the row has no room for all image tokens.
        """
        vision, row = self.config.vision, patch_rows(self.config.vision, row_length, image_tokens, np.zeros)
        shown: list[tuple[int, Span]] = []
        for start, example in placed:
            spans = self._spans(example)
            length = len(example.tokens) - 1
            places = [(span.start, *span.grid) for span in spans]
            row.positions[start : start + length] = mrope_positions(length, places)
            shown += [(start + span.start, span) for span in spans]
        taken = sum(span.kept for _, span in shown)
        if taken > image_tokens:
            raise ValueError(
                f"a row has {taken} image tokens and room for {image_tokens}; allow more image tokens to a row, or lower "
                "longest_edge (max_pixels) in preprocessor_config.json"
            )
        merge, group, end, last = vision.merge_size, vision.patches_per_token, 0, 0
        inside = np.stack(np.divmod(np.arange(group), merge), axis=-1)
        for number, (first, span) in enumerate(shown, start=1):
            order, windows = window_order(*span.grid, vision.window)
            order, windows = order[order < span.kept], windows[order < span.kept] + last + 1
            tokens, patches = slice(end, end + span.kept), slice(end * group, (end + span.kept) * group)
            corners = np.stack(np.divmod(order, span.grid[1]), axis=-1) * merge
            pixels = self.read(span.image).reshape(span.grid[0] * span.grid[1], group, -1)[order]
            row.patches[patches] = pixels.reshape(-1, row.patches.shape[-1])
            row.coordinates[patches] = (corners[:, None] + inside).reshape(-1, 2)
            row.segments[patches] = number
            if row.windows is not None:
                row.windows[patches] = np.repeat(windows, group)
            if row.grids is not None:
                row.grids[patches] = np.multiply(span.grid, merge)
            row.slots[tokens], row.valid[tokens] = first + order, 1
            end, last = tokens.stop, int(windows.max())
        return row

    def _spans(self, example: Any) -> list["Span"]:
        """Returns the tokens of each image of an example that has any."""
        tokens = np.asarray(example.tokens)
        slots, spans = np.flatnonzero(tokens == self.config.image_token), []
        for image in example.images:
            if not len(slots):
                break
            grid = self.grid(image)
            mine, slots = np.split(slots, [min(grid[0] * grid[1], len(slots))])
            whole = len(mine) == grid[0] * grid[1] or mine[-1] == len(tokens) - 1
            if not whole or mine[-1] - mine[0] + 1 != len(mine):
                raise ValueError(
                    f"{image_name(image)}: the image has {grid[0]} x {grid[1]} tokens, but {len(mine)} neighbouring ones stand "
                    "for it: the image or the image processor has changed since the text was tokenised; delete the token cache"
                )
            kept = int(np.count_nonzero(mine < len(tokens) - 1))
            spans += [Span(image, grid, int(mine[0]), kept)] if kept else []
        if len(slots):
            raise ValueError(
                f"{len(slots)} image tokens of an example belong to none of its {len(example.images)} images"
            )
        return spans


class Span(NamedTuple):
    """The tokens of one image in an example.

    Attributes:
        image: A reference.
        grid: Rows and columns of tokens that the whole image has.
        start: Place of the first token.
        kept: Number of tokens that are left.
    """

    image: Mapping[str, Any]
    grid: tuple[int, int]
    start: int
    kept: int


def mrope_positions(length: int, images: Sequence[tuple[int, int, int]]) -> Int32[np.ndarray, "n 3"]:
    """Returns the temporal, height and width position of every token of an example.

    In text all three rise by one. The tokens of an image that begins at position p have (p, p + row, p + column), and text
    continues at p + max(rows, columns).

    Args:
        length: Tokens of the example.
        images: First token, rows and columns of each image, in order; the last may be truncated by the end.

    Examples:
        >>> mrope_positions(5, [(1, 1, 2)]).tolist()
        [[0, 0, 0], [1, 1, 1], [1, 1, 2], [3, 3, 3], [4, 4, 4]]
    """
    positions = np.zeros((length, 3), np.int32)
    place = following = 0
    for start, rows, columns in images:
        positions[place:start] = (following + np.arange(start - place))[:, None]
        first = following + start - place
        place = min(start + rows * columns, length)
        row, column = np.divmod(np.arange(place - start), columns)
        positions[start:place] = first + np.stack([np.zeros_like(row), row, column], axis=-1)
        following = first + max(rows, columns)
    positions[place:] = (following + np.arange(length - place))[:, None]
    return positions


@functools.lru_cache(maxsize=512)
def window_order(rows: int, columns: int, window: int) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Orders the tokens of an image window by window.

    Args:
        rows: Rows of tokens.
        columns: Columns of tokens.
        window: Side of a window, in tokens; those at the right and lower edges are smaller. 0: the image is one window.

    Returns:
        The tokens' numbers (row by row in the image) in the order of windows, and the number of each one's window.

    Examples:
        >>> order, windows = window_order(rows=2, columns=4, window=2)
        >>> order.tolist(), windows.tolist()
        ([0, 1, 4, 5, 2, 3, 6, 7], [0, 0, 0, 0, 1, 1, 1, 1])
    """
    window = window or max(rows, columns)
    row, column = np.divmod(np.arange(rows * columns), columns)
    windows = (row // window) * -(-columns // window) + column // window
    order = np.argsort(windows, kind="stable")
    return order, windows[order]


def _plain(value: Any) -> Any:
    """Returns the value as in JSON: lists for tuples, whole numbers for enumerations."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
