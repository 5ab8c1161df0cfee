"""Points and lines over two numeric axes, and lines of equal height."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.reporting.figures import WIDTH, Axis, Number, Values, distinct, scale, shortened, sized, tip
from merit_jax.reporting.theme import LIGHT, SHAPES, Colour, hex_of

with contextlib.suppress(ModuleNotFoundError):  # without the `figures` extra, the report consists of words and tables
    import altair as alt

CHARACTER = 5.9
"""Mean width of a character in a legend, in pixels, in the widest of the usual fonts."""

MOST_VERTICES = 60
"""Points of a line that are marked, each with a tip of its own; a longer line has one tip."""


class Series(NamedTuple):
    """Points that belong together: of one colour and one entry in the legend, which switches them.

    Attributes:
        label: In the legend.
        x: Places; what is not finite is left out, and breaks a line.
        y: Places.
        tips: Text of each point, shown on hovering; empty: its place.
        colour: Of all.
        shape: One of `SHAPES`.
        size: Radius in pixels of all points, or of each; 0: they are not marked.
        line: Points are joined in their order.
        dashed: The line is broken.
        band: (low, high) of an area about the line, such as a confidence interval; empty: none.
        listed: It has an entry in the legend.
        named: Tips are written next to their points.
    """

    label: str
    x: Values
    y: Values
    tips: Sequence[str] = ()
    colour: Colour = 0
    shape: str = "circle"
    size: Number | Values = 4.5
    line: bool = False
    dashed: bool = False
    band: tuple[Values, ...] = ()
    listed: bool = True
    named: bool = False


class Curve(NamedTuple):
    """A thin grey line behind the points.

    Attributes:
        points: Along it, f64[n, 2].
        strength: Opacity in 0..1.
    """

    points: Float[np.ndarray, "n 2"]
    strength: Number = 1.0


class Span(NamedTuple):
    """A grey range of the x axis, with a few words about it."""

    low: Number
    high: Number
    label: str = ""


def plot(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    curves: Sequence[Curve] = (),
    span: Span | None = None,
    zero: bool = False,
    height: int = 300,
    width: int = WIDTH,
) -> alt.LayerChart:
    """Returns points and lines over two numeric axes.

    Args:
        series: From back to front.
        x: Horizontal axis.
        y: Vertical axis.
        curves: Thin lines behind them.
        span: A grey range behind all.
        zero: Both axes' zeros have a line.
        height: In pixels, axes included.
        width: In pixels, axes included.
    """
    series = [one._replace(x=_on(x, one.x), y=_on(y, one.y)) for one in series]
    extra = [(0.0,)] if zero else []
    xs = [*(one.x for one in series), *(curve.points[:, 0] for curve in curves), *extra]
    xs += [(span.low, span.high)] if span else []
    ys = [*(one.y for one in series), *(curve.points[:, 1] for curve in curves), *extra]
    ys += [end for one in series for end in one.band]
    across = alt.X("x:Q", title=x.label, scale=scale(x, *xs))
    up = alt.Y("y:Q", title=y.label, scale=scale(y, *ys))
    return sized([*_behind(curves, span, zero, across, up), *_layers(series, across, up)], width, height)


def _on(axis: Axis, values: Values) -> Values:
    """The values that have a place on an axis, NaN for others."""
    return [value if value > 0 else math.nan for value in values] if axis.log else values


def _layers(series: Sequence[Series], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Bands, lines, points and names, as far as there are any; a click on the legend fades the others."""
    labels = distinct([shortened(one.label, 40) for one in series])
    rows = [_row(one, label) for one, label in zip(series, labels, strict=True)]
    legend = _legend([label for label, one in zip(labels, series, strict=True) if one.listed])
    pick = alt.selection_point("pick", fields=["series"], bind="legend", toggle="true")

    def by_series(kind: Any, values: Iterable[Any]) -> Any:
        return kind("series:N", scale=alt.Scale(domain=labels, range=list(values)), legend=legend, sort=None)

    base = alt.Chart(alt.Data(values=rows)).encode(x, y, by_series(alt.Color, (hex_of(one.colour) for one in series)))

    def layer(kind: str, *fields: str, strength: Number = 1) -> alt.Chart:
        full, faded = alt.value(strength), alt.value(0.12 * strength)
        opacity = alt.when(pick).then(full).otherwise(faded) if legend else full
        return base.transform_filter(f"datum.{kind}").transform_flatten([*fields, "x", "y"]).encode(opacity=opacity)

    dashes = by_series(alt.StrokeDash, ([5, 4] if one.dashed else [1, 0] for one in series))
    shapes = by_series(alt.Shape, (SHAPES[_symbol(one)] for one in series))
    points = layer("marked", "tip", "size").mark_point(filled=True, stroke=LIGHT["paper"], strokeWidth=0.9)
    names = layer("named", "tip").mark_text(aria=False, dy=-11, fontSize=10)
    layers = {
        "banded": layer("banded", "low", "high", strength=0.16).mark_area(aria=False).encode(y="low:Q", y2="high:Q"),
        "line": layer("line").mark_line(strokeWidth=1.8, order=False).encode(dashes, *tip("series")),
        "marked": points.encode(shapes, alt.Size("size:Q", scale=None), *tip("tip")),
        "named": names.encode(color=alt.value(LIGHT["text"]), text="tip:N"),
    }
    layers["marked"] = layers["marked"].add_params(*([pick] if legend else []))
    return [chart for kind, chart in layers.items() if kind == "marked" or any(row[kind] for row in rows)]


