"""Numbers by name: bars from zero, and points with error bars."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
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
    values = [float(one.value) for one in entries]
    room = 1.12 * max((value for value in values if math.isfinite(value)), default=0.0)
    x = alt.X("value:Q", title=label, scale=scale(Axis("", low=0), [0.0, room], values))
    base = _rows(entries, grid=False)
    bar = base.mark_bar(height={"band": 0.62}).encode(
        x, _by_name(alt.Color, entries, map(_colour, entries)), *tip("tip")
    )
    text = base.mark_text(aria=False, align="left", dx=5, fontSize=10, color=LIGHT["text"])
    return sized([bar, text.encode(x="end:Q", text="text:N")], WIDTH, height)


def dots(entries: Sequence[Entry], label: str, *, height: int) -> alt.LayerChart:
    """Returns a point with an error bar for each entry, the first on top."""
    x = alt.X("value:Q", title=label, scale=scale(Axis(""), *map(_interval, entries)))
    base = _rows(entries, grid=True).encode(_by_name(alt.Color, entries, map(_colour, entries)))
    error = base.mark_rule(aria=False, strokeWidth=2, opacity=0.55).encode(x="low:Q", x2="high:Q")
    point = base.mark_point(filled=True, size=95, opacity=1, stroke=LIGHT["paper"], strokeWidth=0.9)
    shapes = _by_name(alt.Shape, entries, (SHAPES[one.shape] for one in entries))
    return sized([error, point.encode(x, shapes, *tip("tip"))], WIDTH, height)


def _colour(one: Entry) -> str:
    return hex_of(one.colour)


def _interval(one: Entry) -> tuple[Number, Number]:
    return one.value - one.error, one.value + one.error


def _names(entries: Sequence[Entry]) -> list[str]:
    return distinct([shortened(one.name) for one in entries])


def _rows(entries: Sequence[Entry], *, grid: bool) -> alt.Chart:
    """The entries as a chart whose vertical axis has their names."""
    names = _names(entries)
    rows = [
        {"name": name, "tip": f"{one.name}: {one.text}", "text": one.text, "value": value, "end": max(value, 0.0)}
        | dict(zip(("low", "high"), map(float, _interval(one)), strict=True))
        for name, one in zip(names, entries, strict=True)
        if math.isfinite(value := float(one.value))
    ]
    axis, domain = alt.Axis(grid=grid), alt.Scale(domain=names)
    return alt.Chart(alt.Data(values=rows)).encode(alt.Y("name:N", title=None, sort=None, axis=axis, scale=domain))


def _by_name(kind: Any, entries: Sequence[Entry], values: Iterable[str]) -> Any:
    """A channel that has its own value for each entry."""
    return kind("name:N", sort=None, legend=None, scale=alt.Scale(domain=_names(entries), range=list(values)))
