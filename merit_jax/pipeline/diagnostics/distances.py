"""Diagnostics of parameters and gradients alone, without any loss evaluation."""

from collections.abc import Iterator, Mapping
from typing import Any

from merit_jax.diagnostics.displacement import Displacement, Trajectory, displacement
from merit_jax.diagnostics.gradient_norms import gradient_norms
from merit_jax.gradients.store import GradientStore
from merit_jax.pipeline.calibration import example_digests
from merit_jax.pipeline.diagnostics.models import Trained, trained
from merit_jax.pipeline.diagnostics.task import DiagnosticTask, NotPossible, Tick
from merit_jax.pipeline.estimate_gradients import stored_gradients
from merit_jax.pipeline.run import Run
from merit_jax.training.metrics_log import read_metrics
from merit_jax.workdir.artifacts import read_json


def displacement_task(run: Run) -> DiagnosticTask:
    """Measures distances from theta0 and between task vectors; along training where the logs have them."""
    found = trained(run)

    def measure(tick: Tick) -> Displacement:
        result = displacement(run.theta0.leaves(), found.branches, found.weights, found.merged, found.joint)
        return result._replace(trajectories=tuple(_trajectories(found)))

    return DiagnosticTask({"theta0": run.theta0_fingerprint, **found.inputs}, (), measure)


def _trajectories(found: Trained) -> Iterator[Trajectory]:
    """Yields the displacement along training, from the logs of the branches and of joint training."""
    for name, home in found.homes.items():
        lines = [line for line in read_metrics(home / "metrics.jsonl") if "displacement" in line]
        if lines:
            done = read_json(home / "done.json")
            steps = [line["step"] for line in lines]
            passes = done["inputs"]["train"]["epochs"] / done.get("steps_planned", done["steps"])
            yield Trajectory(name, steps, [step * passes for step in steps], [line["displacement"] for line in lines])


def gradient_norms_task(run: Run) -> DiagnosticTask:
    """Compares the norms of the stored gradients."""
    index = all_gradients(run)
    return DiagnosticTask(
        {"gradients": index["inputs"], "datasets": example_digests(run)},
        (),
        lambda tick: gradient_norms(run.names, GradientStore(run.workdir.gradients).norms(run.names).tolist()),
    )


def all_gradients(run: Run) -> Mapping[str, Any]:
    """Returns the index of the gradient store, which has every dataset.

    Raises:
        NotPossible: It lacks some.
    """
    index = stored_gradients(run)
    missing = [name for name in run.names if name not in index["datasets"]]
    if missing:
        raise NotPossible(
            f"the gradients of {len(missing)} of {len(run.names)} datasets are missing ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}): run merit run --stages=gradients"
        )
    return index
