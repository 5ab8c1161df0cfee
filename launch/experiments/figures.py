"""Draws what a run's artifacts say; needs matplotlib (`pip install merit-jax[figures]`)."""

import importlib.util
import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from configs.common import parse
from launch.experiments.gains import Gain
from merit_jax.comparison.results import MethodResult
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#666666")

Point = Sequence[float]
"""(scale, retained, skill) of one model at one scale."""


def draw_frontier(workdir: Workdir) -> epath.Path | None:
    """Draws retained score against skill as each model's task vector is scaled, if the run has a frontier.

    Returns:
        The picture's path; None if there is no frontier, or no matplotlib to draw it with.
    """
    if not workdir.frontier.exists() or not _can_draw():
        return None
    content = read_json(workdir.frontier)
    lines = {name: model["points"] for name, model in content["models"].items()}
    (base,) = lines.pop("theta0")
    return _draw(workdir.frontier.with_suffix(".png"), base, lines, content["inputs"]["frontier"]["retention"])


def draw_mean_frontier(path: epath.Path, results: Mapping[str, MethodResult], retention: float) -> epath.Path | None:
    """Draws the mean frontier of each method's runs, if there are any; of many methods, each in a panel beside joint training.

    Returns:
        The picture's path; None if there is no frontier, or no matplotlib to draw it with.
    """
    lines = {name: [run.points for run in result.outcomes if run.points] for name, result in results.items()}
    means = {name: np.mean(points, axis=0).tolist() for name, points in lines.items() if points}
    if len(means) < 2 or not _can_draw():
        return None
    (base,) = means.pop("theta0")
    titles = {name: f"{name} ({len(lines[name])} runs)" if len(lines[name]) > 1 else name for name in means}
    return _draw(path, base, {titles[name]: points for name, points in means.items()}, retention)


def draw_gains(path: epath.Path, found: Sequence[Gain]) -> epath.Path | None:
    """Draws the merging gains of methods: obtained against predicted, and the merged model's loss against the gain.

    Returns:
        The picture's path; None if there are no gains, or no matplotlib to draw them with.
    """
    if not found or not _can_draw():
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    plot_gains(*figure.subplots(1, 2), found)
    return _save(figure, path)


def plot_gains(predictions: Any, losses: Any, found: Sequence[Gain]) -> None:
    """Draws every merge as a dot: its colour is the split, its form the learning rate.

    Args:
        predictions: Axes of matplotlib for obtained against predicted gain, logarithmic, with the diagonal where they are equal.
        losses: Axes for the merged model's loss against the obtained gain.
        found: The gains; those that are not positive have no place on the logarithmic axes.
    """
    splits = list(dict.fromkeys(parse(gain.method)[0] for gain in found))
    rates = sorted({gain.learning_rate for gain in found})
    for split, colour in zip(splits, itertools.cycle(COLOURS)):
        for rate, form in zip(rates, itertools.cycle("osD^vP")):
            own = [g for g in found if parse(g.method)[0] == split and g.learning_rate == rate]
            style = {"color": colour, "marker": form, "s": 22, "alpha": 0.8, "linewidths": 0}
            predictions.scatter([g.predicted for g in own], [g.obtained for g in own], **style)
            losses.scatter([g.obtained for g in own], [g.merged for g in own], **style)
    positive = [value for g in found for value in (g.predicted, g.obtained) if value > 0]
    if positive:
        ends = (min(positive) / 1.3, max(positive) * 1.3)
        predictions.plot(ends, ends, color="#888", lw=1, zorder=0)
        predictions.set(xscale="log", yscale="log")
        losses.set(xscale="log")
    predictions.set(xlabel="predicted gain (nats, from the Hessian)", ylabel="obtained gain (nats)")
    losses.set(xlabel="obtained gain (nats)", ylabel="loss of the merged model (nats)")
    for split, colour in zip(splits, itertools.cycle(COLOURS)):
        losses.scatter([], [], color=colour, marker="o", s=22, label=split)
    for rate, form in zip(rates, itertools.cycle("osD^vP")):
        losses.scatter([], [], color="#444", marker=form, s=22, label=f"{rate:g}")
    losses.legend(fontsize=7, frameon=False, title="split, learning rate", title_fontsize=7)


