"""Draws what a run's artifacts say; needs matplotlib (`pip install merit-jax[figures]`)."""

import importlib.util
import logging
from typing import Any

from etils import epath

from merit_jax.workdir import Workdir, read_json

log = logging.getLogger("merit_jax")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#666666")


def draw_frontier(workdir: Workdir) -> epath.Path | None:
    """Draws retained score against skill as each model's task vector is scaled, if the run has a frontier.

    Returns:
        The picture's path; None if there is no frontier, or no matplotlib to draw it with.
    """
    if not workdir.frontier.exists():
        return None
    if importlib.util.find_spec("matplotlib") is None:
        log.info("no picture of the frontier: install matplotlib (pip install 'merit-jax[figures]') and run again")
        return None
    from matplotlib.figure import Figure

    content = read_json(workdir.frontier)
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    base = content["models"]["base"]["points"][0]
    share = content["inputs"]["frontier"]["retention"]
    axes.axvspan(0, 100 * share * base[1], color="#f2f2f2", zorder=0)
    axes.annotate(
        f"less than {share:.0%} of theta0 retained",
        (100 * share * base[1] - 1, 2),
        ha="right",
        fontsize=7,
        color="#888",
    )
    lines = {name: model for name, model in content["models"].items() if len(model["points"]) > 1}
    for index, (name, model) in enumerate(lines.items()):
        _draw_line(axes, name, model, COLOURS[index % len(COLOURS)])
    axes.plot(100 * base[1], 100 * base[2], "k*", markersize=11, label="theta0", zorder=5)
    most = max(retained for model in content["models"].values() for _, retained, _ in model["points"])
    axes.set_xlim(0, min(100, 120 * most))
    axes.set_xlabel("retained: open-ended suites (%)")
    axes.set_ylabel("skill: suites that the mixture teaches (%)")
    axes.legend(fontsize=7, frameon=False)
    path = workdir.frontier.with_suffix(".png")
    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=150)
    return path


def _draw_line(axes: Any, name: str, model: dict[str, Any], colour: str) -> None:
    """One model: a line over all scales, a large dot at scale 1."""
    retained, skill = ([100 * point[i] for point in model["points"]] for i in (1, 2))
    axes.plot(retained, skill, "o-", color=colour, markersize=3, lw=1.2, label=name)
    for scale, x, y in model["points"]:
        if scale == 1:
            axes.plot(100 * x, 100 * y, "o", color=colour, markersize=8, zorder=4)
