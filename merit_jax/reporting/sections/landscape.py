"""Merge-readiness of theta0: barriers between models, distances, flatness, and the loss around them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from merit_jax.reporting.bars import Entry, bars
from merit_jax.reporting.blocks import Missing, Part, Section, Table, Text
from merit_jax.reporting.figures import Axis, Figure
from merit_jax.reporting.labels import called, floats, style, text
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.series import Series, contours, plot
from merit_jax.reporting.theme import Colour, look
from merit_jax.workdir.paths import MERGED

SHOWN = 12
"""Paths that get a colour and a place in the legend; further ones are grey."""


CONTRACTS = (
    "Averaging contracts: the merged model is nearer than its branches (Eq. 2), and far nearer than joint training."
)


def landscape(artifacts: Artifacts) -> Section:
    """Returns the section on the diagnostics of the trained models."""
    return Section("landscape", "Is theta0 merge-ready", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    found = artifacts.diagnostics
    figures = {"connectivity": connectivity_figure, "perturbation": perturbation_figure, "surface": surface_figure}
    if "connectivity" in found:
        yield Text(_barriers(found["connectivity"]))
    yield from (figure(artifacts, found[name]) for name, figure in figures.items() if name in found)
    if artifacts.merge:
        yield displacement_figure(artifacts, artifacts.merge["displacement"])
    if trajectories := found.get("displacement", {}).get("trajectories"):
        yield trajectory_figure(artifacts, trajectories)
    if "displacement" in found:
        yield cosine_table(artifacts, found["displacement"])
    if "perturbation" in found:
        yield flatness_table(artifacts, found["perturbation"])
    words = {
        "connectivity": "The loss along the lines between branches and to the merged model",
        "perturbation": "The loss under weight noise, joint against merged",
        "surface": "The loss on a plane through theta0, branches and merged model",
        "displacement": "Cosines between task vectors, and the identity of Eq. 11",
    }
    yield from (Missing(words[name], artifacts.diagnose_command(name)) for name in words if name not in found)


def _barriers(result: Mapping[str, Any]) -> str:
    barriers = floats([path["barrier"] for path in result["paths"]])
    count, zero = len(barriers), sum(barrier < 0.0005 for barrier in barriers)
    return (
        f"Loss barriers on {count} straight lines between models: highest {text(result['barrier'])} nats per token;"
        f" {zero} of {count} are "
        "zero to three decimals. The paper finds none at 3B: a merge-ready theta0 keeps its branches in one valley."
    )


def connectivity_figure(artifacts: Artifacts, result: Mapping[str, Any]) -> Figure:
    """Returns the loss along every line, branch to branch dashed."""
    lines = []
    for place, path in enumerate(result["paths"]):
        ends = f"{path['start']} – {path['end']}"
        whole = MERGED in (path["start"], path["end"])
        colour: Colour = look(place)[0] if place < SHOWN else "muted"
        pairs = zip(result["alphas"], path["losses"], strict=True)
        tips = [f"{ends}\nα = {a:.2f}: {text(loss)} nats\nbarrier {text(path['barrier'])}" for a, loss in pairs]
        shape = "circle" if whole else "diamond"
        line = Series(
            ends, result["alphas"], floats(path["losses"]), tips, colour, shape, 2.5, line=True, dashed=not whole
        )
        lines.append(line._replace(listed=place < SHOWN))
    x, y = Axis("α, share of the way", low=0, high=1), Axis("nats per supervised token")
    note = "No hump on a line: both ends are in one valley. Dashed, diamonds: between branches; circles: to the merged model."
    return Figure("connectivity", "Loss along lines between models", partial(plot, lines, x, y, height=340), note)


def displacement_figure(artifacts: Artifacts, recorded: Mapping[str, Any]) -> Figure:
    """Returns the distance of every model and branch from theta0."""
    found: list[tuple[str, float, Colour]] = [
        (called(artifacts, MERGED), recorded["merged"], style(artifacts, MERGED)[0]),
        *((f"branch {index}", distance, look(index)[0]) for index, distance in enumerate(recorded["branches"])),
    ]
    for name, model in artifacts.models.items():
        if name != MERGED and model.get("displacement"):
            found.append((called(artifacts, name), model["displacement"], "muted"))
    entries = [Entry(name, distance, f"{distance:.2f}", colour) for name, distance, colour in found]
    return Figure(
        "displacement",
        "Distance from theta0",
        partial(bars, entries, "‖θ − θ0‖₂", height=90 + 24 * len(entries)),
        "" if artifacts.no_mean else CONTRACTS,
    )


def trajectory_figure(artifacts: Artifacts, trajectories: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns the distance along training."""
    lines = []
    for place, entry in enumerate(trajectories):
        joint, distances = entry["name"] == "joint", floats(entry["distances"])
        colour = "muted" if joint else look(place)[0]
        lines.append(Series(entry["name"], entry["steps"], distances, colour=colour, size=0, line=True, dashed=joint))
    chart = partial(plot, lines, Axis("step"), Axis("‖θ − θ0‖₂", low=0))
    return Figure("trajectory", "Distance from theta0 along training", chart)


