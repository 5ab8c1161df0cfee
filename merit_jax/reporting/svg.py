"""Charts as SVG: text without any library, coloured by the classes of `chart.css`, so that it follows the page's theme.

Every mark that stands for something is an element of class `mark` with a `<title>`: browsers show it on hovering, screen
readers read it, and the page's script turns it into tooltips that the keyboard reaches too.
"""

from collections.abc import Iterator
from functools import partial
from html import escape
from importlib import resources
from typing import NamedTuple

from merit_jax.reporting.cells import limit_of, shade
from merit_jax.reporting.figures import Axis, Chart, Colour, Line, Matrix, Number, Points
from merit_jax.reporting.scales import Scale, extents, number, ticks
from merit_jax.reporting.svg_marks import draw_mark, glyph

WIDTH = 440
"""Units across a figure; on a page of 390 pixels its text is still legible."""

CHARACTER = 5.9
"""Mean width of a character of tick labels, in units."""

LEGEND_LINE = 17


class Frame(NamedTuple):
    """Where the plot lies within the figure.

    Attributes:
        x: Values to units, left to right.
        y: Values to units, upwards; categories downwards.
        top: Height of what stands above the plot.
    """

    x: Scale
    y: Scale
    top: Number


def draw(chart: Chart) -> str:
    """The figure as an `<svg>` element that takes its colours from the page."""
    return f"{_open(chart.title, chart.height)}{''.join(_parts(chart))}</svg>"


def standalone(svg: str, title: str) -> str:
    """A drawn figure as a file of its own: with the style, on white, its title above it."""
    head, body = svg.split(">", 1)
    width, height = (int(part) for part in head.split('viewBox="0 0 ')[1].split('"')[0].split())
    style = resources.files("merit_jax.reporting").joinpath("chart.css").read_text()
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 -30 {width} {height + 30}" width="{2 * width}"'
    backdrop = f'<rect class="backdrop" y="-30" width="{width}" height="{height + 30}"/>'
    heading = f'<text class="heading" x="8" y="-11">{escape(title)}</text>'
    return f"{head}><style>{style}</style>{backdrop}{heading}{body}\n"


def _open(title: str, height: int) -> str:
    return f'<svg class="figure" viewBox="0 0 {WIDTH} {height}" role="group" tabindex="0" aria-label="{escape(title)}">'


def _parts(chart: Chart) -> Iterator[str]:
    frame = _frame(chart)
    yield from _legend(chart)
    yield from _axes(chart, frame)
    for mark in chart.marks:
        yield draw_mark(mark, frame.x, frame.y)


def _frame(chart: Chart) -> Frame:
    """Room for tick labels and the legend is left first."""
    (left, right), (low, high) = extents(chart)
    top = 10 + LEGEND_LINE * len(legend_lines(chart))
    widest = max((len(text) for _, text in labels(chart.y, low, high)), default=1)
    start, bottom = 14 + CHARACTER * widest + (16 if chart.y.label else 0), chart.height - 40
    y = Scale(low, high, top, bottom) if chart.y.names else Scale(low, high, bottom, top, chart.y.log)
    return Frame(Scale(left, right, start, WIDTH - 12, chart.x.log), y, top)


def labels(axis: Axis, low: Number, high: Number) -> list[tuple[Number, str]]:
    """(value, text) of each tick."""
    if axis.names:
        return [(place, shortened(name)) for place, name in enumerate(axis.names)]
    return [(value, number(value)) for value in ticks(low, high, log=axis.log)]


def shortened(name: str, most: int = 24) -> str:
    """A name that fits beside an axis: of a long one its beginning and its end."""
    return name if len(name) <= most else f"{name[: most - 10]}…{name[-9:]}"


def _axes(chart: Chart, frame: Frame) -> Iterator[str]:
    x, y = frame.x, frame.y
    bottom, middle = max(y.start, y.end), (x.start + x.end) / 2
    for value, text in labels(chart.x, x.low, x.high):
        yield f'<path class="grid" d="M{x(value):.1f} {frame.top}V{bottom}"/>'
        yield f'<text class="tick" x="{x(value):.1f}" y="{bottom + 15}" text-anchor="middle">{escape(text)}</text>'
    for value, text in labels(chart.y, y.low, y.high):
        yield f'<path class="grid" d="M{x.start:.1f} {y(value):.1f}H{x.end}"/>'
        place = f'x="{x.start - 6:.1f}" y="{y(value) + 3.5:.1f}"'
        yield f'<text class="tick" {place} text-anchor="end">{escape(text)}</text>'
    yield f'<text class="axis" x="{middle:.1f}" y="{bottom + 33}" text-anchor="middle">{escape(chart.x.label)}</text>'
    if chart.y.label:
        turn = f'transform="translate(12 {(bottom + frame.top) / 2:.1f}) rotate(-90)"'
        yield f'<text class="axis" {turn} text-anchor="middle">{escape(chart.y.label)}</text>'


