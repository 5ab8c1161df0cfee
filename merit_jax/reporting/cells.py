"""The cells of a heat map as an image of one pixel each."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from merit_jax.core.types import Array
from merit_jax.reporting.figures import Number

NEGATIVE, POSITIVE = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion of Okabe & Ito: told apart by colour-blind readers."""


def limit_of(values: Float[Array, "t t"]) -> Number:
    """The magnitude that gets the full colour: that of the largest 2 % off the diagonal, so that few do not pale the rest."""
    off = np.abs(np.asarray(values, np.float64))[~np.eye(len(values), dtype=bool)]
    limit = float(np.quantile(off, 0.98)) if off.size else 0.0
    return limit if limit > 0 else 1.0


def paint(values: Float[Array, "t t"]) -> UInt8[np.ndarray, "t t 4"]:
    """Red, green, blue and opacity: the sign decides the colour, the magnitude the opacity, so that zero is the paper's own."""
    values = np.asarray(values, np.float64)
    strength = np.clip(np.abs(values) / limit_of(values), 0, 1)
    rgb = np.where((values < 0)[..., None], NEGATIVE, POSITIVE)
    return np.concatenate([rgb, np.rint(255 * strength)[..., None]], axis=-1).astype(np.uint8)


def shade(share: Number) -> tuple[str, Number]:
    """(colour, opacity) of a share of the full colour, in -1..1."""
    red, green, blue = NEGATIVE if share < 0 else POSITIVE
    return f"#{red:02x}{green:02x}{blue:02x}", abs(share)


def data_uri(pixels: UInt8[np.ndarray, "h w 4"]) -> str:
    """The pixels as a PNG within a URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def packed(values: Float[Array, "t t"]) -> str:
    """The values in hundredths, one signed byte each, in base 64: what hovering a cell shows."""
    return base64.b64encode(np.rint(100 * np.clip(values, -1, 1)).astype(np.int8).tobytes()).decode()
