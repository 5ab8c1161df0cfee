"""`evaluation.json`: every model on the datasets' held-out records, on the suites, and on the mixture itself."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax

from merit_jax.core.progress import bar
from merit_jax.core.types import Params
from merit_jax.data.bucketing import calibration_examples
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.evaluator import Evaluator, Suites
from merit_jax.evaluation.scoring import Scores, likelihoods
from merit_jax.evaluation.suites import kinds, load_suites, suite_digests
from merit_jax.pipeline.evaluated_models import EvaluatedModel, evaluated_models
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import is_current, read_json, write_json
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")


def evaluate_models(run: Run, merged: Mapping[str, Workdir] | None = None) -> bool:
    """Scores theta0 and merged models.

    Args:
        run: The run.
        merged: Name -> workdir of each merged model, all on the run's mixture; None: the run's own, as "merged".

    Raises:
        ValueError: Scores of these models on other records are there already, or there is nothing to ask.
    """
    path, sheet = run.workdir.evaluation, _Sheet(run)
    inputs = sheet.inputs
    known = read_json(path)["models"] if is_current(path, inputs, overwrite=run.overwrite) else {}
    models = evaluated_models(run, merged)
    wanted = {name: c for name, c in models.items() if known.get(name, {}).get("inputs") != c.inputs}
    if not wanted:
        return False
    with bar(len(wanted), "evaluate", "model") as progress:
        for name, candidate in wanted.items():
            log.info("evaluating %s", name)
            known[name] = sheet.mark(candidate)
            ordered = {other: known[other] for other in [*models, *(set(known) - set(models))] if other in known}
            run.on_first_process(lambda models=ordered: write_json(path, {"inputs": inputs, "models": models}))
            progress.update()
    return True


def batch_shapes(run: Run) -> BatchShapes:
    """The shapes of `config.evaluate`."""
    cfg = run.config.evaluate
    return BatchShapes(tuple(cfg.buckets), cfg.batch_size, run.place_batch, run.reader, tuple(cfg.image_buckets))


def make_evaluator(run: Run, papers: Suites, *, losses: bool) -> Evaluator:
    """An exam in the shapes of `config.evaluate`."""
    return Evaluator(
        papers,
        run.model,
        run.loss_fn,
        run.tokenizer,
        batch_shapes(run),
        max_length=run.config.mixture.max_length,
        max_new_tokens=run.config.evaluate.max_new_tokens,
        losses=losses,
    )


def suites(run: Run, max_records: int) -> Suites:
    """The suites of `config.evaluate`."""
    return load_suites(run.config.evaluate.suites, max_records=max_records, seed=run.config.seed)


class _Sheet:
    """What every model is asked."""

    def __init__(self, run: Run) -> None:
        self._run, self._cfg = run, run.config.evaluate
        self._held_out = {d.name: d.held_out for d in run.datasets if d.held_out}
        if not self._held_out and not self._cfg.suites:
            raise ValueError(
                "nothing to evaluate on: no dataset of the mixture has held-out records, and evaluate.suites is not set; give "
                "held-out files, `held_out` rows, or suites"
            )

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides the scores besides the models."""
        keys = ("max_new_tokens", "mixture_examples", "max_suite_records", "retained")
        return {
            "text": dict(self._run.text_inputs),
            "max_held_out": self._run.config.mixture.max_held_out,
            "evaluate": {key: list(self._cfg[key]) if key == "retained" else self._cfg[key] for key in keys},
            "datasets": self._run.digests(),
            "suites": suite_digests(self._cfg.suites),
        }

    def mark(self, candidate: EvaluatedModel) -> dict[str, Any]:
        """One model's entry, as JSON values."""
        params = candidate.params(self._run)
        entry: dict[str, Any] = {"inputs": dict(candidate.inputs), "displacement": candidate.displacement}
        if self._held_out:
            scores = self._held_out_exam.evaluate(params)
            entry |= {"mean": _mean(list(scores.values())), "datasets": _plain(scores)}
        if self._cfg.suites:
            scores = self._suites_exam.evaluate(params)
            accuracies = {name: score.accuracy for name, score in scores.items()}
            entry |= {"suites": _plain(scores), "suites_mean": _mean(list(scores.values()))}
            entry |= kinds(accuracies, self._cfg.retained)._asdict()
        if self._cfg.mixture_examples:
            entry["mixture_loss"] = self._mixture_loss(params)
        return entry

    @cached_property
    def _held_out_exam(self) -> Evaluator:
        return make_evaluator(self._run, self._held_out, losses=True)

    @cached_property
    def _suites_exam(self) -> Evaluator:
        return make_evaluator(self._run, suites(self._run, self._cfg.max_suite_records), losses=False)

    @cached_property
    def _loss_fn(self) -> Any:
        return jax.jit(self._run.loss_fn)

    def _mixture_loss(self, params: Params) -> float:
        """Nats per supervised token on some training examples of every dataset."""
        run, count = self._run, self._cfg.mixture_examples
        examples = [e for dataset in run.datasets for e in calibration_examples(dataset, count, run.config.seed)]
        nll, tokens = likelihoods(self._loss_fn, params, examples, batch_shapes(run)).sum(axis=0)
        return float(nll / tokens)


def _mean(scores: Sequence[Scores]) -> dict[str, float]:
    """Means over sets, each counting once."""
    keys = ("loss", "accuracy") if scores[0].loss is not None else ("accuracy",)
    return {key: sum(getattr(s, key) for s in scores) / len(scores) for key in keys}


def _plain(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """JSON values."""
    return {name: score._asdict() for name, score in scores.items()}