def _symbol(one: Series) -> str:
    """The shape of a series' points and of its entry in the legend."""
    return one.shape if _marked(one) else "dashes" if one.dashed else "line"


def _marked(one: Series) -> bool:
    return bool(one.size) and (not one.line or len(one.x) <= MOST_VERTICES)


def _row(one: Series, label: str) -> dict[str, Any]:
    """A series as one row of data that Vega unfolds, which takes a third of the space of a row for each point."""
    sizes = one.size if isinstance(one.size, Sequence) else [one.size] * len(one.x)
    marked = _marked(one)
    places = [f"{label}\n{a:.4g}, {b:.4g}" for a, b in zip(one.x, one.y, strict=True)]
    return {
        "series": label,
        "x": _finite(one.x),
        "y": _finite(one.y),
        **{name: _finite(values) for name, values in zip(("low", "high"), one.band, strict=False)},
        **({"tip": list(one.tips) or places, "size": [round(math.pi * r**2, 1) for r in sizes]} if marked else {}),
        "banded": bool(one.band),
        "line": one.line,
        "marked": marked,
        "named": one.named,
    }


def _finite(values: Iterable[Number]) -> list[Number | None]:
    return [value if math.isfinite(value) else None for value in map(float, values)]


def _legend(labels: Sequence[str]) -> Any:
    """In as many columns as fit the width."""
    if not labels:
        return None

    def width(columns: int) -> Number:
        return sum(28 + CHARACTER * max(map(len, labels[column::columns])) for column in range(columns))

    columns = next(columns for columns in range(len(labels), 0, -1) if columns == 1 or width(columns) < WIDTH - 55)
    return alt.Legend(title=None, values=list(labels), columns=columns, symbolOpacity=1)


def _behind(curves: Sequence[Curve], span: Span | None, zero: bool, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Layers of what stands behind the series."""
    layers = []
    if zero:
        rule = alt.Chart(alt.Data(values=[{"x": 0, "y": 0}])).mark_rule(aria=False, color=LIGHT["muted"], opacity=0.7)
        layers += [rule.encode(x), rule.encode(y)]
    if span:
        grey = alt.Chart(alt.Data(values=[span._asdict()]))
        words = grey.mark_text(aria=False, align="right", dx=-5, dy=-8, fontSize=10, color=LIGHT["text"])
        layers += [
            grey.mark_rect(aria=False, color=LIGHT["soft"]).encode(x="low:Q", x2="high:Q"),
            words.encode(x="high:Q", y=alt.value("height"), text="label:N"),
        ]
    if curves:
        columns = ((curve, *curve.points.T.tolist()) for curve in curves)
        rows = [{"x": a, "y": b, "curve": i, "strength": c.strength} for i, (c, a, b) in enumerate(columns)]
        line = alt.Chart(alt.Data(values=rows)).mark_line(
            aria=False, strokeWidth=1.1, order=False, color=LIGHT["muted"]
        )
        strength = alt.Opacity("strength:Q", scale=None)
        layers.append(line.encode(x, y, strength, detail="curve:N").transform_flatten(["x", "y"]))
    return layers


def contours(
    x: Float[Array, " w"],
    y: Float[Array, " h"],
    z: Float[Array, "h w"],
    shares: Sequence[Number],
    strengths: Sequence[Number],
) -> list[Curve]:
    """Returns lines of equal height, where z is interpolated linearly.

    Args:
        x: Columns, ascending.
        y: Rows, ascending.
        z: Height at (y, x); lines end where it is NaN.
        shares: Heights of the lines, as shares of the way from the lowest to the highest.
        strengths: Opacity of the lines of each height.
    """
    from contourpy import contour_generator

    low, high = float(np.nanmin(z)), float(np.nanmax(z))
    levels = [low + share * (high - low) for share in shares]
    found = contour_generator(x, y, np.ma.masked_invalid(z), corner_mask=False).multi_lines(levels)
    lines = cast("list[list[np.ndarray]]", found)  # of the line type that is the default
    return [Curve(piece, strength) for pieces, strength in zip(lines, strengths, strict=True) for piece in pieces]
