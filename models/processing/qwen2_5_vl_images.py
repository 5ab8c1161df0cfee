"""Qwen2.5-VL's images on the host: how many tokens one takes, and the patches and positions of a row."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from models.interface import VisionLanguageConfig
from models.modules.qwen2_5_vit import PatchRows, QwenVisionConfig
from models.processing.image_loading import PixelCache, image_name, image_processor, image_size, open_image

CACHE_BYTES = 2**28
"""Size of the cache of processed images, per process."""
_SIDES = ("patch_size", "merge_size", "temporal_patch_size")
_FIELDS = (*_SIDES, "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
_FIXED = {"do_resize": True, "do_convert_rgb": True}


def reader(path: str | Path, config: VisionLanguageConfig, tokenizer: Any) -> "QwenReader":
    """The reader of a checkpoint's images.

    Args:
        path: Hugging Face folder with a preprocessor_config.json.
        config: The model.
        tokenizer: Not needed: the placeholder's text is the same in all checkpoints of the family.

    Raises:
        ValueError: The image processor cannot be read, or does not fit the model.
    """
    return QwenReader(image_processor(path), config, str(path))


class QwenReader:
    """Reads images into `PatchRows`; a `merit_jax.core.types.ImageReader` in structure.

    Attributes:
        placeholder: What the chat template writes per image, and what one token of an image is written as.
        settings: All of the image processor that decides token counts and pixels.
    """

    placeholder = "<|image_pad|>"

    def __init__(self, processor: Any, config: VisionLanguageConfig, where: str):
        assert isinstance(config.vision, QwenVisionConfig)
        _check_processor(processor, config.vision, where)
        self._processor, self._vision, self._image_token = processor, config.vision, config.image_token
        self._pixels = PixelCache(functools.partial(_patches, processor), CACHE_BYTES)
        self.settings = {name: _plain(getattr(processor, name)) for name in _FIELDS} | {
            "size": [processor.size["shortest_edge"], processor.size["longest_edge"]]
        }

    def grid(self, image: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns of the image's tokens, from its size alone.

        Raises:
            ValueError: The image's size cannot be read, or its sides are too unequal.
        """
        height, width = image_size(image)
        size, side = self._processor.size, self._processor.patch_size * self._processor.merge_size
        try:
            height, width = smart_resize(height, width, side, size["shortest_edge"], size["longest_edge"])
        except ValueError as error:
            raise ValueError(f"{image_name(image)}: {error}; crop it or delete the record") from None
        return height // side, width // side

    def expansion(self, image: Mapping[str, Any], images: int) -> str:
        """The text that one placeholder becomes; `images`, their number in the conversation, does not matter."""
        rows, columns = self.grid(image)
        return self.placeholder * (rows * columns)

    def count(self, tokens: Int32[np.ndarray, " n"]) -> int:
        """How many of the tokens stand for images."""
        return int(np.count_nonzero(np.asarray(tokens) == self._image_token))

    def check(self, image: Mapping[str, Any]) -> None:
        """Reads one image whole.

        Raises:
            ValueError: It cannot be read.
        """
        self.grid(image)
        open_image(image)

    def row(self, placed: Sequence[Any], row_length: int, image_tokens: int) -> PatchRows:
        """The images of one row of a batch.

        An example may have been cut: of an image whose last tokens are missing, only the patches of the others are shown,
        and an image without tokens is not read.

        Args:
            placed: The examples of the row (`start`, `example`); an example's last token is only a target.
            row_length: Tokens of the row.
            image_tokens: Room for image tokens.

        Raises:
            ValueError: An image cannot be read or does not fit its tokens, or the row has no room for all image tokens.
        """
        positions = np.zeros((row_length, 3), np.int32)
        shown: list[Shown] = []
        for start, example in placed:
            spans = self._spans(example)
            length = len(example.tokens) - 1
            positions[start : start + length] = mrope_positions(length, [(span.start, *span.grid) for span in spans])
            shown += [self._show(span, start) for span in spans]
        taken = sum(len(part.slots) for part in shown)
        if taken > image_tokens:
            raise ValueError(
                f"a row has {taken} image tokens and room for {image_tokens}; allow more image tokens to a row, or lower "
                "longest_edge (max_pixels) in preprocessor_config.json"
            )
        return self._fill(shown, image_tokens, positions)

    def _spans(self, example: Any) -> list["Span"]:
        """Which tokens of an example stand for which image."""
        tokens = np.asarray(example.tokens)
        slots, spans = np.flatnonzero(tokens == self._image_token), []
        for image in example.images:
            if not len(slots):
                break
            grid = self.grid(image)
            mine, slots = np.split(slots, [min(grid[0] * grid[1], len(slots))])
            whole = len(mine) == grid[0] * grid[1] or mine[-1] == len(tokens) - 1
            if not whole or mine[-1] - mine[0] + 1 != len(mine):
                raise ValueError(_misfit(image_name(image), grid, len(mine)))
            kept = int(np.count_nonzero(mine < len(tokens) - 1))
            spans += [Span(image, grid, int(mine[0]), kept)] if kept else []
        if len(slots):
            raise ValueError(
                f"{len(slots)} image tokens of an example belong to none of its {len(example.images)} images"
            )
        return spans

    def _show(self, span: "Span", start: int) -> "Shown":
        """The patches of one image, in the order of windows."""
        values = self._pixels(span.image)
        order, windows = window_order(*span.grid, self._vision.window)
        kept = order < span.kept
        order, windows = order[kept], windows[kept]
        merge, columns = self._vision.merge_size, span.grid[1]
        corner = np.stack([order // columns, order % columns], axis=-1) * merge
        inside = np.stack(np.divmod(np.arange(merge * merge), merge), axis=-1)
        return Shown(
            values.reshape(span.grid[0] * columns, merge * merge, -1)[order],
            windows,
            corner[:, None] + inside,
            start + span.start + order,
        )

    def _fill(self, shown: Sequence["Shown"], image_tokens: int, positions: Int32[np.ndarray, "t 3"]) -> PatchRows:
        """The images one behind the other, padded to the room there is."""
        vision = self._vision
        group, width = vision.patches_per_token, int(np.prod(vision.patch_shape))
        patches = np.zeros((image_tokens, group, width), np.float32)
        coordinates = np.zeros((image_tokens, group, 2), np.int32)
        segments, windows, slots, valid = np.zeros((4, image_tokens), np.int32)
        end = last = 0
        for number, part in enumerate(shown, start=1):
            here = slice(end, end + len(part.slots))
            patches[here], coordinates[here], slots[here] = part.patches, part.coordinates, part.slots
            segments[here], valid[here], windows[here] = number, 1, part.windows + last + 1
            end, last = here.stop, int(windows[here].max())
        flat = (patches.reshape(-1, width), np.repeat(segments, group), np.repeat(windows, group))
        return PatchRows(*flat, coordinates.reshape(-1, 2), slots, valid, positions)


class Span(NamedTuple):
    """The tokens of one image in an example.

    Attributes:
        image: A reference.
        grid: Rows and columns of tokens that the whole image has.
        start: Place of the first token.
        kept: How many tokens are left.
    """

    image: Mapping[str, Any]
    grid: tuple[int, int]
    start: int
    kept: int


class Shown(NamedTuple):
    """One image of a row, by token in the order of windows.

    Attributes:
        patches: Pixels of the token's patches.
        windows: Number of the window in the image, from 0.
        coordinates: Row and column of the patches.
        slots: Place of the token in the row.
    """

    patches: Float32[np.ndarray, "n group d"]
    windows: Int64[np.ndarray, " n"]
    coordinates: Int64[np.ndarray, "n group 2"]
    slots: Int64[np.ndarray, " n"]


def mrope_positions(length: int, images: Sequence[tuple[int, int, int]]) -> Int32[np.ndarray, "n 3"]:
    """Temporal, height and width position of every token of an example.

    Text counts on by one in all three. The tokens of an image that begins at position p have (p, p + row, p + column), and text
    goes on at p + max(rows, columns).

    Args:
        length: Tokens of the example.
        images: First token, rows and columns of each image, in order; the last may be cut off by the end.
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
    """Tokens of an image window by window.

    Args:
        rows: Rows of tokens.
        columns: Columns of tokens.
        window: Side of a window, in tokens; those at the right and lower edges are smaller.

    Returns:
        The tokens' numbers (row by row in the image) in the order of windows, and the number of each one's window.
    """
    row, column = np.divmod(np.arange(rows * columns), columns)
    windows = (row // window) * -(-columns // window) + column // window
    order = np.argsort(windows, kind="stable")
    return order, windows[order]


def _patches(processor: Any, image: Image.Image) -> Float32[np.ndarray, "p d"]:
    """The image as the processor gives it: normalised patches, those of a token together."""
    return processor(images=[image], return_tensors="np")["pixel_values"]


def _check_processor(processor: Any, vision: QwenVisionConfig, where: str) -> None:
    """Raises ValueError unless the processor makes what the tower takes."""
    if not isinstance(processor, Qwen2VLImageProcessorPil):
        raise ValueError(f"{where}: the image processor is {type(processor).__name__}; expected Qwen2VLImageProcessor")
    expected = {name: getattr(vision, name) for name in _SIDES} | _FIXED
    for name, value in expected.items():
        if getattr(processor, name) != value:
            raise ValueError(
                f"{where}: {name} = {getattr(processor, name)!r} in preprocessor_config.json; the model needs {value!r}"
            )


def _plain(value: Any) -> Any:
    """The value as JSON has it: lists for tuples, whole numbers for enumerations."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _misfit(name: str, grid: tuple[int, int], tokens: int) -> str:
    return (
        f"{name}: the image has {grid[0]} x {grid[1]} tokens, but {tokens} neighbouring ones stand for it: the image or "
        "the image processor has changed since the text was tokenised; delete the token cache"
    )
