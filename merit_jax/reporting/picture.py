"""Figures as PNG files, by matplotlib (`pip install 'merit-jax[figures]'`), from the same descriptions as those of the page."""

import math
from typing import Any

import numpy as np
from etils import epath

from merit_jax.reporting.cells import paint
from merit_jax.reporting.figures import (
    Axis,
    Band,
    Bars,
    Chart,
    Colour,
    Contour,
    Figure,
    Line,
    Matrix,
    Number,
    Points,
    Rule,
    Span,
)
from merit_jax.reporting.scales import extents, number, ticks
from merit_jax.reporting.svg import WIDTH, labels, shortened

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B67C00", "#56B4E9", "#7F3C8D", "#666666")
"""As `--c0` to `--c7` of chart.css."""

MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "star": "*"}


def save_png(figure: Figure, path: epath.Path) -> None:
    """Writes a figure, whole or not at all."""
    from matplotlib.figure import Figure as Canvas

    height = figure.height if isinstance(figure, Chart) else WIDTH
    canvas = Canvas(figsize=(WIDTH / 70, (height + 30) / 70), layout="constrained")
    axes = canvas.add_subplot()
    axes.set_title(_plain(figure.title), fontsize=10)
    if isinstance(figure, Matrix):
        _matrix(axes, figure)
    else:
        _chart(axes, figure)
    with path.open("wb") as file:
        canvas.savefig(file, format="png", dpi=150)


def colour_of(colour: Colour) -> str:
    """A colour of the light theme."""
    return PALETTE[colour] if isinstance(colour, int) else {"ink": "#1b1f24", "muted": "#8a929c"}[colour]


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def _chart(axes: Any, chart: Chart) -> None:
    for mark in chart.marks:
        _mark(axes, mark)
    (left, right), (low, high) = extents(chart)
    axes.set_xlim(left, right)
    axes.set_ylim(*((high, low) if chart.y.names else (low, high)))
    for axis, drawn, ends in ((chart.x, axes.xaxis, (left, right)), (chart.y, axes.yaxis, (low, high))):
        _ticks(axes, axis, drawn, *ends)
    axes.grid(color="#e6e8eb", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.figure.legend(loc="outside lower center", fontsize=7, frameon=False, ncols=3)


def _ticks(axes: Any, axis: Axis, drawn: Any, low: Number, high: Number) -> None:
    drawn.set_label_text(_plain(axis.label), fontsize=8)
    if axis.log:
        getattr(axes, f"set_{drawn.axis_name}scale")("log")
    places, texts = zip(*labels(axis, low, high), strict=True) if axis.names else _numbers(axis, low, high)
    drawn.set_ticks(list(places), [_plain(text) for text in texts], fontsize=7)
    drawn.set_ticks([], minor=True)


def _numbers(axis: Axis, low: Number, high: Number) -> tuple[list[Number], list[str]]:
    places = ticks(low, high, log=axis.log)
    return places, [number(place) for place in places]


def _mark(axes: Any, mark: Any) -> None:
    match mark:
        case Points():
            _points(axes, mark)
        case Line():
            style = {"ls": "--" if mark.dashed else "-", "marker": "o" if mark.tips else None, "ms": 3}
            axes.plot(mark.x, mark.y, color=colour_of(mark.colour), lw=1.4, label=_label(mark.label), **style)
        case Band():
            axes.fill_between(mark.x, mark.low, mark.high, color=colour_of(mark.colour), alpha=0.18, lw=0)
        case Bars():
            bars = axes.barh(range(len(mark.values)), mark.values, 0.62, color=[colour_of(c) for c in mark.colours])
            axes.bar_label(bars, [_plain(tip) for tip in mark.tips], fontsize=6, padding=3)
        case Span():
            axes.axvspan(mark.low, mark.high, color="#f0f1f3", zorder=0)
        case Rule(at, "x"):
            axes.axvline(at, color="#b5bac1", lw=0.8)
        case Rule(at):
            axes.axhline(at, color="#b5bac1", lw=0.8)
        case Contour():
            from matplotlib.collections import LineCollection

            pieces = LineCollection(mark.segments.reshape(-1, 2, 2), colors=colour_of(mark.colour), lw=0.9)
            pieces.set_alpha(mark.strength)
            axes.add_collection(pieces)


def _points(axes: Any, mark: Points) -> None:
    colour = colour_of(mark.colour)
    area = (mark.size * 1.9) ** 2 * (1.6 if mark.shape == "star" else 1) / math.pi
    if mark.error:
        axes.errorbar(mark.x, mark.y, xerr=mark.error, fmt="none", ecolor=colour, lw=1.4)
    style = {"marker": MARKERS[mark.shape], "label": _label(mark.label), "zorder": 3}
    axes.scatter(mark.x, mark.y, s=area, c=colour, **style)
    for x, y, tip in zip(mark.x, mark.y, mark.tips if mark.named else (), strict=False):
        axes.annotate(_plain(tip), (x, y), (5, 3), textcoords="offset points", fontsize=7)


def _label(text: str) -> str:
    return _plain(shortened(text, 40)) if text else "_none"


def _matrix(axes: Any, matrix: Matrix) -> None:
    size = len(matrix.names)
    axes.imshow(paint(matrix.values), extent=(0, size, size, 0), interpolation="nearest")
    groups = sorted(set(matrix.groups))
    starts = np.array([matrix.groups.index(group) for group in groups])
    for start in starts[1:]:
        axes.axhline(start, color="#444", lw=0.6)
        axes.axvline(start, color="#444", lw=0.6)
    if groups:
        middles = (starts + np.append(starts[1:], size)) / 2
        axes.set_xticks(middles, [f"branch {group}" for group in groups], fontsize=7)
        axes.set_yticks(middles, [f"{group}" for group in groups], fontsize=7)
