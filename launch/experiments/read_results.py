"""Reads the results of a seed's methods from their artifacts."""

from collections.abc import Mapping
from typing import Any

from launch.experiments.methods import Comparison
from merit_jax.comparison.results import RunResult
from merit_jax.partition import uses_gradients
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import THETA0, Workdir, absolute
from merit_jax.workdir.scores import read_evaluation, read_frontier

SHARED_STAGES = ("gradients", "conflict")
"""Stages that one method of a seed runs for all that use gradients."""


def read_results(run: Run, comparison: Comparison) -> list[RunResult]:
    """Returns the scores of theta0 and of every method of one seed."""
    models = read_evaluation(run.workdir)["models"]
    lines = read_frontier(run.workdir)["models"] if run.workdir.frontier.exists() else {}
    found = [run_result(run.config.seed, THETA0, models[THETA0], lines.get(THETA0), 0, 0.0)]
    for spec, task in comparison.merged.items():
        tokens = sum(read_json(Workdir(task.root, task.root).merge_record)["tokens"])
        seconds = training_seconds(comparison, spec)
        found.append(run_result(run.config.seed, spec, models[spec], lines.get(spec), tokens, seconds))
    return found


def run_result(
    seed: int, name: str, entry: Mapping[str, Any], line: Mapping[str, Any] | None, tokens: int, seconds: float
) -> RunResult:
    """Joins one model's entries of `evaluation.json` and `frontier.json`."""
    scores = {suite: score["accuracy"] for suite, score in entry.get("suites", entry.get("datasets")).items()}
    return RunResult(
        seed=seed,
        variant=name,
        scores=scores,
        mean=entry.get("suites_mean", entry.get("mean"))["accuracy"],
        retained=entry.get("retained"),
        skill=entry.get("skill"),
        kept_skill=line["kept"]["skill"] if line else None,
        points=tuple(tuple(point) for point in line["points"]) if line else (),
        loss=entry["mean"]["loss"] if "mean" in entry else None,
        mixture_loss=entry.get("mixture_loss"),
        displacement=entry["displacement"],
        tokens=tokens,
        seconds=seconds,
    )


def training_seconds(comparison: Comparison, spec: str) -> float:
    """Returns the seconds of a method's gradients, if it needs them, and of its branches, one after the other."""
    task = comparison.merged[spec]
    name = comparison.trainer.get(spec)
    root = comparison.trained[name].root if name else absolute(task.config.merge.branches)
    seconds = sum(read_json(done)["seconds"] for done in (root / "branches").glob("*/done.json"))
    if name and uses_gradients(comparison.trained[name].config.partition.method):
        seconds += _shared_seconds(comparison)
    return seconds


def _shared_seconds(comparison: Comparison) -> float:
    """Returns the seconds of the stages that all methods of the seed share, whichever ran them."""
    total = 0.0
    for stage in SHARED_STAGES:
        times = [read_json(path) for task in comparison.trained.values() if (path := task.root / "times.json").exists()]
        total += max((found.get(stage, 0.0) for found in times), default=0.0)
    return total
