"""The marks of a chart as SVG elements."""

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from merit_jax.reporting.figures import Band, Bars, Contour, Line, Mark, Number, Points, Rule, Span
from merit_jax.reporting.scales import Scale


def draw_mark(mark: Mark, x: Scale, y: Scale) -> str:
    """One mark."""
    match mark:
        case Points():
            return _points(mark, x, y)
        case Line():
            return _line(mark, x, y)
        case Band():
            edge = [*zip(mark.x, mark.high, strict=True), *zip(mark.x[::-1], mark.low[::-1], strict=True)]
            return f'<path class="band c-{mark.colour}" d="{_path(edge, x, y)}Z"/>'
        case Bars():
            return _bars(mark, x, y)
        case Span():
            return _span(mark, x, y)
        case Rule(at, "x"):
            return f'<path class="rule" d="M{x(at):.1f} {y.start:.1f}V{y.end:.1f}"/>'
        case Rule(at):
            return f'<path class="rule" d="M{x.start:.1f} {y(at):.1f}H{x.end:.1f}"/>'
        case Contour():
            d = "".join(f"M{x(a):.1f} {y(b):.1f}L{x(c):.1f} {y(d):.1f}" for a, b, c, d in mark.segments)
            return f'<path class="contour c-{mark.colour}" stroke-opacity="{mark.strength:.2f}" d="{d}"/>'


def glyph(shape: str, r: Number) -> str:
    """The outline of a shape about the origin, of an area like that of a circle of radius r."""
    if shape == "circle":
        return f"M{-r} 0a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    corners = {
        "square": [(-0.87, -0.87), (0.87, -0.87), (0.87, 0.87), (-0.87, 0.87)],
        "triangle": [(0, -1.3), (1.16, 0.8), (-1.16, 0.8)],
        "diamond": [(0, -1.3), (1.2, 0), (0, 1.3), (-1.2, 0)],
        "star": [_polar(1.75 if i % 2 == 0 else 0.75, math.pi * (i / 5 - 0.5)) for i in range(10)],
    }[shape]
    return "M" + "L".join(f"{r * a:.2f} {r * b:.2f}" for a, b in corners) + "Z"


def _polar(length: Number, angle: Number) -> tuple[Number, Number]:
    return length * math.cos(angle), length * math.sin(angle)


def _points(mark: Points, x: Scale, y: Scale) -> str:
    outline, parts = glyph(mark.shape, mark.size), []
    for place, length in enumerate(mark.error):
        ends = f"M{x(mark.x[place] - length):.1f} {y(mark.y[place]):.1f}H{x(mark.x[place] + length):.1f}"
        parts.append(f'<path class="error c-{mark.colour}" d="{ends}"/>')
    for a, b, tip in zip(mark.x, mark.y, mark.tips, strict=True):
        place, title = f"translate({x(a):.1f} {y(b):.1f})", f"<title>{escape(tip)}</title>"
        parts.append(f'<path class="dot mark c-{mark.colour}" d="{outline}" transform="{place}">{title}</path>')
        if mark.named:
            text = f'<text class="name" x="{x(a):.1f}" y="{y(b) - mark.size - 5:.1f}" text-anchor="middle">'
            parts.append(f"{text}{escape(tip)}</text>")
    return "".join(parts)


def _line(mark: Line, x: Scale, y: Scale) -> str:
    dash = " dashed" if mark.dashed else ""
    runs = _finite(mark, x, y)
    parts = [f'<path class="line c-{mark.colour}{dash}" d="{"".join(_path(run, x, y) for run in runs)}"/>']
    for a, b, tip in zip(mark.x, mark.y, mark.tips, strict=False):
        if math.isfinite(a) and math.isfinite(b):
            title = f"<title>{escape(tip)}</title>"
            parts.append(
                f'<circle class="vertex mark c-{mark.colour}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3">{title}</circle>'
            )
    return "".join(parts)


def _finite(mark: Line, x: Scale, y: Scale) -> list[list[tuple[Number, Number]]]:
    """The pieces of a line between values that cannot be drawn."""
    points = list(zip(mark.x, mark.y, strict=True))
    bad = [i for i, (a, b) in enumerate(points) if not _drawable(a, x) or not _drawable(b, y)]
    return [points[i + 1 : j] for i, j in pairwise([-1, *bad, len(points)]) if j > i + 1]


def _drawable(value: Number, scale: Scale) -> bool:
    return math.isfinite(value) and (value > 0 or not scale.log)


def _path(points: Sequence[tuple[Number, Number]], x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)


def _bars(mark: Bars, x: Scale, y: Scale) -> str:
    thick = 0.62 * abs(y(1) - y(0))
    zero, parts = x(0), []
    for place, (value, tip, colour) in enumerate(zip(mark.values, mark.tips, mark.colours, strict=True)):
        if not math.isfinite(value):
            continue
        start, length = min(zero, x(value)), abs(x(value) - zero)
        box = f'x="{start:.1f}" y="{y(place) - thick / 2:.1f}" width="{max(length, 0.5):.1f}" height="{thick:.1f}"'
        parts.append(f'<rect class="bar mark c-{colour}" {box}><title>{escape(tip)}</title></rect>')
        inside = start + length > 0.6 * (x.end - x.start) + x.start
        anchor, shift = ("end", -5) if inside else ("start", 5)
        kind = "on-bar" if inside else "name"
        text = f'<text class="{kind}" x="{start + length + shift:.1f}" y="{y(place) + 4:.1f}" text-anchor="{anchor}">'
        parts.append(f"{text}{escape(tip)}</text>")
    return "".join(parts)


def _span(mark: Span, x: Scale, y: Scale) -> str:
    left, right = (min(max(x(value), x.start), x.end) for value in (mark.low, mark.high))
    top, bottom = sorted((y.start, y.end))
    box = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
    words = f'<text class="note" x="{right - 5:.1f}" y="{bottom - 7:.1f}" text-anchor="end">{escape(mark.label)}</text>'
    return f'<rect class="span" {box}/>{words}'
