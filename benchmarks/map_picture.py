"""The map of benchmarks/study_map.py as a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from merit_jax.reporting.theme import LIGHT, PALETTE

SUBTITLE = (
    "0 is joint training, scaled back until it keeps as much. Bars: two standard errors over seeds (a single seed has none);",
    "green where that is above zero, vermilion below.",
)
"""What the picture's marks mean."""

LABELS = {
    "theta0": "theta0, nothing trained",
    "examples4": "i.i.d. slices, 4",
    "random4": "random split, 4",
    "merit2d": "MERIT, 4",
    "alike4": "MERIT's opposite, 4",
    "random4:partition.core=0.25": "random split, 4, with a core",
    "merit2d:partition.core=0.25": "MERIT, 4, with a core",
    "alike4:partition.core=0.25": "MERIT's opposite, 4, with a core",
}
"""Method -> its name in the picture; another one is named as it is."""


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns the map as a chart: a panel per cell, a line per method with its gain over joint training.

    Args:
        rows: As `map_record.against_joint` returns them.
    """
    import altair as alt

    bars = [2 * (row["error"] or 0) for row in rows]
    values = [
        {**row, "low": row["gain"] - bar, "high": row["gain"] + bar, **_place(row)}
        for row, bar in zip(rows, bars, strict=True)
    ]
    methods = list(dict.fromkeys(row["name"] for row in values))
    y = alt.Y("name:N", sort=[*(name for name in LABELS.values() if name in methods), *methods], title=None)
    x = alt.X("gain:Q", title="points of skill")
    base = alt.Chart(alt.Data(values=values))
    known = "datum.error !== null && "
    above = alt.when(f"{known}datum.low > 0").then(alt.value(LIGHT["c2"]))
    colour = above.when(f"{known}datum.high < 0").then(alt.value(LIGHT["c1"])).otherwise(alt.value(LIGHT["muted"]))
    layers = [
        base.mark_rule(color=LIGHT["ink"], strokeWidth=0.7).encode(x=alt.XDatum(0)),
        base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q"), y, alt.X2("high:Q"), color=colour),
        base.mark_point(filled=True, size=45, opacity=1).encode(x, y, color=colour),
    ]
    chart = alt.layer(*layers).properties(width=170, height=16 * len(methods))
    order = list(dict.fromkeys(row["panel"] for row in values))
    title = alt.TitleParams("Skill at 95 % retention, less joint training's", subtitle=list(SUBTITLE))
    header = alt.Header(labelExpr="split(datum.label, '; ')", labelAlign="left", labelAnchor="start")
    facet = alt.Facet("panel:N", sort=order, title=None, header=header)
    return chart.facet(facet=facet, columns=COLUMNS).properties(title=title)


COLUMNS = 4
"""Panels side by side."""


def _place(row: Mapping[str, Any]) -> dict[str, str]:
    """The panel of a row, and its method's name."""
    epochs = "1 epoch" if row["epochs"] == 1 else f"{row['epochs']:g} epochs"
    return {
        "panel": f"theta0 knows the forms {row['forms']}; shared {row['shared']:g}, private {row['private']:g}, {epochs}",
        "name": LABELS.get(row["method"], row["method"]),
    }


def draw_shares(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns, as a chart, how much of joint training's gain a merge keeps against how alike its branches are.

    Args:
        rows: As `map_record.shares_of_gain` returns them.
    """
    import altair as alt

    values = [{**row, **_place(row)} for row in rows]
    names = [name for name in LABELS.values() if name in {row["name"] for row in values}]
    names += sorted({row["name"] for row in values} - set(names))
    base = alt.Chart(alt.Data(values=values))
    legend = alt.Legend(columns=2, labelLimit=260)
    colour = alt.Color("name:N", title=None, scale=alt.Scale(domain=names, range=list(PALETTE)), legend=legend)
    x = alt.X("cosine:Q", title="mean cosine of the branches' task vectors")
    y = alt.Y("share:Q", title="% of joint training's gain at 95 % retention")
    lines = base.mark_line(color=LIGHT["muted"], strokeWidth=0.8, opacity=0.7).encode(x, y, detail="panel:N")
    points = base.mark_point(filled=True, size=60, opacity=0.9).encode(x, y, color=colour)
    level = base.mark_rule(color=LIGHT["ink"], strokeWidth=0.7).encode(y=alt.YDatum(100))
    title = alt.TitleParams(
        "What a merge keeps, by how alike its branches are", subtitle="A line joins the methods of a cell"
    )
    return alt.layer(level, lines, points).properties(width=440, height=300, title=title)