def cosine_table(artifacts: Artifacts, result: Mapping[str, Any]) -> Table:
    """Returns the cosine of each pair of task vectors; Eq. 11 in the caption."""
    names, identity = result["names"], result["parallel_axis"]
    rows = [[name, *(text(value, 2) for value in row)] for name, row in zip(names, result["cosines"], strict=True)]
    caption = "Cosines between task vectors θ − θ0."
    if artifacts.no_mean:
        caption += f" Eqs. 2 and 11 are not defined: {artifacts.no_mean}."
    elif identity:
        caption += (
            f" Eq. 11: mean squared distance of the branches {identity['branches']:.3g} = merged {identity['merged']:.3g}"
            f" + spread {identity['spread']:.3g}, up to {abs(identity['residual']):.1g} of the whole; contraction (Eq. 2) "
            f"{identity['contraction']:.3g}."
        )
    return Table(caption, ["", *names], rows)


def perturbation_figure(artifacts: Artifacts, result: Mapping[str, Any]) -> Figure:
    """Returns the rise of the loss under noise, mean and standard deviation over draws."""
    lines = []
    for entry in result["models"]:
        colour, sigmas = style(artifacts, entry["name"])[0], [0.0, *result["sigmas"]]
        rows = zip(sigmas, [0.0, *floats(entry["mean"])], np.nan_to_num([0.0, *floats(entry["std"])]), strict=True)
        at, mean, std = np.array([row for row in rows if np.isfinite(row[1])]).T
        band = (mean - std).tolist(), (mean + std).tolist()
        tips = [f"{entry['name']}, σ = {s:g}\n+{m:.3f} ± {d:.3f} nats" for s, m, d in zip(at, mean, std, strict=True)]
        lines.append(Series(entry["name"], at.tolist(), mean.tolist(), tips, colour, size=3, line=True, band=band))
    x, y = Axis("σ of Gaussian noise on every weight", low=0), Axis("rise of the loss, nats per token")
    note = "Flatter is better. Band: standard deviation over draws of the noise."
    return Figure("perturbation", "Rise of the loss under weight noise", partial(plot, lines, x, y), note)


def flatness_table(artifacts: Artifacts, result: Mapping[str, Any]) -> Table:
    """Returns the loss without noise, and the area under its rise."""
    rows = [
        [called(artifacts, entry["name"]), text(entry["loss"]), *map(text, entry["mean"]), text(entry["auc"], 5)]
        for entry in result["models"]
    ]
    header = ["model", "loss", *(f"rise at σ = {sigma:g}" for sigma in result["sigmas"]), "flatness AUC"]
    return Table(
        "Weight noise: nats per supervised token; AUC is the area under the rise, less is flatter", header, rows
    )


def surface_figure(artifacts: Artifacts, result: Mapping[str, Any]) -> Figure:
    """Returns lines of equal loss on the plane, and the places of the models on it."""
    losses = np.array(result["losses"], np.float64)
    series = [Series("theta0", [0.0], [0.0], ["theta0"], "ink", "star", 6, listed=False, named=True)]
    for place, (name, (a, b), off) in enumerate(zip(result["names"], result["places"], result["off"], strict=True)):
        merged = name == MERGED
        colour, shape = ("ink", "diamond") if merged else look(place)
        tip = name if off < 1e-6 or merged else f"{name} ({off:.2g} off the plane)"
        series.append(Series(name, [a], [b], [tip], colour, shape, 5.5, listed=not merged, named=merged))
    low, high = np.nanmin(losses), np.nanmax(losses)
    note = f"Lines of equal loss, {low:.2f} to {high:.2f} nats per token, closer together near the bottom."
    x, y = (np.array(result[key], np.float64) for key in "xy")
    return Figure("surface", "Loss on a plane through theta0", partial(_surface_chart, series, x, y, losses), note)


def _surface_chart(series: Sequence[Series], x: np.ndarray, y: np.ndarray, losses: np.ndarray) -> Any:
    shares = [float(share) for share in np.linspace(0.12, 0.95, 12) ** 2]
    curves = contours(x, y, losses, shares, [0.35 + 0.6 * (1 - share) for share in shares])
    axes = Axis("towards the merged model, ‖·‖₂"), Axis("across, where the branches differ most")
    return plot(series, *axes, curves=curves, height=340)
