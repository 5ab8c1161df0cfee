"""Random scenes: two to four objects in the cells of a 3x3 grid.

A scene belongs to a split by a hash of its own content, so that the splits of every seed are disjoint.
"""

import functools
import zlib
from random import Random
from typing import NamedTuple

from merit_jax.examples.shapes.glyphs import DIGITS, LETTERS
from merit_jax.examples.shapes.written import written_digits

COLORS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
SIZES = ("large", "small")
UNSEEN = frozenset((color, SHAPES[(i + 2) % len(SHAPES)]) for i, color in enumerate(COLORS))
"""Combinations of colour and shape that the fine-tuning datasets never show."""

CROWDS = {"few": (2, 3, 4), "many": (6, 7, 8)}
"""Numbers of objects that a scene may have."""

CLASSES = {"suites": (0,), "mixture": (1, 2), "basin": (3, 4, 5, 6, 7)}
"""Split -> the classes of content, of eight, that are its own."""


class Thing(NamedTuple):
    """An object of a scene.

    Attributes:
        kind: "shape", "letter", "digit" or "written" (a real handwritten digit).
        name: Which shape, letter or digit.
        color: One of `COLORS`; None for handwriting.
        size: One of `SIZES`; None for a thing that is no shape.
        cell: Place in the grid, 0 to 8 in reading order.
        picture: Which handwritten digit; -1 for none.
    """

    kind: str
    name: str
    color: str | None
    size: str | None
    cell: int
    picture: int = -1

    @property
    def row(self) -> int:
        """Row of the grid, from the top."""
        return self.cell // 3

    @property
    def column(self) -> int:
        """Column of the grid, from the left."""
        return self.cell % 3


class Scene(NamedTuple):
    """Objects in reading order.

    Attributes:
        name: Unique name; the picture is the file NAME.png.
        things: The objects.
    """

    name: str
    things: tuple[Thing, ...]

    @property
    def split(self) -> str:
        """The split that it belongs to."""
        return self.name.partition("-")[0]

    def of_kind(self, kind: str) -> tuple[Thing, ...]:
        """Returns the objects of one kind, in reading order."""
        return tuple(thing for thing in self.things if thing.kind == kind)


def content_class(text: str) -> int:
    """One of eight classes."""
    return zlib.crc32(text.encode()) % 8


@functools.lru_cache(maxsize=1 << 16)
def make_scene(split: str, seed: int, number: int, written: bool = False, crowd: str = "few") -> Scene:
    """Makes the scene of a number; the same on every machine.

    Args:
        split: "mixture", "suites" or "basin".
        seed: Seed of the world.
        number: Which scene.
        written: Whether one object is a handwritten digit.
        crowd: How many objects there are, a key of `CROWDS`.

    Returns:
        A scene of the split. In "mixture" no unseen combination occurs; in "suites" every second scene has one.
    """
    name = f"{split}-{'' if crowd == 'few' else crowd + '-'}{'w' if written else 's'}{number:05d}"
    random = Random(f"{seed}/{name}")
    while True:
        things = _things(random, split, written, CROWDS[crowd])
        unseen = any((thing.color, thing.name) in UNSEEN for thing in things)
        wanted = not unseen if split == "mixture" else unseen or split == "basin" or number % 2 == 0
        if wanted and content_class(repr(things)) in CLASSES[split]:
            return Scene(name, things)


def _things(random: Random, split: str, written: bool, counts: tuple[int, ...]) -> tuple[Thing, ...]:
    cells = sorted(random.sample(range(9), random.choice(counts)))
    colors = random.sample(COLORS, 6 if counts == CROWDS["many"] else random.choice((2, 2, 3, 6)))
    things = [_thing(random, colors, cell) for cell in cells]
    if written:
        place = random.randrange(len(cells))
        things[place] = _written(random, split, cells[place])
    return tuple(things)


def _thing(random: Random, colors: list[str], cell: int) -> Thing:
    kind = random.choices(("shape", "letter", "digit"), (11, 5, 4))[0]
    if kind == "shape":
        return Thing(kind, random.choice(SHAPES), random.choice(colors), random.choice(SIZES), cell)
    return Thing(kind, random.choice(LETTERS if kind == "letter" else DIGITS), random.choice(colors), None, cell)


def _written(random: Random, split: str, cell: int) -> Thing:
    digits = written_digits()
    assert digits is not None
    picture = random.choice([i for i in range(len(digits[1])) if i % 8 in CLASSES[split]])
    return Thing("written", digits[1][picture], None, None, cell, picture)
