"""Importance, attention entropy and HIES of every head, as maps over layers and heads."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from merit_jax.reporting.blocks import Part, Section, Text
from merit_jax.reporting.figures import Axis, Figure
from merit_jax.reporting.head_map import head_map
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.series import Series, plot
from merit_jax.reporting.theme import Colour
from merit_jax.workdir.pruning_results import PruningResults

MAPS = {
    "importance": ("Importance (HIS)", "E|∂L/∂m|, nats: how much the loss depends on the head's gate m."),
    "entropy": ("Attention entropy (AE)", "0: a query attends to one key; 1: to all keys alike."),
    "hies": ("HIES", "α HIS + (1 − α)(1 − AE), both scaled to 0..1 over all heads: low ones go first."),
}
"""Score -> title of its maps, and how to read them."""


def head_scores(artifacts: Artifacts) -> Section:
    """Returns the section on the scores in `pruning.json`."""
    parts = tuple(_parts(artifacts.pruning)) if artifacts.pruning else ()
    return Section("heads", "Scores of the attention heads", parts)


def _parts(found: PruningResults) -> Iterator[Part]:
    yield Text(_in_words(found))
    for part, kept in found.chosen["kept"].items():
        for score, (title, note) in MAPS.items():
            values = np.asarray(found.chosen["scores"][score][part], np.float64)
            chart = partial(head_map, values, np.asarray(kept, bool), 4)
            yield Figure(f"heads_{part}_{score}", f"{title} of the {part}'s heads", chart, note)
        yield plane(found, part)


def plane(found: PruningResults, part: str) -> Figure:
    """Returns the heads of a part by entropy and importance, which HIES weighs."""
    scores, kept = found.chosen["scores"], np.asarray(found.chosen["kept"][part], bool)
    entropy, importance = (np.asarray(scores[name][part], np.float64) for name in ("entropy", "importance"))
    looks: dict[str, tuple[np.ndarray, Colour, str]] = {
        "removed": (~kept, "muted", "diamond"),
        "kept": (kept, 0, "circle"),
    }
    series = []
    for label, (chosen, colour, shape) in looks.items():
        places = np.argwhere(chosen).tolist()
        x, y = entropy[chosen].tolist(), importance[chosen].tolist()
        rows = zip(places, x, y, strict=True)
        tips = [f"layer {layer}, head {head}, {label}\nAE {a:.4g}, HIS {b:.4g}" for (layer, head), a, b in rows]
        series.append(Series(label, x, y, tips, colour, shape, 3.5))
    chart = partial(plot, series, Axis("attention entropy (AE)"), Axis("importance (HIS), nats"))
    note = "α = 1 removes heads from below, α = 0 from the right."
    return Figure(f"heads_{part}_plane", f"Importance against entropy of the {part}'s heads", chart, note)


def _in_words(found: PruningResults) -> str:
    chosen, settings = found.chosen, found.settings
    text = f"Crosses: heads that are removed. HIES is with α = {chosen['alpha']:g}"
    text += "" if chosen["criterion"] == "hies" else f", and the heads were chosen by {chosen['criterion']}"
    again = f"; the scores are those of the whole model, and were taken again in each of {settings['rounds']} rounds"
    return text + (again if settings["rounds"] > 1 else "") + "."