def _can_draw() -> bool:
    if importlib.util.find_spec("matplotlib") is None:
        log.info("no picture: install matplotlib (pip install 'merit-jax[figures]') and run again")
        return False
    return True


def _draw(path: epath.Path, base: Point, lines: Mapping[str, Sequence[Point]], retention: float) -> epath.Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    if len(lines) <= len(COLOURS):
        plot_frontier(figure.add_subplot(), base, lines, retention)
    else:
        plot_panels(figure, base, lines, retention)
    return _save(figure, path)


def _save(figure: Any, path: epath.Path) -> epath.Path:
    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=150)
    return path


def plot_panels(figure: Any, base: Point, lines: Mapping[str, Sequence[Point]], retention: float) -> None:
    """Draws each method's frontier in a panel of its own, with joint training's in grey, if it is among them.

    Args:
        figure: Of matplotlib; gets the size that the panels need.
        base: (0, retained, skill) of theta0.
        lines: Label -> (scale, retained, skill) of each scale.
        retention: Share of theta0's retained score that counts as kept.
    """
    across = math.ceil(math.sqrt(len(lines)))
    down = math.ceil(len(lines) / across)
    figure.set_size_inches(2.1 * across, 0.4 + 1.7 * down)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat
    joint = next((points for label, points in lines.items() if label.split()[0] == "joint"), None)
    _, most, _ = np.max([base, *(point for points in lines.values() for point in points)], axis=0)
    for axes, (label, points) in zip(panels, lines.items(), strict=False):
        axes.axvspan(0, 100 * retention * base[1], color="#f2f2f2", zorder=0)
        if joint:
            _plot_line(axes, joint, "#bbbbbb", 1)
        _plot_line(axes, points, COLOURS[0], 1.4)
        axes.plot(100 * base[1], 100 * base[2], "k*", markersize=8, zorder=5)
        axes.set_title(label, fontsize=7)
        axes.set_xlim(0, min(100, 120 * most))
        axes.tick_params(labelsize=6)
    for axes in panels[len(lines) :]:
        axes.set_visible(False)
    figure.supxlabel(f"retained: open-ended suites (%); grey: less than {retention:.0%} of theta0's", fontsize=8)
    figure.supylabel("skill (%)", fontsize=8)


def _plot_line(axes: Any, points: Sequence[Point], colour: str, width: float, label: str | None = None) -> None:
    """A method's frontier in per cent, with a large dot at scale 1."""
    scales, *scores = zip(*points, strict=True)
    x, y = ([100 * value for value in values] for values in scores)
    axes.plot(x, y, "o-", color=colour, markersize=2 * width, lw=width, label=label)
    for place in [place for place, scale in enumerate(scales) if scale == 1]:
        axes.plot(x[place], y[place], "o", color=colour, markersize=5 * width, zorder=4)


def plot_frontier(axes: Any, base: Point, lines: Mapping[str, Sequence[Point]], retention: float) -> None:
    """Draws theta0 as a star, each model as a line over all scales with a large dot at scale 1, and what is not retained in grey.

    Args:
        axes: Of matplotlib.
        base: (0, retained, skill) of theta0.
        lines: Label -> (scale, retained, skill) of each scale.
        retention: Share of theta0's retained score that counts as kept.
    """
    floor = 100 * retention * base[1]
    axes.axvspan(0, floor, color="#f2f2f2", zorder=0)
    note = f"less than {retention:.0%} of theta0 retained"
    axes.annotate(note, (floor - 1, 0.02), xycoords=("data", "axes fraction"), ha="right", fontsize=7, color="#888")
    for colour, (label, points) in zip(COLOURS, lines.items(), strict=False):
        _plot_line(axes, points, colour, 1.4, label)
    axes.plot(100 * base[1], 100 * base[2], "k*", markersize=11, label="theta0", zorder=5)
    most = max(retained for points in [[base], *lines.values()] for _, retained, _ in points)
    axes.set_xlim(0, min(100, 120 * most))
    axes.set_xlabel("retained: open-ended suites (%)")
    axes.set_ylabel("skill: suites that the mixture teaches (%)")
    axes.legend(fontsize=7, frameon=False)
