"""The training of the branches."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from merit_jax.reporting.blocks import Missing, Part, Section, Table
from merit_jax.reporting.figures import Axis, Figure
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.sections.branch_lines import along, branch_lines
from merit_jax.reporting.sections.dataset_curves import dataset_curves
from merit_jax.reporting.series import Series, plot


def training(artifacts: Artifacts) -> Section:
    """Returns the section with the curves of all branches."""
    return Section("training", "Training", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    if any(branch.log for branch in artifacts.branches):
        yield _curves(artifacts, "loss", "Training loss", "nats per supervised token")
        yield _curves(artifacts, "gradient_norm", "Gradient norm", "norm before clipping")
        yield branch_table(artifacts)
        yield from dataset_curves(artifacts)
    else:
        yield Missing("Training curves of the branches", artifacts.run_command("train"))


def _curves(artifacts: Artifacts, key: str, title: str, unit: str) -> Figure:
    """One quantity of all branches along their own training, and of joint training along its."""
    lines = []
    if artifacts.joint:
        lines.append(Series("joint", *along(artifacts.joint, key), colour="muted", size=0, line=True, dashed=True))
    lines += branch_lines(artifacts, key)
    note = "Steps of joint training are more, as it sees all of the data." if artifacts.joint else ""
    return Figure(f"training_{key}", title, partial(plot, lines, Axis("step"), Axis(unit, low=0)), note)


def branch_table(artifacts: Artifacts) -> Table:
    """Returns a table with steps, tokens, last loss and time of each branch."""
    rows = []
    for index, branch in enumerate(artifacts.branches):
        done, losses = branch.done or {}, [line["loss"] for line in branch.log if "loss" in line]
        rows.append(
            [
                f"branch {index}",
                _steps(done) if done else (str(branch.log[-1]["step"]) if branch.log else "0") + " until now",
                f"{done['tokens']:,}" if done else "",
                f"{losses[-1]:.3f}" if losses else "",
                f"{done['seconds']:.0f}" if done else "",
            ]
        )
    return Table("Branches", ["", "steps", "tokens trained on", "last loss", "seconds"], rows)


def _steps(done: Mapping[str, Any]) -> str:
    """The steps behind a branch's parameters, and those in all where early stopping has kept an earlier state."""
    taken = done.get("steps_taken", done["steps"])
    return f"{done['steps']:,}" + (f" (kept of {taken:,})" if taken > done["steps"] else "")
