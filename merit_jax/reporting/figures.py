"""Figures as Vega-Altair charts, each described once: interactive on the page, and SVG and PNG files without a browser."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from merit_jax.core.text import visible
from merit_jax.reporting.theme import STYLE

with contextlib.suppress(ModuleNotFoundError):  # without the `figures` extra, the report consists of words and tables
    import altair as alt

log = logging.getLogger("merit_jax")

Number = float | int
Values = Sequence[Number]

WIDTH = 440
"""Pixels across a figure; on a page of 390 pixels its text is still legible."""

MATRIX = "matrix"
"""Name of a chart whose marks are the cells of a square matrix."""

MARGIN = 0.06
"""Share of the values' range that is left free on each side."""

MOST_VERTICES = 60
"""Points of a line that are marked, each with a tip of its own; a longer line has one tip."""


class Figure(NamedTuple):
    """A figure of the report.

    Attributes:
        name: Of its files.
        title: Its subject, in a few words.
        chart: Makes the Altair chart; called where it is drawn, so that the rest of the report needs no Altair.
        note: How to read it.
        wide: It takes the whole width of the page.
    """

    name: str
    title: str
    chart: Callable[[], Any]
    note: str = ""
    wide: bool = False


class Axis(NamedTuple):
    """A numeric axis.

    Attributes:
        label: The quantity, with its unit.
        low: The axis begins here at the latest; None: near the smallest value.
        high: The axis ends here at the earliest; None: near the largest value.
        log: It is logarithmic; values that are not positive are left out.
    """

    label: str
    low: Number | None = None
    high: Number | None = None
    log: bool = False


def tip(field: str) -> Any:
    """Returns the channels of a mark's text: what hovering shows, and what a screen reader says."""
    return alt.Tooltip(f"{field}:N"), alt.Description(f"{field}:N")


def scale(axis: Axis, *values: Iterable[Number]) -> alt.Scale:
    """Returns a scale that shows all values, with some room around them, and what the axis wants shown."""
    finite = [value for some in values for value in map(float, some) if math.isfinite(value)]
    if axis.log:
        positive = [value for value in finite if value > 0] or [1.0, 10.0]
        room = (max(positive) / min(positive)) ** MARGIN if len(set(positive)) > 1 else 2.0
        return alt.Scale(type="log", domain=[min(positive) / room, max(positive) * room], nice=False)
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = (high - low) * MARGIN or abs(high) * MARGIN or 1.0
    start = low - room if axis.low is None else min(axis.low, low)
    end = high + room if axis.high is None else max(axis.high, high)
    return alt.Scale(domain=[start, end], nice=False, zero=False)


def sized(layers: Sequence[Any], width: int, height: int) -> alt.LayerChart:
    """Returns layers as one chart, in pixels, which include its axes where it stands alone."""
    return alt.LayerChart(layer=list(layers), width=width, height=height)


def shortened(name: str, most: int = 24) -> str:
    """Returns a name that fits next to an axis: of a long one its beginning and its end."""
    return name if len(name) <= most else f"{name[: most - 10]}…{name[-9:]}"


def distinct(labels: Sequence[str]) -> list[str]:
    """Returns labels that differ for Vega also where they are equal for a reader, by spaces of no width."""
    return [label + "\u200b" * labels[:place].count(label) for place, label in enumerate(labels)]


def can_draw() -> bool:
    """Returns whether figures can be drawn, and logs what to install where they cannot."""
    if all(find_spec(name) for name in ("altair", "contourpy", "vl_convert")):
        return True
    log.info("figures are left out: pip install 'merit-jax[figures]' for them")
    return False


def specification(chart: Any, title: str = "") -> dict[str, Any]:
    """Returns a chart in Vega-Lite's own terms, in the style that every picture has.

    The size of a chart that stands alone includes its axes and its legend; that of a matrix is its cells'.
    """
    spec = chart.properties(**({"title": title} if title else {})).configure(**STYLE).to_dict()
    alone = "layer" in spec and spec.get("name") != MATRIX
    return _visible(spec | ({"autosize": {"type": "fit", "contains": "padding"}} if alone else {}))


def _visible(part: Any) -> Any:
    """A part of a specification, with the control characters of names written out: an SVG file cannot hold them."""
    if isinstance(part, dict):
        return {key: _visible(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_visible(value) for value in part]
    return visible(part, keep="\n") if isinstance(part, str) else part


def svg(chart: Any, title: str = "") -> str:
    """Returns a chart as an SVG file."""
    import vl_convert

    return vl_convert.vegalite_to_svg(specification(chart, title))


def png(drawing: str) -> bytes:
    """Returns an SVG file as a PNG file, of two pixels for each of the drawing's."""
    import vl_convert

    return vl_convert.svg_to_png(drawing, scale=2)
