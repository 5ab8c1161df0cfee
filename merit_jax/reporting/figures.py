"""What a figure shows, apart from how it is drawn: `svg.py` draws it for the page, `picture.py` as a PNG."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

COLOURS = 8
"""Colours of groups and models; further ones begin again, with another shape."""

SHAPES = ("circle", "square", "triangle", "diamond")
"""Shapes of points, so that groups differ without colour."""

Colour = int | str
"""Place in the palette, or "ink", "muted"."""

Number = float | int

Values = Sequence[Number]


class Axis(NamedTuple):
    """One axis.

    Attributes:
        label: What it measures, with its unit.
        names: Categories at 0, 1, 2, ...; empty: numbers.
        low: Where it begins at the latest; None: at the smallest value.
        high: Where it ends at the earliest; None: at the largest value.
        log: Whether it is logarithmic.
    """

    label: str
    names: tuple[str, ...] = ()
    low: Number | None = None
    high: Number | None = None
    log: bool = False


class Points(NamedTuple):
    """Points, each with a text of its own.

    Attributes:
        x: Places.
        y: Places.
        tips: What hovering a point says.
        colour: Of all.
        label: In the legend; empty: not in it.
        shape: One of `SHAPES`, or "star".
        size: Radius in pixels.
        error: Half the length of a horizontal error bar of each; empty: none.
        named: Whether the tips stand beside their points.
    """

    x: Values
    y: Values
    tips: Sequence[str]
    colour: Colour = 0
    label: str = ""
    shape: str = "circle"
    size: Number = 4.5
    error: Values = ()
    named: bool = False


class Line(NamedTuple):
    """Points joined in their order.

    Attributes:
        x: Places.
        y: Places.
        tips: What hovering a vertex says; empty: vertices are not marked.
        colour: Of the line.
        label: In the legend; empty: not in it.
        dashed: Whether it is broken.
    """

    x: Values
    y: Values
    tips: Sequence[str] = ()
    colour: Colour = 0
    label: str = ""
    dashed: bool = False


class Band(NamedTuple):
    """The area between two lines, such as a confidence interval."""

    x: Values
    low: Values
    high: Values
    colour: Colour = 0


class Bars(NamedTuple):
    """Horizontal bars from zero, one for each category of the y axis.

    Attributes:
        values: Lengths.
        tips: What hovering a bar says; it also stands at its end.
        colours: Of each.
    """

    values: Values
    tips: Sequence[str]
    colours: Sequence[Colour]


class Span(NamedTuple):
    """A grey range of the x axis, with a word on what it is."""

    low: Number
    high: Number
    label: str


class Rule(NamedTuple):
    """A thin line across the figure, at one value of the "x" or "y" axis."""

    at: Number
    axis: str = "x"


class Contour(NamedTuple):
    """Lines of equal height.

    Attributes:
        segments: (x0, y0, x1, y1) of each short piece.
        colour: Of the line.
        strength: Opacity in 0..1.
    """

    segments: np.ndarray
    colour: Colour = "muted"
    strength: Number = 1.0


Mark = Points | Line | Band | Bars | Span | Rule | Contour


class Chart(NamedTuple):
    """A figure with two axes.

    Attributes:
        name: Of its files.
        title: What it shows, in a few words.
        x: Horizontal axis.
        y: Vertical axis; categories run downwards.
        marks: From back to front.
        note: How to read it.
        height: In pixels, at a width of `svg.WIDTH`.
        wide: Whether it takes the whole width of the page.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    note: str = ""
    height: int = 300
    wide: bool = False


class Matrix(NamedTuple):
    """A heat map of a square matrix whose rows are in groups.

    Attributes:
        name: Of its files.
        title: What it shows, in a few words.
        values: The matrix, in -1..1.
        names: Of its rows.
        groups: Of its rows, ascending; empty: none.
        note: How to read it.
    """

    name: str
    title: str
    values: np.ndarray
    names: tuple[str, ...]
    groups: tuple[int, ...] = ()
    note: str = ""


Figure = Chart | Matrix


def look(index: int) -> tuple[int, str]:
    """(colour, shape) of group or model `index`: no two of the first 32 are alike, and neighbours differ in both."""
    return index % COLOURS, SHAPES[(index + index // COLOURS) % len(SHAPES)]
