"""The merging gain, next to the merged loss itself and to the gains of other splits."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from merit_jax.reporting.bars import Entry, bars
from merit_jax.reporting.blocks import Missing, Part, Section, Table, Text
from merit_jax.reporting.figures import Axis, Figure, Number
from merit_jax.reporting.labels import floats, text
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.series import Series, plot
from merit_jax.reporting.theme import Colour, look


def gain(artifacts: Artifacts) -> Section:
    """Returns the section on gain obtained and predicted."""
    return Section("gain", "What merging gained", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    found = artifacts.diagnostics
    if artifacts.no_mean:
        yield Text(f"The merging gain (Thm 3.1) is not defined: {artifacts.no_mean}.")
        found = {name: result for name, result in found.items() if name != "gain"}
    elif "gain" in found:
        yield Text(_in_words(found["gain"]))
        yield loss_figure(found["gain"])
    if "split_gain" in found:
        yield split_figure(found["split_gain"])
        yield split_table(found["split_gain"])
    words = {
        "gain": "The merging gain, obtained and predicted, next to the merged loss",
        "split_gain": "The gain that this split promises before any training, next to random splits",
    }
    if artifacts.no_mean:
        del words["gain"]
    yield from (Missing(words[name], artifacts.diagnose_command(name)) for name in words if name not in found)


def _in_words(result: Mapping[str, Any]) -> str:
    branches, merged = text(result["mean_branch_loss"]), text(result["merged_loss"])
    return (
        f"The branches' mean loss is {branches} and the merged model's {merged} nats per token: a gain of "
        f"{text(result['obtained'])}, against {text(result['predicted'])} by the quadratic theory (Thm 3.1)."
        " A split can raise the gain by making its branches worse, so compare splits by the merged loss."
    )


def loss_figure(result: Mapping[str, Any]) -> Figure:
    """Returns the loss of each branch, of their mean and of the merged model, on the same examples."""
    values = floats([*result["branch_losses"], result["mean_branch_loss"], result["merged_loss"]])
    branches = len(result["branch_losses"])
    names = [*(f"branch {index}" for index in range(branches)), "mean of branches", "merged"]
    colours: list[Colour] = [*(look(index)[0] for index in range(branches)), "muted", "ink"]
    rows = zip(names, values, colours, strict=True)
    entries = [Entry(name, value, f"{value:.3f}", colour) for name, value, colour in rows]
    label = "nats per supervised token, on the whole mixture"
    return Figure(
        "gain",
        "Loss of branches and merged model",
        partial(bars, entries, label, height=90 + 24 * len(entries)),
        "The gain is the distance between the last two.",
    )


def split_figure(result: Mapping[str, Any]) -> Figure:
    """Returns every split by its predicted gain, against what curvature costs its branches and the merged model."""
    sides: dict[str, Colour] = {"branches": 1, "merged": 0}
    series = [_splits(result["random"], "random split", key, sides[key], "circle", 2.5) for key in sides]
    series += [_splits(result["best"], "random split of most gain", key, sides[key], "triangle", 6) for key in sides]
    series += [_splits(result["chosen"], "this run's split", key, sides[key], "star", 6.5) for key in sides]
    axes = Axis("predicted gain G(s), nats"), Axis("second-order loss, nats", low=0)
    return Figure(
        "splits",
        "Predicted gain of splits, before any training",
        partial(plot, series, *axes, height=340),
        "After one SGD step of each branch from theta0. The gain is the distance between branches and merged model: where the "
        "merged model's loss does not fall, more gain is only worse branches.",
    )


def _splits(found: Mapping[str, Any], name: str, key: str, colour: Colour, shape: str, size: Number) -> Series:
    """Splits of one kind: gain against one of the losses whose difference it is."""
    rows = list(zip(found["gain"], found[key], strict=True))
    tips = [f"{name}, {key}\ngain {gain:.4g}, loss {loss:.4g} nats" for gain, loss in rows]
    return Series(f"{name}, {key}", [row[0] for row in rows], [row[1] for row in rows], tips, colour, shape, size)


def split_table(result: Mapping[str, Any]) -> Table:
    """Returns a table of the chosen split, random ones on average, and the best of them."""
    rows = []
    for name, kind in (("this run's split", "chosen"), ("random, mean", "random"), ("random, of most gain", "best")):
        rows.append([name, *(f"{_mean(result[kind][key]):.4g}" for key in ("gain", "branches", "merged"))])
    caption = (
        f"Second-order terms, nats; {100 * result['rank']:.0f} % of the random splits have less gain than this run's"
    )
    return Table(caption, ["split", "gain", "branches", "merged"], rows)


def _mean(values: list[Number]) -> Number:
    return sum(values) / len(values)
