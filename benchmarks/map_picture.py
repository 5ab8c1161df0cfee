"""The map of benchmarks/study_map.py as a picture and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from merit_jax.reporting.theme import LIGHT

SUBTITLE = "Mean difference and its standard error over seeds; green where that is above zero, vermilion below"
"""What the picture's marks mean."""


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns the map as a chart: a panel per cell, a line per method with its gain over joint training."""
    import altair as alt

    values = [
        {**row, "low": row["gain"] - row["error"], "high": row["gain"] + row["error"], **_place(row)} for row in rows
    ]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    y = alt.Y("method:N", sort=methods, title=None)
    x = alt.X("gain:Q", title="points above joint training")
    base = alt.Chart(alt.Data(values=values))
    above = alt.when("datum.low > 0").then(alt.value(LIGHT["c2"]))
    colour = above.when("datum.high < 0").then(alt.value(LIGHT["c1"])).otherwise(alt.value(LIGHT["muted"]))
    layers = [
        base.mark_rule(color=LIGHT["ink"], strokeWidth=0.7).encode(x=alt.XDatum(0)),
        base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q"), y, alt.X2("high:Q"), color=colour),
        base.mark_point(filled=True, size=45, opacity=1).encode(x, y, color=colour),
    ]
    chart = alt.layer(*layers).properties(width=190, height=17 * len(methods))
    order = [list(dict.fromkeys(row[key] for row in values)) for key in ("panel", "world")]
    return chart.facet(
        row=alt.Row("panel:N", sort=order[0], title=None),
        column=alt.Column("world:N", sort=order[1], title=None),
    ).properties(title=alt.TitleParams("Skill at 95 % retention against joint training", subtitle=[SUBTITLE]))


def _place(row: Mapping[str, Any]) -> dict[str, str]:
    """The panel of a row: what theta0 knows, and the world."""
    return {
        "panel": f"forms known {row['forms']}, {row['epochs']:g} epochs",
        "world": f"shared {row['shared']:g}, private {row['private']:g}",
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the map as a Markdown table: a row per cell, a column per method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = f"s{row['shared']:g}-p{row['private']:g}-{row['forms']}-e{row['epochs']:g}"
        cells.setdefault(name, {"joint": f"{row['joint']:.1f}", "seeds": row["seeds"]})
        cells[name][row["method"]] = f"{row['gain']:+.1f} ± {row['error']:.1f}"
    body = [
        [name, found["seeds"], found["joint"], *(found.get(m, "") for m in methods)] for name, found in cells.items()
    ]
    return tabulate(body, ["cell", "seeds", "joint", *methods], tablefmt="github")
