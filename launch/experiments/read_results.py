"""Reads the results of a seed's methods from their artifacts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from merit_jax.comparison.results import RunResult
from merit_jax.evaluation.frontier import Point, at_retention
from merit_jax.evaluation.suites import split_suites
from merit_jax.launch.experiments.methods import Comparison
from merit_jax.partition import uses_gradients
from merit_jax.pipeline.estimate_curvature import CURVATURE, uses_curvature
from merit_jax.pipeline.rounds import in_rounds
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import THETA0, Workdir, absolute
from merit_jax.workdir.scores import current_frontier, read_evaluation

SHARED_STAGES = ("gradients", "conflict")
"""Stages that one method of a seed runs for all that use gradients."""


def read_results(config: ConfigDict, workdir: Workdir, comparison: Comparison) -> list[RunResult]:
    """Returns the scores of theta0 and of every method of one seed; no model or data is read.

    Args:
        config: The seed's config.
        workdir: The seed's folder.
        comparison: Its methods.

    Raises:
        ValueError: `evaluation.json` or `frontier.json` was written by a version that kept no scores of single questions.
    """
    evaluation = read_evaluation(workdir)
    frontier = current_frontier(workdir)
    lines = frontier["models"] if frontier else {}
    models = evaluation["models"]
    retained, retention = tuple(config.evaluate.retained), config.frontier.retention
    known = Known(config.seed, evaluation["questions"], retained, retention)
    found = [run_result(known, THETA0, models[THETA0], lines.get(THETA0), 0, 0.0)]
    for spec, task in comparison.merged.items():
        record = read_json(Workdir(task.root, task.root).merge_record)
        trained = record["rounds"]["trained"] if "rounds" in record else [record]
        tokens = sum(sum(entry["tokens"]) for entry in trained)
        found.append(run_result(known, spec, models[spec], lines.get(spec), tokens, training_seconds(comparison, spec)))
    return found


class Known(NamedTuple):
    """The context of all models of a seed.

    Attributes:
        seed: `config.seed`.
        questions: Suite (or dataset) -> ids of its questions, in the order of every model's scores.
        retained: `evaluate.retained`.
        retention: `frontier.retention`.
    """

    seed: int
    questions: Mapping[str, Sequence[str]]
    retained: tuple[str, ...]
    retention: float


def both_halves(line: Mapping[str, Any]) -> list[Point]:
    """Returns a frontier's scores at each scale, the mean of the two halves of the suites.

    Examples:
        >>> both_halves({"points": [[0.5, 0.25, 1.0]], "choosing": [[0.5, 0.75, 0.5]]})
        [Point(scale=0.5, retained=0.5, skill=0.75)]
    """
    halves = zip(line["points"], line["choosing"], strict=True)
    return [Point(*(sum(pair) / 2 for pair in zip(*points, strict=True))) for points in halves]


def run_result(
    known: Known,
    name: str,
    entry: Mapping[str, Any],
    line: Mapping[str, Any] | None,
    tokens: int,
    seconds: float,
) -> RunResult:
    """Joins one model's entries of `evaluation.json` and `frontier.json`; `line` is None for a model without a frontier."""
    sets = entry.get("suites", entry.get("datasets"))
    kept = line["kept"] if line else None
    return RunResult(
        seed=known.seed,
        variant=name,
        scores={suite: score["accuracy"] for suite, score in sets.items()},
        answers=_answers(known, {suite: score["correct"] for suite, score in sets.items()}),
        mean=entry.get("suites_mean", entry.get("mean"))["accuracy"],
        retained=entry.get("retained"),
        skill=entry.get("skill"),
        skill_suites=tuple(split_suites(list(sets), known.retained)[1]) if "suites" in entry else (),
        kept_skill=kept["skill"] if kept else None,
        kept_scale=kept["scale"] if kept else None,
        kept_retained=kept["retained"] if kept else None,
        kept_answers=_answers(known, kept["correct"]) if kept else {},
        points=tuple(tuple(point) for point in line["points"]) if line else (),
        interpolated_skill=at_retention(both_halves(line), known.retention).skill if line else None,
        loss=entry["mean"]["loss"] if "mean" in entry else None,
        mixture_loss=entry.get("mixture_loss"),
        displacement=entry["displacement"],
        tokens=tokens,
        seconds=seconds,
    )


def _answers(known: Known, correct: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Returns suite -> question's id -> score."""
    return {
        suite: {question: float(score) for question, score in zip(known.questions[suite], scores, strict=True)}
        for suite, scores in correct.items()
    }


def training_seconds(comparison: Comparison, spec: str) -> float:
    """Returns the seconds of a method's gradients, if it needs them, and of its branches, one after the other."""
    task = comparison.merged[spec]
    name = comparison.trainer.get(spec)
    root = comparison.trained[name].root if name else absolute(task.config.merge.branches)
    homes = [root, *(root / "rounds").glob("*")]
    seconds = sum(read_json(done)["seconds"] for home in homes for done in (home / "branches").glob("*/done.json"))
    for path in (root / "rounds").glob("*/times.json"):
        times = read_json(path)
        seconds += sum(times.get(stage, 0.0) for stage in SHARED_STAGES)
    config = comparison.trained[name].config if name else None
    if config and _shares_gradients(config):
        seconds += _shared_seconds(comparison, (*SHARED_STAGES, *([CURVATURE] if uses_curvature(config) else [])))
    return seconds


def _shares_gradients(config: ConfigDict) -> bool:
    """Returns whether a training uses the gradients at theta0; one in rounds has its own."""
    return uses_gradients(config.partition.method) and not in_rounds(config)


def _shared_seconds(comparison: Comparison, stages: Sequence[str]) -> float:
    """Returns the seconds of stages whose artifacts the methods of the seed share, whichever ran them."""
    total = 0.0
    for stage in stages:
        times = [read_json(path) for task in comparison.trained.values() if (path := task.root / "times.json").exists()]
        total += max((found.get(stage, 0.0) for found in times), default=0.0)
    return total
