"""Evaluators of a run's mixture and of its suites, in the halves that choose and that are reported; shapes of their batches."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax

from merit_jax.core.types import Params
from merit_jax.data.bucketing import calibration_examples
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.evaluator import Evaluator, Suites
from merit_jax.evaluation.not_finite import names
from merit_jax.evaluation.scoring import Scores, likelihoods
from merit_jax.evaluation.suites import Half, draw_records, load_suites, matched, suite_digests
from merit_jax.pipeline.run import Run


def batch_shapes(run: Run) -> BatchShapes:
    """Returns the shapes of `config.evaluate`."""
    cfg = run.config.evaluate
    return BatchShapes(tuple(cfg.buckets), cfg.batch_size, run.place_batch, run.reader, tuple(cfg.image_buckets))


def make_evaluator(run: Run, records: Suites, *, losses: bool, agreement: Collection[str] = ()) -> Evaluator:
    """Returns an evaluator in the shapes of `config.evaluate`; arguments as for `Evaluator`."""
    return Evaluator(
        records,
        run.model,
        run.loss_fn,
        run.tokenizer,
        batch_shapes(run),
        max_length=run.config.mixture.max_length,
        max_new_tokens=run.config.evaluate.max_new_tokens,
        losses=losses,
        agreement=agreement,
    )


def reported_half(run: Run, models: Iterable[Mapping[str, Any]]) -> Half:
    """Returns the part of each suite on which scores are reported: all of it unless a half chooses scales or weights.

    Args:
        run: The run.
        models: What each of its models was made from.
    """
    searched = any("suites" in model.get("search", {}) for model in models)
    return "reporting" if run.config.frontier.scales or searched else "all"


def compared_suites(run: Run) -> dict[str, list[str]]:
    """Returns `evaluate.agreement` as an input of an artifact; nothing where it is empty, as earlier versions scored."""
    return {"agreement": list(run.config.evaluate.agreement)} if run.config.evaluate.agreement else {}


def digests_of_suites(run: Run) -> dict[str, str]:
    """Returns suite -> digest of its files, with its images for a vision-language model."""
    return suite_digests(run.config.evaluate.suites, run.workdir.token_cache if run.reader is not None else None)


class SuiteScorer:
    """The suites of a run, and one compiled evaluator for all of their halves.

    Attributes:
        records: Half -> suite -> its records: of all, or of the reporting and the choosing half.
    """

    def __init__(self, run: Run, half: Half) -> None:
        """Takes the half that is reported."""
        cfg = run.config
        suites = load_suites(cfg.evaluate.suites)
        compared = matched(list(suites), cfg.evaluate.agreement, "evaluate.agreement")
        limits: dict[Half, int] = {half: cfg.evaluate.max_suite_records}
        if half == "reporting":
            limits["choosing"] = cfg.frontier.max_records
        self.records: dict[Half, Suites] = {
            part: draw_records(suites, part, max_records=limit, seed=cfg.seed) for part, limit in limits.items()
        }
        self._evaluator = make_evaluator(
            run,
            {_name(part, suite): records for part, found in self.records.items() for suite, records in found.items()},
            losses=False,
            agreement={_name(part, suite) for part in self.records for suite in compared},
        )

    def score(self, params: Params, *halves: Half) -> dict[Half, dict[str, Scores]]:
        """Computes one model's scores: half -> suite -> scores; several halves share batches.

        Raises:
            NotFiniteError: A score is NaN or infinite; suite and record are named.
        """
        wanted = {half: {suite: _name(half, suite) for suite in self.records[half]} for half in halves}
        found = self._evaluator.evaluate(params, {name for names in wanted.values() for name in names.values()})
        return {half: {suite: found[name] for suite, name in names.items()} for half, names in wanted.items()}


def _name(half: Half, suite: str) -> str:
    """A half of a suite, also in messages."""
    return f"suite {suite!r}" if half == "all" else f"suite {suite!r} ({half} half)"


def suite_scorer(run: Run, half: Half) -> SuiteScorer:
    """Returns the scorer of a run's suites of which a half is reported, compiled once for all stages."""
    cfg = run.config
    depends_on = {
        **{section: cfg[section].to_dict() for section in ("evaluate", "frontier", "loss")},
        "seed": cfg.seed,
        "max_length": cfg.mixture.max_length,
        "suites": digests_of_suites(run),
        "half": half,
    }
    return run.shared.once("suite_scorer", depends_on, lambda: SuiteScorer(run, half), kept=1)


class MixtureLoss:
    """The loss on training examples, `evaluate.mixture_examples` of every dataset, compiled once for all models."""

    def __init__(self, run: Run) -> None:
        count = run.config.evaluate.mixture_examples
        self._examples = [(d.name, e) for d in run.datasets for e in calibration_examples(d, count, run.config.seed)]
        self._loss_fn, self._shapes = jax.jit(run.loss_fn), batch_shapes(run)

    def __call__(self, params: Params) -> float:
        """Computes nats per supervised token.

        Datasets weigh by the tokens of these examples, not by their share of the mixture.

        Raises:
            NotFiniteError: The loss of an example is NaN or infinite; its dataset is named.
        """
        with names(lambda place: f"dataset {self._examples[place][0]!r}, a training example"):
            found = likelihoods(self._loss_fn, params, [example for _, example in self._examples], self._shapes)
        nll, tokens = found.sum(axis=0)
        return float(nll / tokens)
