"""Numbers by layer and head as a heat map, with marks on the heads that are removed."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from merit_jax.reporting.figures import WIDTH, Number, sized, tip
from merit_jax.reporting.theme import LIGHT, NEGATIVE

with contextlib.suppress(ModuleNotFoundError):  # without the `figures` extra, the report consists of words and tables
    import altair as alt

LEAST, MOST = 150, 640
"""Pixels down a map, axes and key included."""

AROUND = 92
"""Of these, what the axis and the key take."""

CROSS = "M-0.8,-0.8L0.8,0.8M-0.8,0.8L0.8,-0.8"
"""The mark of a head that is removed, as an SVG path."""


def head_map(
    values: Float[np.ndarray, "layers heads"], kept: Bool[np.ndarray, "layers heads"], decimals: int
) -> alt.LayerChart:
    """Returns a heat map of layers, the first on top, by heads; the larger a number, the darker its cell.

    Args:
        values: A number for each head.
        kept: True for the heads that stay; the others have a cross.
        decimals: Significant digits of a number that is hovered over.
    """
    layers, heads = values.shape
    row = min(20, (MOST - AROUND) / layers)
    x = alt.X("head:O", title="head", axis=alt.Axis(labelAngle=0, labelOverlap=True))
    y = alt.Y("layer:O", title="layer", axis=alt.Axis(labelOverlap=True))
    base = _heads(values, kept, decimals).encode(x, y)
    cells = base.mark_rect().encode(_colour(values), *tip("tip"))
    cross = base.transform_filter("!datum.kept").mark_point(aria=False, shape=CROSS, color=LIGHT["ink"], opacity=1)
    size = 0.3 * min(row, 0.8 * WIDTH / heads) ** 2
    marks = cross.encode(alt.Tooltip("tip:N"), size=alt.value(size), strokeWidth=alt.value(1.3))
    height = max(LEAST, round(AROUND + row * layers))
    return sized([cells, marks], WIDTH, height).properties(usermeta={"columns": heads})


def _heads(values: np.ndarray, kept: np.ndarray, decimals: int) -> alt.Chart:
    """The heads as data: a layer is a row of data, which Vega unfolds."""
    rows = [
        {"layer": layer, "value": [float(f"{value:.{decimals}g}") for value in line], "kept": stays}
        for layer, (line, stays) in enumerate(zip(values.tolist(), kept.tolist(), strict=True))
    ]
    text = "'layer ' + datum.layer + ', head ' + datum.head + '\\n' + datum.value + (datum.kept ? '' : '\\nremoved')"
    return (
        alt.Chart(alt.Data(values=rows))
        .transform_flatten(["value", "kept"])
        .transform_window(place="row_number()", groupby=["layer"])
        .transform_calculate(head="datum.place - 1")
        .transform_calculate(tip=text)
    )


def _colour(values: np.ndarray) -> Any:
    """The cells' colours, from the paper's own at the lowest number, with a key above the map."""
    low, high = limits(values)
    scale = alt.Scale(domain=[low, high], range=[NEGATIVE.format(0.04), NEGATIVE.format(1)], clamp=True)
    words = f"datum.value == {low} ? '≤ {low:.3g}' : '≥ {high:.3g}'"
    key = alt.Legend(title=None, gradientLength=160, gradientThickness=9, values=[low, high], labelExpr=words)
    return alt.Color("value:Q", scale=scale, legend=key)


def limits(values: Float[np.ndarray, "layers heads"]) -> tuple[Number, Number]:
    """Returns the numbers of palest and of full colour: few that are far off do not pale the rest.

    Examples:
        >>> limits(np.array([[0.0, 1.0]]))
        (0.02, 0.98)
    """
    low, high = (float(end) for end in np.quantile(np.asarray(values, np.float64), [0.02, 0.98]))
    return (low, high) if high > low else (low, low + 1.0)
