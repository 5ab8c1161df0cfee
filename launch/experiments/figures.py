"""Draws what the artifacts of runs say, as PNG files; needs the `figures` extra (`pip install 'merit-jax[figures]'`)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from merit_jax.comparison.results import MethodResult
from merit_jax.configs.common import parse
from merit_jax.launch.experiments.gains import Gain
from merit_jax.reporting.figures import Axis, can_draw, png, scale, svg, tip
from merit_jax.reporting.frontier import HALVES, Point, frontier, scaled
from merit_jax.reporting.labels import model_look
from merit_jax.reporting.theme import COLOURS, GROUP_SHAPES, LIGHT, SHAPES, hex_of, look
from merit_jax.workdir.artifacts import write_bytes
from merit_jax.workdir.paths import THETA0, Workdir
from merit_jax.workdir.scores import current_frontier, read_evaluation

RATE_SHAPES = [*(SHAPES[name] for name in GROUP_SHAPES), "triangle-down", "cross"]
"""Shapes of learning rates."""


def draw_frontier(workdir: Workdir) -> epath.Path | None:
    """Draws retained score against skill as each model's task vector is scaled, if the run has a frontier.

    Returns:
        The picture's path; None if there is no frontier, or nothing to draw it with.
    """
    content = current_frontier(workdir)
    if content is None or not can_draw():
        return None
    lines = {name: model["points"] for name, model in content["models"].items()}
    (base,) = lines.pop(THETA0)
    known = read_evaluation(workdir)["models"] if workdir.evaluation.exists() else content["models"]
    chart = frontiers(base, lines, content["inputs"]["frontier"]["retention"], [*known, *content["models"]])
    return _write(chart, workdir.frontier)


def draw_mean_frontier(path: epath.Path, results: Mapping[str, MethodResult], retention: float) -> epath.Path | None:
    """Draws the mean frontier of each method's runs, if there are any.

    Returns:
        The picture's path; None if there is no frontier, or nothing to draw it with.
    """
    lines = {name: [run.points for run in result.outcomes if run.points] for name, result in results.items()}
    means = {name: np.mean(points, axis=0).tolist() for name, points in lines.items() if points}
    if len(means) < 2 or not can_draw():
        return None
    (base,) = means.pop(THETA0)
    titles = {name: f"{name} ({len(lines[name])} runs)" if len(lines[name]) > 1 else name for name in means}
    return _write(frontiers(base, {titles[name]: points for name, points in means.items()}, retention), path)


def draw_gains(path: epath.Path, found: Sequence[Gain]) -> epath.Path | None:
    """Draws the merging gains of methods: obtained against predicted, and the merged model's loss against the gain.

    Returns:
        The picture's path; None if there are no gains, or nothing to draw them with.
    """
    return _write(gains(found), path) if found and can_draw() else None


def _write(chart: Any, path: epath.Path) -> epath.Path:
    path = epath.Path(path).with_suffix(".png")
    write_bytes(path, png(svg(chart)))
    return path


def frontiers(
    base: Point, lines: Mapping[str, Sequence[Point]], retention: float, known: Iterable[str] | None = None
) -> Any:
    """Returns a chart of several frontiers; of many, each has a panel of its own, with joint training's in grey.

    Args:
        base: (0, retained, skill) of theta0, on the reporting half as all points.
        lines: Label -> (scale, retained, skill) of each scale.
        retention: Share of theta0's retained score that counts as kept.
        known: All models of the run in order, which decides their looks; None: the lines.
    """
    import altair as alt

    if len(lines) <= COLOURS:
        names = list(lines if known is None else known)
        series = [scaled(label, points, *model_look(label, names)) for label, points in lines.items()]
        title = alt.TitleParams("What is retained against what is learnt", subtitle=[HALVES])
        return frontier(base, series, retention).properties(title=title)

    _, xs, ys = zip(base, *(point for points in lines.values() for point in points), strict=True)
    axes = Axis("retained (%)", 0, 105 * max(xs)), Axis("skill (%)", 95 * min(ys), 105 * max(ys))
    joint = [scaled("joint", points, "muted") for label, points in lines.items() if label.split()[0] == "joint"]
    panels = []
    for label, points in lines.items():
        series = [one._replace(listed=False) for one in (*joint[:1], scaled(label, points, 0))]
        panel = frontier(base, series, retention, axes=axes, panel=True)
        panels.append(panel.properties(title=alt.TitleParams(label, fontSize=10.5)))
    about = f"Skill against what is retained, in per cent; grey: less than {100 * retention:g} % retained"
    title = alt.TitleParams(about, subtitle=[HALVES])
    chart = alt.concat(*panels, columns=math.ceil(math.sqrt(len(panels))), title=title)
    return chart.resolve_scale(color="independent", shape="independent", strokeDash="independent")


def gains(found: Sequence[Gain]) -> Any:
    """Returns a chart with every merge as a point: its colour is the split, its shape the learning rate.

    Gains that are not positive have no place on its logarithmic axes.
    """
    import altair as alt

    rows = [
        {
            "split": parse(g.method)[0],
            "rate": f"{g.learning_rate:g}",
            "tip": f"{g.method}, seed {g.seed}",
            **g._asdict(),
        }
        for g in sorted(found, key=lambda gain: gain.learning_rate)
    ]
    log = any(value > 0 for g in found for value in (g.predicted, g.obtained))
    splits = list(dict.fromkeys(parse(g.method)[0] for g in found))
    colours = alt.Scale(domain=splits, range=[hex_of(look(place)[0]) for place in range(len(splits))])
    shapes = alt.Scale(domain=list(dict.fromkeys(row["rate"] for row in rows)), range=RATE_SHAPES)

    def axis(kind: Any, field: str, label: str, *, log: bool) -> Any:
        return kind(f"{field}:Q", title=label, scale=scale(Axis("", log=log), [row[field] for row in rows]))

    points = (
        alt.Chart(alt.Data(values=rows), width=300, height=280)
        .mark_point(filled=True, size=45, opacity=0.8)
        .encode(
            alt.Color("split:N", scale=colours, legend=alt.Legend(title="split")),
            alt.Shape("rate:N", scale=shapes, sort=None, legend=alt.Legend(title="learning rate")),
            *tip("tip"),
        )
    )
    y = axis(alt.Y, "obtained", "obtained gain (nats)", log=log)
    predictions = points.encode(axis(alt.X, "predicted", "predicted gain (nats, from the Hessian)", log=log), y)
    losses = points.encode(
        axis(alt.X, "obtained", "obtained gain (nats)", log=log),
        axis(alt.Y, "merged", "loss of the merged model (nats)", log=False),
    )
    if log:
        positive = [value for g in found for value in (g.predicted, g.obtained) if value > 0]
        ends = [{"at": min(positive) / 1.3}, {"at": max(positive) * 1.3}]
        diagonal = (
            alt.Chart(alt.Data(values=ends)).mark_line(color=LIGHT["muted"], clip=True).encode(x="at:Q", y="at:Q")
        )
        predictions = diagonal + predictions.transform_filter("datum.predicted > 0 && datum.obtained > 0")
        losses = losses.transform_filter("datum.obtained > 0")
    return alt.hconcat(predictions, losses)
