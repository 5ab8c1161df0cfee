"""The outer step of a run's rounds: its options, and the velocity that the round before has left."""

from typing import Any

from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.merging.outer_step import OuterStep
from merit_jax.pipeline.merge_inputs import velocity_leaves
from merit_jax.pipeline.rounds import MergedStart
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir


def outer_step(run: Run) -> OuterStep:
    """Returns the step that follows a run's merge."""
    return OuterStep(run.config.rounds.outer_rate, run.config.rounds.momentum)


def outer_inputs(run: Run, source: Run) -> dict[str, Any]:
    """Returns what a merge records of its outer step, as JSON values; nothing of one that leads to the average itself.

    Args:
        run: The run that merges.
        source: The run with the branches, whose start is that of the step.
    """
    step, before = outer_step(run), _before(source)
    if step.averages:
        return {}
    velocity = fingerprint(read_json(before.merged_sums)["inputs"]) if step.momentum and before else None
    return {"outer": {**step._asdict(), "velocity": velocity}}


def velocity_before(source: Run) -> OrbaxLeaves | None:
    """Opens the velocity of the round before a run with branches; None where there is none, as in the first round.

    Raises:
        ValueError: A file is missing or damaged.
    """
    before = _before(source)
    return None if before is None else velocity_leaves(before)


def _before(source: Run) -> Workdir | None:
    """Returns the workdir of the round before, if it has a velocity."""
    workdir = source.theta0.workdir if isinstance(source.theta0, MergedStart) else None
    return workdir if workdir is not None and "velocity" in read_json(workdir.merged_sums) else None
