"""Turns an image of any mode into RGB of 8 bits, or refuses the mode by name."""

import numpy as np
from PIL import Image

EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
"""Modes that Pillow itself converts to RGB."""
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
WIDENED = ("PNG", "PPM")
"""Formats whose grey of 16 bits Pillow may open as mode I."""
LARGEST = 2**16 - 1


def check_mode(image: Image.Image) -> None:
    """Refuses modes whose values have no range of their own, such as 32-bit integers and floats, and unusual colours.

    Raises:
        ValueError: The mode is named.
    """
    if image.mode not in EIGHT_BITS and not _is_sixteen_bits(image.mode, image.format):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range or colours; convert it to 8-bit RGB")


def to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    """Returns the image in RGB: a palette is looked up, grey repeated, alpha dropped, 16 bits scaled to 8.

    Args:
        image: An image whose mode `check_mode` accepts.
        file_format: Pillow's name of the format that it was read from.
    """
    if _is_sixteen_bits(image.mode, file_format):
        values = np.clip(np.asarray(image).astype(np.int64), 0, LARGEST)
        image = Image.fromarray(((values * 255 + LARGEST // 2) // LARGEST).astype(np.uint8))
    return image.convert("RGB")


def _is_sixteen_bits(mode: str, file_format: str | None) -> bool:
    return mode in SIXTEEN_BITS or (mode == "I" and file_format in WIDENED)
