"""Loads images from references, as transformers' `load_image` does; image processors, and a cache of their results.

A reference is a content part: {"type": "image", "path": ...} or {"type": "image", "bytes": ...}. As in `load_image`, the EXIF
orientation is applied, and then every mode becomes RGB: a palette is looked up, grey repeated, alpha dropped. Grey of 16 bits is
scaled to 8, where `load_image` takes all but the darkest for white. Of an animation or several pages, the first is read.
"""

import functools
import hashlib
import io
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from merit_jax.models.interface import VisionLanguageConfig
from merit_jax.models.io.errors import raise_if_of_machine
from merit_jax.models.processing.local_folder import open_image_processor
from merit_jax.models.processing.pixel_modes import check_mode, to_rgb

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "PCX")
"""Formats that are read. Pillow knows more, some of which (EPS) it passes to other programs."""
MAX_PIXELS = 2**26
"""Pixels of an image; one with more is refused before it is decoded."""
QUARTER_TURNS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
KNOWN_SIZES = 2**16
"""Sizes of images that are remembered while their files stay as they are."""
PNG_START, PNG_TEXT = 8, (b"eXIf", b"tEXt", b"zTXt", b"iTXt")

Stamp = tuple[int, int]
"""Bytes and time of a file."""


def open_image(image: Mapping[str, Any]) -> Image.Image:
    """Returns the image in RGB, upright.

    Args:
        image: A reference.

    Raises:
        ValueError: It is missing, empty, truncated, too large, of a mode without a fixed range, or no image.
    """
    with _opened(image) as opened:
        return to_rgb(ImageOps.exif_transpose(opened), opened.format)


def image_size(image: Mapping[str, Any]) -> tuple[int, int]:
    """Returns height and width of the upright image, in pixels, without decoding it.

    Args:
        image: A reference.

    Raises:
        ValueError: It is missing, empty, too large, or no image.
    """
    return _path_size(image["path"], _stamp(image["path"])) if "path" in image else _size(image)


def is_animated(image: Mapping[str, Any]) -> bool:
    """Returns whether an image has several frames or pages, of which only the first is read.

    Args:
        image: A reference.

    Raises:
        ValueError: It is missing, empty, too large, or no image.
    """
    with _opened(image) as opened:
        return opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1  # a camera's JPEG holds its own preview


def image_name(image: Mapping[str, Any]) -> str:
    """Returns the name of an image in error messages."""
    if "path" in image:
        return str(image["path"])
    return f"embedded image ({len(image['bytes'])} bytes, sha256 {hashlib.sha256(image['bytes']).hexdigest()[:12]})"


class ModeError(ValueError):
    """An image whose mode is refused."""


class PixelCache:
    """A cache of processed images that drops the least recently used; several threads may use it.

    A copy in another process starts empty.

    Attributes:
        process: From an RGB image to an array, which no caller may change.
        max_bytes: Size of all kept arrays.
    """

    def __init__(self, process: Callable[[Image.Image], np.ndarray], max_bytes: int):
        self.process, self.max_bytes = process, max_bytes
        self._kept: OrderedDict[Any, np.ndarray] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def __reduce__(self):
        return PixelCache, (self.process, self.max_bytes)

    def __call__(self, image: Mapping[str, Any]) -> np.ndarray:
        """Returns the processed image.

        Args:
            image: A reference.

        Raises:
            ValueError: It cannot be read.
        """
        key = image["path"] if "path" in image else hashlib.sha256(image["bytes"]).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        opened = open_image(image)
        try:
            value = self.process(opened)
        except ValueError as error:
            raise ValueError(f"{image_name(image)}: {error}") from error
        with self._lock:
            if key not in self._kept and value.nbytes <= self.max_bytes:
                self._kept[key] = value
                self._bytes += value.nbytes
            while self._bytes > self.max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return value


@functools.lru_cache(maxsize=KNOWN_SIZES)
def _path_size(path: str, stamp: Stamp) -> tuple[int, int]:
    return _size({"path": path})


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    with _opened(image) as opened:
        if opened.format == "TIFF":  # whose reader may rotate it too
            opened = ImageOps.exif_transpose(opened)
        turned = opened.width != opened.height and _orientation(opened) in QUARTER_TURNS
        return (opened.width, opened.height) if turned else (opened.height, opened.width)


