"""Draws scenes with integers and comparisons only, so that every machine draws the same."""

import functools
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from merit_jax.examples.shapes.glyphs import BITMAPS
from merit_jax.examples.shapes.scenes import Scene, Thing
from merit_jax.examples.shapes.written import written_digits

CELL, SIDE = 12, 36
RGB = {
    "red": (230, 50, 45),
    "green": (50, 190, 75),
    "blue": (65, 105, 245),
    "yellow": (245, 215, 45),
    "purple": (175, 75, 210),
    "white": (240, 240, 240),
}
BACKGROUND, NOISE, SHADES = 10, 8, 14
LIGHT = 54
"""How much redder the ground is at the right than at the left, and bluer at the bottom than at the top."""

SIZE = {"large": 10, "small": 7}


def render(scene: Scene) -> np.ndarray:
    """Draws a scene as u8[36, 36, 3]: dark noisy ground lit from two sides, objects jittered by a pixel and varied in colour."""
    rng = np.random.default_rng(zlib.crc32(repr(scene).encode()))
    picture = BACKGROUND + rng.integers(-NOISE, NOISE + 1, (SIDE, SIDE, 3))
    ramp = np.arange(SIDE) * LIGHT // (SIDE - 1)
    picture += np.stack(np.broadcast_arrays(ramp, LIGHT // 2, ramp[:, None]), axis=2)
    for thing in scene.things:
        ink, color = _ink(thing), _color(thing, rng)
        height, width = ink.shape
        top = thing.row * CELL + _offset(CELL - height, rng)
        left = thing.column * CELL + _offset(CELL - width, rng)
        area = picture[top : top + height, left : left + width]
        area += ink[:, :, None] * (color - area) // 16
    return np.clip(picture, 0, 255).astype(np.uint8)


def save(scene: Scene, folder: Path) -> None:
    """Writes the picture of a scene to folder/NAME.png."""
    Image.fromarray(render(scene)).save(folder / f"{scene.name}.png", compress_level=1)


def contact_sheet(scenes: Sequence[Scene], path: Path, columns: int = 8, scale: int = 4) -> None:
    """Writes enlarged pictures of scenes side by side, for people."""
    tile = SIDE * scale + 4
    sheet = np.full((-(-len(scenes) // columns) * tile, columns * tile, 3), 255, np.uint8)
    for number, scene in enumerate(scenes):
        top, left = number // columns * tile, number % columns * tile
        large = render(scene).repeat(scale, axis=0).repeat(scale, axis=1)
        sheet[top : top + SIDE * scale, left : left + SIDE * scale] = large
    Image.fromarray(sheet).save(path)


def _offset(room: int, rng: np.random.Generator) -> int:
    """Draws a pixel of jitter about the middle, inside the cell."""
    return int(np.clip(room // 2 + rng.integers(-1, 2), 0, room))


def _color(thing: Thing, rng: np.random.Generator) -> np.ndarray:
    return np.array(RGB[thing.color or "white"]) + rng.integers(-SHADES, SHADES + 1, 3)


def _ink(thing: Thing) -> np.ndarray:
    """Returns the share of ink of each pixel, i64[height, width] of 0 to 16."""
    if thing.kind == "written":
        digits = written_digits()
        assert digits is not None
        rows = np.arange(CELL) * 8 // CELL
        return digits[0][thing.picture][rows][:, rows].astype(np.int64)
    if thing.kind == "shape":
        return _shape(thing.name, SIZE[thing.size or "large"])
    rows, columns = np.arange(10) * 7 // 10, np.arange(7) * 5 // 7
    return 16 * BITMAPS[thing.name][rows][:, columns].astype(np.int64)


@functools.cache
def _shape(name: str, size: int) -> np.ndarray:
    """Draws a shape that fills a square of `size` pixels; coordinates are twice the distance from the middle."""
    y, x = np.mgrid[0:size, 0:size] * 2 - (size - 1)
    radius, distance = size * size - size // 2, x * x + y * y
    inside = {
        "circle": distance <= radius,
        "square": (abs(x) < size) & (abs(y) < size),
        "triangle": 2 * abs(x) <= y + size,
        "cross": (abs(x) <= size // 4) | (abs(y) <= size // 4),
        "ring": (distance <= radius) & (4 * distance >= radius + size),
        "diamond": abs(x) + abs(y) <= size - size % 2,
    }
    return 16 * inside[name].astype(np.int64)