class Entry(NamedTuple):
    """A line of the legend; `shape` is None for a line."""

    label: str
    colour: Colour
    shape: str | None


def legend_lines(chart: Chart) -> list[list[Entry]]:
    """The legend's entries, in lines that fit the width."""
    lines: list[list[Entry]] = []
    room = 0.0
    for mark in chart.marks:
        if not isinstance(mark, Points | Line) or not mark.label:
            continue
        entry = Entry(shortened(mark.label, 40), mark.colour, mark.shape if isinstance(mark, Points) else None)
        needed = _legend_width(entry)
        if needed > room:
            lines.append([])
            room = WIDTH - 20.0
        lines[-1].append(entry)
        room -= needed
    return lines


def _legend_width(entry: Entry) -> Number:
    return 28 + CHARACTER * len(entry.label)


def _legend(chart: Chart) -> Iterator[str]:
    for row, entries in enumerate(legend_lines(chart)):
        x, y = 16.0, 11 + LEGEND_LINE * row
        for entry in entries:
            if entry.shape is None:
                yield f'<path class="line c-{entry.colour}" d="M{x - 8:.1f} {y}h16"/>'
            else:
                yield f'<path class="dot c-{entry.colour}" d="{glyph(entry.shape, 4.5)}" transform="translate({x:.1f} {y})"/>'
            yield f'<text class="tick" x="{x + 12:.1f}" y="{y + 3.5}">{escape(entry.label)}</text>'
            x += _legend_width(entry)


MATRIX = 400
"""Units across a matrix."""


def draw_matrix(matrix: Matrix, image: str) -> str:
    """A heat map; `image` is its cells as a data URI, one pixel each.

    A strip along each side shows the groups, and lines part them. The page's script finds the cell under the pointer.
    """
    offset, size = 30, len(matrix.names)
    cell = MATRIX / size
    at = partial("{:.2f}".format)
    parts = [
        _open(matrix.title, offset + MATRIX + 28),
        f'<image class="cells mark" href="{image}" x="{offset}" y="{offset}" width="{MATRIX}" height="{MATRIX}" '
        f'preserveAspectRatio="none"><title>{escape(matrix.title)}</title></image>',
    ]
    for group in sorted(set(matrix.groups)):
        start, length = matrix.groups.index(group) * cell, matrix.groups.count(group) * cell
        paint, middle, end = f"strip c-{group % 8}", offset + start + length / 2, offset + start + length
        parts += [
            f'<rect class="{paint}" x="{offset - 7}" y="{at(offset + start)}" width="5" height="{at(length - 1)}"/>',
            f'<rect class="{paint}" y="{offset - 7}" x="{at(offset + start)}" height="5" width="{at(length - 1)}"/>',
            f'<text class="tick" x="{offset - 14}" y="{at(middle + 4)}" text-anchor="middle">{group}</text>',
            f'<text class="tick" x="{at(middle)}" y="{offset - 12}" text-anchor="middle">{group}</text>',
            f'<path class="parting" d="M{offset} {at(end)}h{MATRIX}M{at(end)} {offset}v{MATRIX}"/>',
        ]
    return "".join([*parts, *_key(limit_of(matrix.values)), '<rect class="cursor" width="0" height="0"/>', "</svg>"])


def _key(limit: Number, steps: int = 20) -> Iterator[str]:
    """What the colours mean: from -limit to limit, below the matrix."""
    width, left, top = 8, 30 + (MATRIX - 20 * 8) / 2, 30 + MATRIX + 10
    for step in range(steps):
        colour, opacity = shade((2 * step + 1) / steps - 1)
        box = f'x="{left + step * width}" y="{top}" width="{width}" height="9"'
        yield f'<rect {box} fill="{colour}" fill-opacity="{opacity:.2f}"/>'
    yield f'<text class="tick" x="{left - 6}" y="{top + 8}" text-anchor="end">≤ {number(-limit, 2)}</text>'
    yield f'<text class="tick" x="{left + steps * width + 6}" y="{top + 8}">≥ {number(limit, 2)}</text>'
