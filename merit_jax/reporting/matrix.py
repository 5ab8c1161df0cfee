"""A square matrix as a heat map whose rows are in groups."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.reporting.figures import MATRIX, Number, sized, tip
from merit_jax.reporting.theme import LIGHT, NEGATIVE, POSITIVE, hex_of, look

with contextlib.suppress(ModuleNotFoundError):  # without the `figures` extra, the report consists of words and tables
    import altair as alt

SIDE = 400
"""Pixels along the matrix, to the next multiple of its rows."""

KEY = 160
"""Pixels along the key to the colours."""

MOST_ROWS = 150
"""Rows that are shown one by one; of more, neighbours are averaged."""


def heat_map(values: Float[Array, "t t"], names: Sequence[str], groups: Sequence[int] = ()) -> alt.LayerChart:
    """Returns a heat map: the sign decides a cell's colour, the magnitude its opacity, so that zero is the paper's own.

    Args:
        values: The matrix, in -1..1.
        names: Of its rows.
        groups: Of its rows, ascending; empty: none. A strip along each side shows them, and lines part them.
    """
    limit = full_colour(values)
    values, names, groups = pooled(np.asarray(values, np.float64), names, groups)
    side = len(names) * max(1, round(SIDE / len(names)))
    edges: dict[str, Any] = {"domain": [0, len(names)], "nice": False}
    x = alt.X("column:Q", scale=alt.Scale(**edges), axis=None)
    y = alt.Y("row:Q", scale=alt.Scale(**edges), sort="descending", axis=None)
    cells = (
        _cells(values, names).mark_rect().encode(x, y, _colour(limit, side), *tip("tip"), x2="right:Q", y2="below:Q")
    )
    return sized([cells, *_strips(groups, x, y, side)], side, side).properties(
        name=MATRIX, usermeta={"columns": len(names)}
    )


def _cells(values: Float[np.ndarray, "t t"], names: Sequence[str]) -> alt.Chart:
    """The cells as data: a row of the matrix is a row of data, which Vega unfolds and names."""
    rows = [{"row": i, "one": names[i], "value": row} for i, row in enumerate(np.round(values, 2).tolist())]
    columns = alt.Data(values=[{"at": i, "other": name} for i, name in enumerate(names)])
    text = "datum.one + '\\n' + datum.other + '\\n' + format(datum.value, '.2f')"
    return (
        alt.Chart(alt.Data(values=rows))
        .transform_flatten(["value"])
        .transform_window(right="row_number()", groupby=["row"])
        .transform_calculate(column="datum.right - 1", below="datum.row + 1")
        .transform_lookup("column", alt.LookupData(columns, "at", ["other"]))
        .transform_calculate(tip=f"datum.row == datum.column ? datum.one : {text}")
    )


def _colour(limit: Number, side: int) -> alt.Color:
    """The cells' colours, with a key below the matrix."""
    key = alt.Legend(
        title=None,
        orient="none",
        direction="horizontal",
        legendX=(side - KEY) / 2,
        legendY=side + 12,
        gradientLength=KEY,
        gradientThickness=9,
        values=[-limit, 0, limit],
        labelExpr="(datum.value < 0 ? '≤ ' : datum.value > 0 ? '≥ ' : '') + format(datum.value, '.2')",
    )
    colours = [NEGATIVE.format(1), NEGATIVE.format(0), POSITIVE.format(0), POSITIVE.format(1)]
    ends = alt.Scale(domain=[-limit, -1e-9, 1e-9, limit], range=colours, clamp=True)
    return alt.Color("value:Q", scale=ends, legend=key)


def _strips(groups: Sequence[int], x: alt.X, y: alt.Y, side: int) -> list[Any]:
    """Strips in the groups' colours along both sides, their numbers, and lines between them."""
    if not groups:
        return []
    rows: list[dict[str, Any]] = []
    for group in sorted(set(groups)):
        start = groups.index(group)
        end = start + groups.count(group)
        rows.append({"row": start, "column": start, "end": end, "middle": (start + end) / 2, "group": group})
    base = alt.Chart(alt.Data(values=rows))
    scale = alt.Scale(domain=[row["group"] for row in rows], range=[hex_of(look(row["group"])[0]) for row in rows])
    colour = alt.Color("group:N", scale=scale, legend=None)
    text, line = (
        base.mark_text(aria=False, fontSize=10.5, color=LIGHT["text"]),
        base.mark_rule(aria=False, opacity=0.55, strokeWidth=0.7, color=LIGHT["ink"]),
    )
    return [
        base.mark_rect(aria=False, height=5, yOffset=-5).encode(x, colour, x2="end", y=alt.value(0)),
        base.mark_rect(aria=False, width=5, xOffset=-5).encode(y, colour, y2="end", x=alt.value(0)),
        text.encode(x="middle:Q", y=alt.value(-16), text="group:N"),
        text.encode(y="middle:Q", x=alt.value(-16), text="group:N"),
        line.encode(x="end:Q"),
        line.encode(y="end:Q"),
    ]


def full_colour(values: Float[Array, "t t"]) -> Number:
    """Returns the magnitude of full colour: that of the largest 2 % off the diagonal, so that few do not pale the rest."""
    off = np.abs(np.asarray(values, np.float64))[~np.eye(len(values), dtype=bool)]
    limit = float(np.quantile(off, 0.98)) if off.size else 0.0
    return limit if limit > 0 else 1.0


def pooled(
    values: Float[np.ndarray, "t t"], names: Sequence[str], groups: Sequence[int], most: int = MOST_ROWS
) -> tuple[Float[np.ndarray, "s s"], Sequence[str], Sequence[int]]:
    """Returns a matrix of at most so many rows: of more, the means over blocks of neighbours.

    Examples:
        >>> values, names, _ = pooled(np.array([[1.0, 0, 2], [0, 1, 4], [2, 4, 5]]), ["a", "b", "c"], [], most=2)
        >>> values.tolist(), names
        ([[0.5, 3.0], [3.0, 5.0]], ['a … b', 'c'])
    """
    step = -(-len(names) // most)
    if step <= 1:
        return values, names, groups
    starts = range(0, len(names), step)
    sums = np.add.reduceat(np.add.reduceat(values, starts, axis=0), starts, axis=1)
    counts = np.diff([*starts, len(names)])
    blocks = [names[start : start + step] for start in starts]
    return sums / np.outer(counts, counts), [" … ".join(dict.fromkeys([b[0], b[-1]])) for b in blocks], groups[::step]
