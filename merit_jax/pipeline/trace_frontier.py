"""`frontier.json`: retained score and skill of every model as its task vector is scaled, and the scale that is chosen.

Scales are chosen on one half of every suite and reported on the other, so that no score is the best of several on the records
that it is reported on.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.core import tree
from merit_jax.core.progress import bar
from merit_jax.core.types import Params
from merit_jax.evaluation.frontier import Point, choose_scale
from merit_jax.evaluation.not_finite import names
from merit_jax.evaluation.suites import kinds
from merit_jax.pipeline.evaluate_models import evaluation_inputs
from merit_jax.pipeline.evaluated_models import EvaluatedModel, evaluated_models
from merit_jax.pipeline.evaluators import compared_suites, digests_of_suites, suite_scorer
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import GrowingStage
from merit_jax.workdir.artifact_types import JsonArtifact
from merit_jax.workdir.artifacts import plain, read_inputs
from merit_jax.workdir.paths import THETA0, Workdir
from merit_jax.workdir.scores import read_evaluation

log = logging.getLogger("merit_jax")


class Scaled(NamedTuple):
    """Scores of a model at one scale.

    Attributes:
        choosing: On the choosing half of the suites.
        reporting: On the reporting half.
        correct: Suite -> score of every question of the reporting half.
    """

    choosing: Point
    reporting: Point
    correct: Mapping[str, Sequence[float]]


def trace_frontier(run: Run, merged: Mapping[str, Workdir] | None = None) -> bool:
    """Evaluates the suites at `θ0 + λ (θ − θ0)` for every model and every λ of `config.frontier.scales`, and chooses a λ.

    The chosen λ has the most skill on the choosing half among those that retain the share `frontier.retention` of theta0's
    retained score there; λ = 0 is always among them. A model that lies on another's line (the WiSE control lies on joint
    training's) has the same frontier and is left out.

    Args:
        run: The run.
        merged: As for `evaluate_models`.

    Returns:
        Whether there was a model to scale.

    Raises:
        ValueError: There are no suites of both kinds, a suite is too small to be halved, or a frontier of other models is there
            already.
    """
    return GrowingStage(
        _inputs,
        lambda run, known: _trace(run, _lines(run, merged), dict(known["models"]) if known else {}),
        lambda run: JsonArtifact(run.workdir.frontier),
        name="frontier",
        applies=lambda run: bool(run.config.frontier.scales),
    )(run)


def _inputs(run: Run) -> dict[str, Any]:
    cfg, frontier = run.config.evaluate, run.config.frontier
    if not (cfg.suites and cfg.retained):
        raise ValueError("a frontier needs evaluate.suites, and evaluate.retained to say which of them are old skills")
    if not 0 <= frontier.retention <= 1:
        raise ValueError(f"frontier.retention = {frontier.retention}: expected a share of theta0's score, from 0 to 1")
    return {
        "text": run.text_inputs,
        "suites": digests_of_suites(run),
        "retained": list(cfg.retained),
        "max_new_tokens": cfg.max_new_tokens,
        "max_suite_records": cfg.max_suite_records,
        **compared_suites(run),
        "dtype": run.compute_dtype,
        "frontier": {key: list(value) if key == "scales" else value for key, value in frontier.items()},
    }


def _lines(run: Run, merged: Mapping[str, Workdir] | None) -> dict[str, EvaluatedModel]:
    """Returns theta0 and one model of each line."""
    return {n: m for n, m in evaluated_models(run, merged).items() if m.inputs.get("method") != "interpolate"}


def _trace(run: Run, models: dict[str, EvaluatedModel], known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the frontiers of all models after each one that is traced."""
    wanted = [name for name, model in models.items() if known.get(name, {}).get("inputs") != model.inputs]
    if not wanted:
        return
    tracer = _Tracer(run, models, None if THETA0 in wanted else known[THETA0])
    base = tracer.entry(THETA0, [tracer.theta0]) if THETA0 in wanted else known[THETA0]
    known = {THETA0: base, **{name: entry for name, entry in known.items() if name != THETA0}}
    scaled = [name for name in wanted if name != THETA0]
    with bar(len(scaled), "frontier", "model") as progress:
        for name in scaled:
            log.info("scaling %s", name)
            known[name] = tracer.entry(name, [tracer.theta0, *tracer.scaled(name)])
            yield {"models": known}
            progress.update()
    if not scaled:
        yield {"models": known}


