"""From values to places on paper: what an axis spans, where its ticks are, and how numbers are written."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from merit_jax.reporting.figures import Axis, Band, Bars, Chart, Contour, Line, Mark, Number, Points, Rule, Span

MARGIN = 0.06
"""Share of the values' range that is left free on each side."""


class Scale(NamedTuple):
    """A linear or logarithmic map from values to pixels.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Pixel.
        end: Pixel.
        log: Whether it is logarithmic.
    """

    low: Number
    high: Number
    start: Number
    end: Number
    log: bool = False

    def __call__(self, value: Number) -> Number:
        """The pixel of a value."""
        low, high, value = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (*self[:2], value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def span(axis: Axis, values: Iterable[Number]) -> tuple[Number, Number]:
    """(low, high) of an axis that shows all finite values, with some room around them; of a log axis, all positive ones."""
    if axis.names:
        return -0.5, len(axis.names) - 0.5
    shown = [v for v in values if math.isfinite(v) and (v > 0 or not axis.log)]
    low, high = (min(shown), max(shown)) if shown else (1.0, 10.0) if axis.log else (0.0, 1.0)
    if axis.log:
        room = (high / low) ** MARGIN if high > low else 2.0
        return low / room, high * room
    room = (high - low) * MARGIN or abs(high) * MARGIN or 1.0
    return (
        min(axis.low, low) if axis.low is not None else low - room,
        max(axis.high, high) if axis.high is not None else high + room,
    )


def ticks(low: Number, high: Number, *, log: bool = False, most: int = 6) -> list[Number]:
    """Round numbers within a range: steps of 1, 2 or 5 times a power of ten; of a log range, the powers."""
    if log:
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        if len(powers) >= 2:
            return [10.0**power for power in powers][:: math.ceil(len(powers) / most)]
    step = next(s for s in _steps((high - low) / most) if (high - low) / s <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _steps(least: Number) -> Iterator[Number]:
    power = math.floor(math.log10(least))
    while True:
        yield from (factor * 10.0**power for factor in (1, 2, 5))
        power += 1


def number(value: Number, digits: int = 3) -> str:
    """A number in a few significant digits, whole ones with commas."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 10**digits:
        places = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
        text = f"{value:.{max(places, 0)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:,.0f}" if 10**digits <= abs(value) < 1e7 else f"{value:.{digits - 1}g}"


def extents(chart: Chart) -> tuple[tuple[Number, Number], tuple[Number, Number]]:
    """What both axes span: ((low, high) of x, of y)."""
    found = [_values(mark) for mark in chart.marks]
    return (
        span(chart.x, (value for xs, _ in found for value in xs)),
        span(chart.y, (value for _, ys in found for value in ys)),
    )


def _values(mark: Mark) -> tuple[list[Number], list[Number]]:
    """The x and y values that a mark needs room for."""
    match mark:
        case Points(x=x, y=y, error=error):
            sides = [value + sign * e for value, e in zip(x, error, strict=False) for sign in (-1, 1)]
            return [*x, *sides], [*y]
        case Line(x=x, y=y):
            return [*x], [*y]
        case Band(x=x, low=low, high=high):
            return [*x], [*low, *high]
        case Bars(values=values):
            return [0.0, *values], []
        case Contour(segments=segments):
            return segments[:, [0, 2]].ravel().tolist(), segments[:, [1, 3]].ravel().tolist()
        case Rule(at=at, axis=axis):
            return ([at], []) if axis == "x" else ([], [at])
        case Span(low=low, high=high):
            return [low, high], []
