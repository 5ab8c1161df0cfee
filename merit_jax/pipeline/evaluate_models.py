"""`evaluation.json`: every model on the datasets' held-out records, on the suites, and on the mixture itself."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from etils import epath

from merit_jax.core.progress import bar
from merit_jax.data.elsewhere import ELSEWHERE, elsewhere_inputs
from merit_jax.evaluation.evaluator import Suites
from merit_jax.evaluation.not_finite import names
from merit_jax.evaluation.questions import question_ids
from merit_jax.evaluation.scoring import Scores
from merit_jax.evaluation.suites import Half, kinds
from merit_jax.pipeline.evaluated_models import EvaluatedModel, evaluated_models
from merit_jax.pipeline.evaluators import (
    MixtureLoss,
    compared_suites,
    digests_of_suites,
    make_evaluator,
    reported_half,
    suite_scorer,
)
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import GrowingStage
from merit_jax.workdir.artifact_types import JsonArtifact
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")


def evaluate_models(run: Run, merged: Mapping[str, Workdir] | None = None) -> bool:
    """Scores theta0 and merged models.

    Args:
        run: The run.
        merged: Name -> workdir of each merged model, all on the run's mixture; None: the run's own, as "merged".

    Returns:
        Whether there was a model to score.

    Raises:
        ValueError: Scores of these models on other records are there already, or there is nothing to score on.
    """
    return evaluate(run, lambda: evaluated_models(run, merged))


def evaluate(
    run: Run,
    find: Callable[[], dict[str, EvaluatedModel]],
    path: epath.Path | None = None,
    name: str = "evaluate",
) -> bool:
    """Scores models that a function finds, by name; returns and raises as `evaluate_models`.

    Args:
        run: The run.
        find: Returns the models.
        path: The file of their scores; None: the run's `evaluation.json`.
        name: Key of the seconds in `times.json`.
    """
    models = cache(find)
    half = cache(lambda: reported_half(run, [model.inputs for model in models().values()]))
    return GrowingStage(
        lambda run: evaluation_inputs(run, half()),
        lambda run, known: _evaluate(run, models(), half(), known["models"] if known else {}),
        lambda run: JsonArtifact(run.workdir.evaluation if path is None else path),
        name=name,
    )(run)


def evaluation_inputs(run: Run, half: Half) -> dict[str, Any]:
    """Returns everything that decides the scores except the models.

    Args:
        run: The run.
        half: The part of each suite that is reported.

    Raises:
        ValueError: There is nothing to score on.
    """
    cfg = run.config.evaluate
    if not has_records(run):
        raise ValueError(
            "nothing to evaluate on: no dataset of the mixture has held-out records, and evaluate.suites is not set; give "
            "held-out files, `held_out` rows, or suites"
        )
    images = {d.name: d.report.held_out_images for d in run.datasets if d.report.held_out_images}
    keys = ("max_new_tokens", "mixture_examples", "max_suite_records", "retained")
    return {
        "text": run.text_inputs,
        "max_held_out": run.config.mixture.max_held_out,
        "evaluate": {key: list(cfg[key]) if key == "retained" else cfg[key] for key in keys} | compared_suites(run),
        "datasets": run.digests(),
        **elsewhere_inputs(run.datasets),
        **({"images": images} if images else {}),
        "suites": digests_of_suites(run),
        "half": half,
        "dtype": run.compute_dtype,
    }


def _evaluate(
    run: Run, models: Mapping[str, EvaluatedModel], half: Half, known: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yields the entries of all models after each one that is scored."""
    wanted = {name: model for name, model in models.items() if known.get(name, {}).get("inputs") != model.inputs}
    if not wanted:
        return
    scorers = _Scorers(run, half)
    with bar(len(wanted), "evaluate", "model") as progress:
        for name, model in wanted.items():
            log.info("evaluating %s", name)
            with names(name):
                known = {**known, name: scorers.score(model)}
            order = dict.fromkeys([*models, *known])
            yield {"questions": scorers.questions, "models": {other: known[other] for other in order if other in known}}
            progress.update()


def has_records(run: Run) -> bool:
    """Returns whether there are suites, or held-out records of a dataset, to score models on."""
    return bool(run.config.evaluate.suites or _held_out(run))


def _held_out(run: Run) -> Suites:
    """The held-out records of datasets that are here."""
    return {dataset.name: dataset.held_out for dataset in run.datasets if dataset.held_out}


class _Scorers:
    """The evaluators of a run, compiled once for all models."""

    def __init__(self, run: Run, half: Half) -> None:
        self._run, self._cfg, self._half = run, run.config.evaluate, half
        self._mixture_loss = MixtureLoss(run) if self._cfg.mixture_examples else None
        held_out = _held_out(run)
        if away := elsewhere_inputs(run.datasets):
            log.warning("held-out records of %s are elsewhere, and are not evaluated here", ", ".join(away[ELSEWHERE]))
        self._held_out = make_evaluator(run, held_out, losses=True) if held_out else None
        self._suites = suite_scorer(run, half) if self._cfg.suites else None
        self.questions = _questions(held_out, self._suites.records[half] if self._suites else {})

    def score(self, model: EvaluatedModel) -> dict[str, Any]:
        """Returns one model's entry, as JSON values.

        Raises:
            NotFiniteError: A loss or score is NaN or infinite; the set and the record are named.
        """
        params = model.params(self._run)
        entry: dict[str, Any] = {"inputs": dict(model.inputs), "displacement": model.distance(self._run)}
        if self._held_out:
            scores = self._held_out.evaluate(params)
            entry |= {"mean": _mean(list(scores.values())), "datasets": _plain(scores)}
        if self._suites:
            scores = self._suites.score(params, self._half)[self._half]
            accuracies = {name: score.accuracy for name, score in scores.items()}
            entry |= {"suites": _plain(scores), "suites_mean": _mean(list(scores.values()))}
            entry |= kinds(accuracies, self._cfg.retained)._asdict()
        if self._mixture_loss:
            entry["mixture_loss"] = self._mixture_loss(params)
        return entry


def _questions(held_out: Suites, suites: Suites) -> dict[str, list[str]]:
    """Returns set -> ids of its questions.

    Raises:
        ValueError: A suite and a dataset with other held-out records have one name.
    """
    found = {name: question_ids(records) for name, records in suites.items()}
    for name, records in held_out.items():
        ids = question_ids(records)
        if found.setdefault(name, ids) != ids:
            raise ValueError(
                f"evaluate.suites has a suite {name!r} with other records than the held-out ones of the dataset of that name; "
                "rename the suite"
            )
    return found


def _mean(scores: Sequence[Scores]) -> dict[str, float]:
    """Returns means over sets, each counting once; of the loss, where every set has one."""
    keys = ("loss", "accuracy") if all(score.loss is not None for score in scores) else ("accuracy",)
    return {key: sum(getattr(s, key) for s in scores) / len(scores) for key in keys}


def _plain(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Returns scores as JSON values."""
    return {name: score._asdict() for name, score in scores.items()}