class _Tracer:
    """Scores models at scales on both halves; what `evaluation.json` has of the same models is taken from there.

    Attributes:
        theta0: The scores at λ = 0.
    """

    def __init__(self, run: Run, models: Mapping[str, EvaluatedModel], theta0: Mapping[str, Any] | None) -> None:
        """Takes the scores of theta0 from its entry; None: measures them."""
        self._run, self._models, self._scorer, self._evaluated = (
            run,
            models,
            suite_scorer(run, "reporting"),
            _evaluated(run),
        )
        _check_kinds(self._scorer.records["reporting"], run.config.evaluate.retained)
        if theta0 is not None:
            choosing, reporting = (Point(*theta0[key][0]) for key in ("choosing", "points"))
            self.theta0 = Scaled(choosing, reporting, theta0["kept"]["correct"])
        else:
            self.theta0 = self._measure(THETA0, 0.0, run.params, recorded=True)

    def scaled(self, name: str) -> Iterator[Scaled]:
        """Yields a model's scores at every scale but 0, the smallest first."""
        theta0, params, vector = self._run.params, self._models[name].params(self._run), None
        for scale in sorted({*map(float, self._run.config.frontier.scales)} - {0.0}):
            if scale == 1:
                yield self._measure(name, scale, params, recorded=True)
                continue
            vector = tree.axpy(-1.0, theta0, params) if vector is None else vector
            yield self._measure(name, scale, tree.axpy(scale, vector, theta0), recorded=False)

    def entry(self, name: str, found: Sequence[Scaled]) -> dict[str, Any]:
        """Returns one model's entry, as JSON values, the smallest scale first."""
        found = sorted(found, key=lambda one: one.choosing.scale)
        scale = choose_scale([one.choosing for one in found], self._run.config.frontier.retention)
        (kept,) = (one for one in found if one.choosing.scale == scale)
        return {
            "inputs": dict(self._models[name].inputs),
            "points": [list(one.reporting) for one in found],
            "choosing": [list(one.choosing) for one in found],
            "kept": {
                **kept.reporting._asdict(),
                "correct": {suite: list(scores) for suite, scores in kept.correct.items()},
            },
        }

    def _measure(self, name: str, scale: float, params: Params, *, recorded: bool) -> Scaled:
        """Scores one model at one scale.

        Args:
            name: The model.
            scale: λ.
            params: Of the model at this scale.
            recorded: `evaluation.json` may have these parameters' scores.
        """
        entry = self._evaluated.get(name, {}) if recorded else {}
        known = entry["suites"] if entry.get("inputs") == plain(dict(self._models[name].inputs)) else None
        with names(f"{name} at scale {scale:g} of frontier.scales"):
            scores = self._scorer.score(params, "choosing", *(("reporting",) if known is None else ()))
        plain_scores = {half: {suite: one._asdict() for suite, one in found.items()} for half, found in scores.items()}
        reporting = plain_scores["reporting"] if known is None else known
        correct = {suite: one["correct"] for suite, one in reporting.items()}
        return Scaled(self._point(scale, plain_scores["choosing"]), self._point(scale, reporting), correct)

    def _point(self, scale: float, scores: Mapping[str, Mapping[str, Any]]) -> Point:
        found = kinds({suite: one["accuracy"] for suite, one in scores.items()}, self._run.config.evaluate.retained)
        assert found.retained is not None
        assert found.skill is not None
        return Point(scale, found.retained, found.skill)


def _check_kinds(suites: Collection[str], retained: Sequence[str]) -> None:
    if kinds(dict.fromkeys(suites, 0.0), retained).skill is None:
        raise ValueError("evaluate.retained matches every suite; a frontier needs suites of new skills too")


def _evaluated(run: Run) -> Mapping[str, Any]:
    """Returns the models of `evaluation.json`, if that is there and of the run's own records; else none."""
    path = run.workdir.evaluation
    if not path.exists() or read_inputs(path) != plain(evaluation_inputs(run, "reporting")):
        return {}
    return read_evaluation(run.workdir)["models"]
