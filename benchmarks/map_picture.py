"""The map of benchmarks/study_map.py as a picture."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from merit_jax.reporting.theme import LIGHT, PALETTE

SUBTITLE = (
    "0 is joint training, scaled back until it keeps as much. To the right, more of what is to be learnt is common",
    "to all datasets. Bars: two standard errors over seeds; a single seed has none.",
)
"""What the picture's marks mean."""

SEVERAL = 3
"""Cells that a method has at least, to be in the picture; the tables have all methods."""

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
    """Returns the map as a chart: a panel for each theta0, private share and length, with the methods over what is shared.

    Args:
        rows: As `map_record.against_joint` returns them.
    """
    import altair as alt

    cells = Counter(row["method"] for row in rows)
    shown = [row for row in rows if cells[row["method"]] >= min(SEVERAL, max(cells.values()))]
    bars = [2 * (row["error"] or 0) for row in shown]
    values = [
        {**row, "low": row["gain"] - bar, "high": row["gain"] + bar, "at": f"{row['shared']:g}", **_place(row)}
        for row, bar in zip(shown, bars, strict=True)
    ]
    x = alt.X(
        "at:N",
        title="share that is common to all datasets",
        sort=sorted({v["at"] for v in values}, key=float),
        axis=alt.Axis(labelAngle=0),
    )
    colour, dodge = _colour(values), alt.XOffset("name:N", sort=_names(values))
    base, title = alt.Chart(alt.Data(values=values)), "points of skill"
    layers = [
        base.mark_rule(color=LIGHT["ink"], strokeWidth=0.7).encode(y=alt.YDatum(0)),
        base.mark_rule(strokeWidth=1.5).encode(x, alt.Y("low:Q", title=title), alt.Y2("high:Q"), dodge, color=colour),
        base.mark_point(filled=True, size=45, opacity=1).encode(x, alt.Y("gain:Q", title=title), dodge, color=colour),
    ]
    chart = alt.layer(*layers).properties(width=235, height=170)
    heading = alt.TitleParams("Skill at 95 % retention, less joint training's", subtitle=list(SUBTITLE))
    header = alt.Header(labelExpr="split(datum.label, '; ')", labelAlign="left", labelAnchor="start")
    order = list(dict.fromkeys(row["panel"] for row in values))
    facet = alt.Facet("panel:N", sort=order, title=None, header=header)
    return chart.facet(facet=facet, columns=COLUMNS).properties(title=heading)


def _names(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the methods, those of `LABELS` first."""
    found = {row["name"] for row in values}
    names = [name for name in LABELS.values() if name in found]
    return names + sorted(found - set(names))


def _colour(values: Sequence[Mapping[str, Any]]) -> Any:
    import altair as alt

    scale = alt.Scale(domain=_names(values), range=list(PALETTE))
    return alt.Color("name:N", title=None, scale=scale, legend=alt.Legend(orient="top", columns=4, labelLimit=260))


COLUMNS = 3
"""Panels side by side."""


def _place(row: Mapping[str, Any]) -> dict[str, str]:
    """The panel of a row, and its method's name."""
    epochs = "1 epoch" if row["epochs"] == 1 else f"{row['epochs']:g} epochs"
    own = f"{round(FORMS * row['private'])} of {FORMS} answer forms are one dataset's own"
    return {
        "panel": f"theta0 {KNOWS.get(row['forms'], row['forms'])} the answer forms, {epochs}; {own}",
        "name": LABELS.get(row["method"], row["method"]),
    }


KNOWS = {"well": "knows", "little": "hardly knows", "never": "has never met"}
FORMS = 11
"""Datasets that answer in a form of their own where nothing else teaches it."""


def draw_shares(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns, as a chart, how much of joint training's gain a merge keeps against how alike its branches are.

    Args:
        rows: As `map_record.shares_of_gain` returns them.
    """
    import altair as alt

    values = [{**row, **_place(row), "cell": f"{_place(row)['panel']}, {row['shared']:g}"} for row in rows]
    names = _names(values)
    base = alt.Chart(alt.Data(values=values))
    legend = alt.Legend(columns=2, labelLimit=260)
    colour = alt.Color("name:N", title=None, scale=alt.Scale(domain=names, range=list(PALETTE)), legend=legend)
    x = alt.X("cosine:Q", title="mean cosine of the branches' task vectors")
    y = alt.Y("share:Q", title="% of joint training's gain at 95 % retention")
    lines = base.mark_line(color=LIGHT["muted"], strokeWidth=0.8, opacity=0.7).encode(x, y, detail="cell:N")
    points = base.mark_point(filled=True, size=60, opacity=0.9).encode(x, y, color=colour)
    level = base.mark_rule(color=LIGHT["ink"], strokeWidth=0.7).encode(y=alt.YDatum(100))
    title = alt.TitleParams(
        "What a merge keeps, by how alike its branches are", subtitle="A line joins the methods of a cell"
    )
    return alt.layer(level, lines, points).properties(width=440, height=300, title=title)
