"""`frontier.json`: retained score and skill of every model as its task vector is scaled."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from merit_jax.core import tree
from merit_jax.core.progress import bar
from merit_jax.core.types import Params
from merit_jax.evaluation.evaluator import Evaluator
from merit_jax.evaluation.frontier import Point, skill_at
from merit_jax.evaluation.suites import kinds, suite_digests
from merit_jax.pipeline.evaluate_models import make_evaluator, suites
from merit_jax.pipeline.evaluated_models import EvaluatedModel, evaluated_models
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import GrowingStage
from merit_jax.workdir.artifact_types import JsonArtifact
from merit_jax.workdir.paths import THETA0, Workdir

log = logging.getLogger("merit_jax")


def trace_frontier(run: Run, merged: Mapping[str, Workdir] | None = None) -> bool:
    """Evaluates the suites at `θ0 + λ (θ − θ0)` for every model and every λ of `config.frontier.scales`.

    A model that lies on another's line (the WiSE control lies on joint training's) has the same frontier and is left out.

    Args:
        run: The run.
        merged: As for `evaluate_models`.

    Returns:
        Whether there was a model to scale.

    Raises:
        ValueError: There are no suites of both kinds, or a frontier of other models is there already.
    """
    return GrowingStage(
        _inputs,
        lambda run, known: _trace(run, _lines(run, merged), dict(known["models"]) if known else {}),
        lambda run: JsonArtifact(run.workdir.frontier),
        name="frontier",
        applies=lambda run: bool(run.config.frontier.scales),
    )(run)


def _inputs(run: Run) -> dict[str, Any]:
    cfg = run.config.evaluate
    if not (cfg.suites and cfg.retained):
        raise ValueError("a frontier needs evaluate.suites, and evaluate.retained to say which of them are old skills")
    return {
        "text": run.text_inputs,
        "suites": suite_digests(cfg.suites),
        "retained": list(cfg.retained),
        "max_new_tokens": cfg.max_new_tokens,
        "frontier": {key: list(value) if key == "scales" else value for key, value in run.config.frontier.items()},
    }


def _lines(run: Run, merged: Mapping[str, Workdir] | None) -> dict[str, EvaluatedModel]:
    """Returns theta0 and one model of each line."""
    return {n: m for n, m in evaluated_models(run, merged).items() if m.inputs.get("method") != "interpolate"}


def _trace(run: Run, models: dict[str, EvaluatedModel], known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the frontiers of all models after each one that is traced."""
    wanted = [name for name, model in models.items() if known.get(name, {}).get("inputs") != model.inputs]
    if not wanted:
        return
    evaluator = make_evaluator(run, suites(run, run.config.frontier.max_records), losses=False)
    base = _point(run, evaluator, run.params, 0.0) if THETA0 in wanted else known[THETA0]["points"][0]
    known[THETA0] = {"inputs": dict(models[THETA0].inputs), "points": [base], "skill": base[2]}
    scaled = [name for name in wanted if name != THETA0]
    with bar(len(scaled), "frontier", "model") as progress:
        for name in scaled:
            log.info("scaling %s", name)
            known[name] = _line(run, evaluator, models[name], Point(*base))
            yield {"models": known}
            progress.update()


def _line(run: Run, evaluator: Evaluator, model: EvaluatedModel, base: Point) -> dict[str, Any]:
    """Returns one model's frontier, as JSON values."""
    params, cfg = model.params(run), run.config.frontier
    vector = tree.axpy(-1.0, run.params, params)
    points = [base, *(_point(run, evaluator, tree.axpy(scale, vector, run.params), scale) for scale in cfg.scales)]
    skill = skill_at(points, cfg.retention * base.retained)
    return {"inputs": dict(model.inputs), "points": [list(point) for point in points], "skill": skill}


def _point(run: Run, evaluator: Evaluator, params: Params, scale: float) -> Point:
    accuracies = {name: scores.accuracy for name, scores in evaluator.evaluate(params).items()}
    found = kinds(accuracies, run.config.evaluate.retained)
    assert found.retained is not None
    if found.skill is None:
        raise ValueError("evaluate.retained matches every suite; a frontier needs suites of new skills too")
    return Point(float(scale), found.retained, found.skill)
