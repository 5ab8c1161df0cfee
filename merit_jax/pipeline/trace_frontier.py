"""`frontier.json`: what every model retains and has learnt, as its task vector is scaled."""

import logging
from collections.abc import Mapping
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
from merit_jax.workdir.artifacts import is_current, read_json, write_json
from merit_jax.workdir.paths import THETA0, Workdir

log = logging.getLogger("merit_jax")


def trace_frontier(run: Run, merged: Mapping[str, Workdir] | None = None) -> bool:
    """Asks the suites of `θ0 + λ (θ − θ0)` for every model and every λ of `config.frontier.scales`.

    A model that lies on another's line (the WiSE control lies on joint training's) has the same frontier and is left out.

    Raises:
        ValueError: There are no suites of both kinds, or a frontier of other models is there already.
    """
    cfg = run.config.frontier
    if not cfg.scales:
        return False
    if not (run.config.evaluate.suites and run.config.evaluate.retained):
        raise ValueError("a frontier needs evaluate.suites, and evaluate.retained to say which of them are old skills")
    path, inputs = run.workdir.frontier, _inputs(run)
    known = read_json(path)["models"] if is_current(path, inputs, overwrite=run.overwrite) else {}
    models = {n: c for n, c in evaluated_models(run, merged).items() if c.inputs.get("method") != "interpolate"}
    wanted = {name: c for name, c in models.items() if known.get(name, {}).get("inputs") != c.inputs}
    if not wanted:
        return False
    asked = make_evaluator(run, suites(run, cfg.max_records), losses=False)
    base = known[THETA0]["points"][0] if THETA0 in known else _ask(run, asked, run.params, 0.0)
    known[THETA0] = {"inputs": dict(models.pop(THETA0).inputs), "points": [base], "skill": base[2]}
    with bar(len(wanted) - (THETA0 in wanted), "frontier", "model") as progress:
        for name in [name for name in models if name in wanted]:
            log.info("scaling %s", name)
            known[name] = _line(run, asked, models[name], Point(*base))
            content = {"inputs": inputs, "models": known}
            run.on_first_process(lambda content=content: write_json(path, content))
            progress.update()
    return True


def _inputs(run: Run) -> dict[str, Any]:
    return {
        "text": dict(run.text_inputs),
        "suites": suite_digests(run.config.evaluate.suites),
        "retained": list(run.config.evaluate.retained),
        "max_new_tokens": run.config.evaluate.max_new_tokens,
        "frontier": {key: list(value) if key == "scales" else value for key, value in run.config.frontier.items()},
    }


def _line(run: Run, asked: Evaluator, candidate: EvaluatedModel, base: Point) -> dict[str, Any]:
    """One model's frontier, as JSON values."""
    params, cfg = candidate.params(run), run.config.frontier
    vector = tree.axpy(-1.0, run.params, params)
    points = [base, *(_ask(run, asked, tree.axpy(scale, vector, run.params), scale) for scale in cfg.scales)]
    skill = skill_at(points, cfg.retention * base.retained)
    return {"inputs": dict(candidate.inputs), "points": [list(point) for point in points], "skill": skill}


def _ask(run: Run, asked: Evaluator, params: Params, scale: float) -> Point:
    accuracies = {name: scores.accuracy for name, scores in asked.evaluate(params).items()}
    found = kinds(accuracies, run.config.evaluate.retained)
    assert found.retained is not None
    if found.skill is None:
        raise ValueError("evaluate.retained matches every suite; a frontier needs suites of new skills too")
    return Point(float(scale), found.retained, found.skill)