@contextmanager
def _opened(image: Mapping[str, Any]) -> Iterator[Image.Image]:
    """Opens an image; an error inside the `with` block is raised as a fault of the image."""
    source = _source(image)
    try:
        with Image.open(source, formats=_formats()) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                size = f"{opened.width} x {opened.height} pixels"
                raise Image.DecompressionBombError(f"{size}, at most {MAX_PIXELS} are decoded")
            _check_mode(opened, image)
            yield opened
    except ModeError:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"{image_name(image)}: not an image that Pillow can read; convert it to PNG or JPEG") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{image_name(image)}: too large ({error}); make it smaller or delete the record") from None
    except Exception as error:  # decoders fail on damaged data in any way: OSError, SyntaxError, struct.error, ...
        raise_if_of_machine(error, image_name(image))
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{image_name(image)}: damaged or truncated image ({reason}); replace it or delete the record"
        ) from error


def _check_mode(opened: Image.Image, image: Mapping[str, Any]) -> None:
    try:
        check_mode(opened)
    except ValueError as error:
        raise ModeError(f"{image_name(image)}: {error}") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """Returns those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _source(image: Mapping[str, Any]) -> str | io.BytesIO:
    """Returns the argument for `PIL.Image.open`: a path, or bytes in memory."""
    size = _stamp(image["path"])[0] if "path" in image else len(image["bytes"])
    if not size:
        raise ValueError(f"{image_name(image)}: the image has 0 bytes; write the file again or delete the record")
    if "bytes" in image:
        return io.BytesIO(image["bytes"])
    return io.BytesIO(epath.Path(image["path"]).read_bytes()) if "://" in image["path"] else image["path"]


def _stamp(path: str) -> Stamp:
    """Returns bytes and time of a file.

    Raises:
        ValueError: There is no such file.
    """
    try:
        if "://" in path:
            found = epath.Path(path).stat()
            stamp, folder = (found.length, int(found.mtime)), found.is_directory
        else:
            local = os.stat(path)
            stamp, folder = (local.st_size, local.st_mtime_ns), stat.S_ISDIR(local.st_mode)
            if not folder and not stat.S_ISREG(local.st_mode):
                raise OSError("it is no regular file")
    except (OSError, ValueError) as error:
        raise_if_of_machine(error, path)
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "no such image" if missing else f"the image cannot be opened ({error})"
        raise ValueError(f"{path}: {reason}; correct the path or delete the record") from None
    if folder:
        raise ValueError(f"{path}: a folder, not an image; correct the path or delete the record")
    return stamp


def _orientation(opened: Image.Image) -> int | None:
    """Returns the EXIF orientation that `exif_transpose` will find."""
    if isinstance(opened, PngImageFile) and not _has_late_text(opened.fp):
        return Image.Image.getexif(opened).get(ExifTags.Base.Orientation)  # PNG's own getexif decodes the pixels
    return opened.getexif().get(ExifTags.Base.Orientation)


def _has_late_text(file: Any) -> bool:
    """Returns whether a PNG has metadata behind its pixels."""
    here = file.tell()
    file.seek(PNG_START)
    found = pixels = False
    while len(head := file.read(8)) == 8 and not found:
        pixels = pixels or head[4:] == b"IDAT"
        found = pixels and head[4:] in PNG_TEXT
        file.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    file.seek(here)
    return found


class ImageReader:
    """A reader of a model's images, as `merit_jax.core.types.ImageReader`; a family adds `process`, `expansion`, `check`, `row`.

    Attributes:
        processor: The checkpoint's image processor, with Pillow behind it.
        config: The model.
        placeholder: The text that the chat template writes per image.
        token: The text of the image token, as which a token of an image is written: the same, unless a family says otherwise.
        settings: All settings of the processor that decide token counts and pixels.
        read: Image -> its processed pixels, through a cache of `cache_bytes` per process.
    """

    cache_bytes = 2**28
    settings: dict[str, Any]

    def __init__(self, path: str | Path, config: VisionLanguageConfig, token: Any):
        """Opens the image processor of a folder.

        Raises:
            ValueError: There is none that can be read.
        """
        self.config, self.token, self.placeholder = config, token, token
        try:
            self.processor = open_image_processor(Path(path))
        except Exception as error:  # transformers fails on damaged settings in any way: OSError, KeyError, ...
            raise_if_of_machine(error, path)
            raise ValueError(f"{path}: the folder has no image processor that can be read: {error}") from None
        self.read = PixelCache(self.process, self.cache_bytes)

    def process(self, image: Image.Image) -> np.ndarray:
        """Returns the pixels of an image as the processor makes them."""
        raise NotImplementedError

    def expansion(self, image: Mapping[str, Any], number_of_images: int) -> str:
        """Returns the text that one placeholder becomes, for an image of a conversation with so many images."""
        raise NotImplementedError

    def count(self, tokens: Int[np.ndarray, " n"]) -> int:
        """Returns the number of tokens that stand for images."""
        return int(np.count_nonzero(np.asarray(tokens) == self.config.image_token))
