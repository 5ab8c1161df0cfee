"""The loss of every dataset while the branches train, on what they train on and on held-out examples."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from merit_jax.reporting.blocks import Part, Table
from merit_jax.reporting.figures import Axis, Figure, Number
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.sections.branch_lines import branch_lines, having
from merit_jax.reporting.series import MOST_VERTICES, Series, plot
from merit_jax.reporting.theme import look

Point = tuple[int, Number, Number]
"""(step, mean loss, tokens or examples behind it)."""

MOST_LISTED = 16
"""Datasets up to which the figure's legend lists them; of more, a line's tip says which it is."""

UNIT = "nats per supervised token"


class Curve(NamedTuple):
    """The training loss of a dataset in one branch, over at most `MOST_VERTICES` stretches of equal length.

    Attributes:
        branch: The branch.
        dataset: The dataset.
        steps: Last steps of the stretches.
        losses: Their mean losses.
    """

    branch: int
    dataset: str
    steps: Sequence[int]
    losses: Sequence[float]


def dataset_curves(artifacts: Artifacts) -> Iterator[Part]:
    """Yields the curves of all datasets, the held-out loss, and a table of both; nothing of what the logs do not have."""
    curves = [curve for k, branch in enumerate(artifacts.branches) for curve in training_curves(k, branch.log)]
    if curves:
        yield _training_figure(curves)
    if any(having(branch.log, "held_out_loss") for branch in artifacts.branches):
        yield _held_out_figure(artifacts)
    if curves:
        yield dataset_table(artifacts, curves)


def _training_figure(curves: Sequence[Curve]) -> Figure:
    lines = []
    for curve in curves:
        label = f"{curve.dataset}, branch {curve.branch}"
        points = zip(curve.steps, curve.losses, strict=True)
        tips = [f"{label}, step {step}: {loss:.3g}" for step, loss in points]
        colour, listed = look(curve.branch)[0], len(curves) <= MOST_LISTED
        lines.append(Series(label, curve.steps, curve.losses, tips, colour, size=2, line=True, listed=listed))
    note = (
        f"One line for each dataset, in its branch's colour: means of at most {MOST_VERTICES} stretches of its steps."
    )
    figure = partial(plot, lines, Axis("step"), Axis(UNIT, low=0))
    return Figure("training_datasets", "Training loss by dataset", figure, note)


def training_curves(branch: int, log: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Returns the curve of each dataset in the log of a branch, sorted by name."""
    found: dict[str, list[Point]] = {}
    for line in log:
        for name, loss in line.get("loss_by_dataset", {}).items():
            found.setdefault(name, []).append((line["step"], loss, line["count_by_dataset"][name]))
    return [_curve(branch, name, points) for name, points in sorted(found.items())]


def _curve(branch: int, name: str, points: Sequence[Point]) -> Curve:
    """Averages consecutive lines, by their tokens or examples, to at most `MOST_VERTICES` points."""
    steps, losses, counts = map(np.array, zip(*points, strict=True))
    parts = np.array_split(np.arange(len(steps)), min(len(steps), MOST_VERTICES))
    means = [float(np.average(losses[part], weights=counts[part])) for part in parts]
    return Curve(branch, name, [int(steps[part[-1]]) for part in parts], means)


def _held_out_figure(artifacts: Artifacts) -> Figure:
    lines = branch_lines(artifacts, "held_out_loss")
    note = "Each branch on held-out examples of its own datasets; step 0 is its start."
    figure = partial(plot, lines, Axis("step"), Axis(UNIT, low=0))
    return Figure("training_held_out", "Held-out loss while training", figure, note)


def dataset_table(artifacts: Artifacts, curves: Sequence[Curve]) -> Table:
    """Returns a table with the first and the last training loss and held-out loss of each dataset in each branch."""
    rows = []
    for curve in sorted(curves, key=lambda curve: (curve.dataset, curve.branch)):
        held_out = [
            line["held_out_by_dataset"][curve.dataset]
            for line in having(artifacts.branches[curve.branch].log, "held_out_loss")
            if curve.dataset in line["held_out_by_dataset"]
        ]
        ends = [curve.losses[0], curve.losses[-1], *((held_out[0], held_out[-1]) if held_out else ())]
        cells = [f"{loss:.3f}" for loss in ends]
        rows.append([curve.dataset, f"branch {curve.branch}", *cells, *[""] * (4 - len(cells))])
    header = ["", "branch", "training loss, first", "last", "held-out loss, first", "last"]
    return Table("Datasets while training", header, rows, words=(1,), folded=True)
