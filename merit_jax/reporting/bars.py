"""Numbers by name: bars from zero, and points with error bars."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from merit_jax.reporting.figures import WIDTH, Axis, Number, distinct, scale, shortened, sized, tip
from merit_jax.reporting.theme import LIGHT, SHAPES, Colour, hex_of

with contextlib.suppress(ModuleNotFoundError):  # without the `figures` extra, the report consists of words and tables
    import altair as alt


class Entry(NamedTuple):
    """A row of a figure whose vertical axis has names.

    Attributes:
        name: Of the row.
        value: Its number.
        text: The number as it is written.
        colour: Of its bar or point.
        shape: Of its point.
        error: Half the length of its error bar.
    """

    name: str
    value: Number
    text: str
    colour: Colour = 0
    shape: str = "circle"
    error: Number = 0.0


def bars(entries: Sequence[Entry], label: str, *, height: int) -> alt.LayerChart:
    """Returns horizontal bars from zero, the first on top, each with its number at the end."""
    base, y = _by_name(entries)
    most = max([0.0, *(one.value for one in entries if math.isfinite(one.value))])
    x = alt.X("value:Q", title=label, scale=scale(Axis("", low=0), [0.0, 1.12 * most], [one.value for one in entries]))
    text = base.mark_text(aria=False, align="left", dx=5, fontSize=10, color=LIGHT["text"]).encode(
        x="end:Q", y=y, text="text:N"
    )
    bar = base.mark_bar(height={"band": 0.62}).encode(x, y, _by_entry(alt.Color, entries, "colour"), *tip("tip"))
    return sized([bar, text], WIDTH, height)


def dots(entries: Sequence[Entry], label: str, *, height: int) -> alt.LayerChart:
    """Returns a point with an error bar for each entry, the first on top."""
    base, y = _by_name(entries)
    ends = [(one.value - one.error, one.value + one.error) for one in entries]
    colour, shape = _by_entry(alt.Color, entries, "colour"), _by_entry(alt.Shape, entries, "shape")
    x = alt.X("value:Q", title=label, scale=scale(Axis(""), *ends))
    error = base.mark_rule(aria=False, strokeWidth=2, opacity=0.55).encode(y, colour, x="low:Q", x2="high:Q")
    point = base.mark_point(filled=True, size=95, opacity=1, stroke=LIGHT["paper"], strokeWidth=0.9)
    return sized([error, point.encode(x, y, colour, shape, *tip("tip"))], WIDTH, height)


def _by_name(entries: Sequence[Entry]) -> tuple[alt.Chart, alt.Y]:
    """(chart of the entries, its axis of names)."""
    names = distinct([shortened(one.name) for one in entries])
    rows = [
        {"name": name, "tip": f"{one.name}: {one.text}", "text": one.text, "value": value, "end": max(value, 0.0)}
        | {"low": value - one.error, "high": value + one.error}
        for name, one in zip(names, entries, strict=True)
        if math.isfinite(value := float(one.value))
    ]
    return alt.Chart(alt.Data(values=rows)), alt.Y(
        "name:N", title=None, sort=None, axis=alt.Axis(grid=True), scale=alt.Scale(domain=names)
    )


def _by_entry(kind: Any, entries: Sequence[Entry], field: str) -> Any:
    names = distinct([shortened(one.name) for one in entries])
    values = [hex_of(one.colour) if field == "colour" else SHAPES[one.shape] for one in entries]
    return kind("name:N", sort=None, legend=None, scale=alt.Scale(domain=names, range=values))
