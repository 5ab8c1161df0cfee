"""`diagnostics/NAME.json`: the result of each diagnostic, from a finished or half-finished run."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from merit_jax.core.progress import bar
from merit_jax.core.registry import lookup
from merit_jax.pipeline.diagnostics.distances import displacement_task, gradient_norms_task
from merit_jax.pipeline.diagnostics.gradient_estimates import calibration_task, sketch_task
from merit_jax.pipeline.diagnostics.hessian import curvature_task, gain_task, split_gain_task
from merit_jax.pipeline.diagnostics.loss_landscape import connectivity_task, perturbation_task, surface_task
from merit_jax.pipeline.diagnostics.task import DiagnosticTask, NotPossible, as_json
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage
from merit_jax.workdir.artifact_types import JsonArtifact

log = logging.getLogger("merit_jax")

DIAGNOSTICS: dict[str, Callable[[Run], DiagnosticTask]] = {
    "gradient_norms": gradient_norms_task,  # how alike the datasets' gradient norms are
    "displacement": displacement_task,  # how far from theta0, in which directions
    "calibration": calibration_task,  # how many examples a dataset's gradient needs
    "sketch": sketch_task,  # whether the entries that are kept say what all would
    "split_gain": split_gain_task,  # what the split should gain, before any training
    "connectivity": connectivity_task,  # the loss between branches and merged model
    "perturbation": perturbation_task,  # how flat the loss is around merged and joint
    "gain": gain_task,  # what the merge gained, and should have
    "surface": surface_task,  # the loss on a plane through theta0, branches and merged model
    "curvature": curvature_task,  # whether datasets disagree where the loss curves
}


class DiagnosticsReport(NamedTuple):
    """Names of the diagnostics by their outcome.

    Attributes:
        measured: Those that were made now.
        current: Those that were there already.
        impossible: Name -> what the run lacks for it.
    """

    measured: tuple[str, ...]
    current: tuple[str, ...]
    impossible: dict[str, str]


def run_diagnostics(run: Run, only: Sequence[str] = (), *, strict: bool = True) -> DiagnosticsReport:
    """Measures the diagnostics that are not measured yet.

    Args:
        run: The run; it may be half-finished.
        only: Names of diagnostics; empty: all that the run has enough for.
        strict: Refuses a diagnostic that is named and not possible.

    Raises:
        ValueError: A name is unknown, a named diagnostic is not possible, or one was made from other inputs.
    """
    for name in only:
        lookup(DIAGNOSTICS, name, "diagnostic")
    tasks, impossible = _plan(run, [name for name in DIAGNOSTICS if not only or name in only])
    if strict and only and impossible:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in impossible.items()))
    for name, reason in impossible.items():
        log.warning("%s is not possible yet: %s", name, reason)
    stages = {name: _stage(name, task) for name, task in tasks.items()}
    current = [name for name, stage in stages.items() if stage.is_current(run)]
    wanted = [name for name in stages if name not in current]
    for name in wanted:
        stages[name](run)
    return DiagnosticsReport(tuple(wanted), tuple(current), impossible)


def _plan(run: Run, names: Sequence[str]) -> tuple[dict[str, DiagnosticTask], dict[str, str]]:
    """Returns (tasks, why the rest is not possible)."""
    tasks, impossible = {}, {}
    for name in names:
        try:
            tasks[name] = DIAGNOSTICS[name](run)
        except NotPossible as error:
            impossible[name] = str(error)
    return tasks, impossible


def _stage(name: str, task: DiagnosticTask) -> Stage:
    return Stage(
        lambda run: task.inputs,
        lambda run: _measure(name, task),
        lambda run: JsonArtifact(run.workdir.diagnostic(name)),
    )


def _measure(name: str, task: DiagnosticTask) -> dict[str, Any]:
    """Logs the cost of a diagnostic, measures it, and returns its result with the seconds it took."""
    log.info("%s: %s", name, task.cost)
    began = time.monotonic()
    with bar(task.examples, name, "example") as progress:
        result = task.measure(progress.update)
    seconds = round(time.monotonic() - began, 2)
    log.info("%s took %.1f s", name, seconds)
    return {"result": as_json(result), "seconds": seconds}
