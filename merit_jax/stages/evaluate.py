"""`evaluation.json`: every model on every dataset's held-out records."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from merit_jax.data.batching import bucketed_batches
from merit_jax.data.chat import encode, encode_prompt
from merit_jax.evaluate.inference import Inference
from merit_jax.evaluate.questions import multiple_choice, normalised, stop_tokens
from merit_jax.evaluate.scores import DatasetScores, completions, mean_loss, option_choices
from merit_jax.merge.leaves import OrbaxLeaves
from merit_jax.progress import bar
from merit_jax.run import Run
from merit_jax.types import Batch, Example, LeafReader, Params, Record
from merit_jax.workdir import Workdir, is_current, read_json, write_json

log = logging.getLogger("merit_jax")


class Candidate(NamedTuple):
    """A model to evaluate.

    Attributes:
        leaves: Reads its parameters.
        inputs: What it was made from, as JSON values.
    """

    leaves: Callable[[], LeafReader]
    inputs: Mapping[str, Any]


def evaluate(run: Run, baselines: Mapping[str, Workdir] | None = None) -> None:
    """Scores theta0 ("base"), this run's merged model ("merged") and the merged models of other workdirs.

    Args:
        run: The run.
        baselines: Name -> workdir of a finished run on the same mixture.

    Raises:
        ValueError: Scores of these models on other held-out records are there already.
    """
    path = run.workdir.evaluation
    inputs = _inputs(run)
    known = read_json(path)["models"] if is_current(path, inputs, overwrite=run.overwrite) else {}
    candidates = _candidates(run, baselines or {})
    wanted = {name: c for name, c in candidates.items() if known.get(name, {}).get("inputs") != c.inputs}
    if not wanted:
        return
    exam = _Exam(run)
    for name, candidate in wanted.items():
        log.info("evaluating %s", name)
        params = run.params if name == "base" else run.place(candidate.leaves())
        scores = exam.take(params, name)
        known[name] = {"inputs": dict(candidate.inputs), "mean": _mean(list(scores.values())), "datasets": scores}
        ordered = {other: known[other] for other in [*candidates, *(set(known) - set(candidates))] if other in known}
        run.on_first_process(lambda models=ordered: write_json(path, {"inputs": inputs, "models": _plain(models)}))


def _inputs(run: Run) -> dict[str, Any]:
    return {
        "text": dict(run.text_inputs),
        "max_held_out": run.config.mixture.max_held_out,
        "max_new_tokens": run.config.evaluate.max_new_tokens,
        "datasets": run.digests(),
    }


def _candidates(run: Run, baselines: Mapping[str, Workdir]) -> dict[str, Candidate]:
    """Models by name: base, the baselines, merged."""
    base = Candidate(run.theta0.leaves, {"theta0": run.theta0_fingerprint})
    merged = {**baselines, "merged": run.workdir}
    finished = {
        name: Candidate(lambda w=workdir: OrbaxLeaves(w.merged_params), read_json(workdir.merge_record)["inputs"])
        for name, workdir in merged.items()
    }
    return {"base": base, **finished}


def _mean(scores: Sequence[DatasetScores]) -> dict[str, float]:
    """Means over datasets, each dataset counting once."""
    return {key: sum(getattr(s, key) for s in scores) / len(scores) for key in ("loss", "accuracy")}


def _plain(models: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values."""

    def plain(scores: Any) -> Any:
        return scores._asdict() if isinstance(scores, DatasetScores) else scores

    return {
        name: {**model, "datasets": {dataset: plain(scores) for dataset, scores in model["datasets"].items()}}
        for name, model in models.items()
    }


class _Exam:
    """The held-out records as token ids, and the compiled functions that ask them."""

    def __init__(self, run: Run) -> None:
        self._run, self._cfg = run, run.config.evaluate
        self._loss_fn = jax.jit(run.loss_fn)
        self._inference = Inference(
            run.model,
            room=self._cfg.max_new_tokens,
            stop=stop_tokens(run.tokenizer),
            place=run.place_batch,
        )
        self._records = {d.name: d.held_out for d in run.datasets if d.held_out}
        if not self._records:
            raise ValueError("no dataset of the mixture has held-out records; give held-out files or `held_out` rows")

    def take(self, params: Params, name: str) -> dict[str, DatasetScores]:
        """Scores of one model, by dataset."""
        scores = {}
        with bar(len(self._records), f"evaluate {name}", "dataset") as progress:
            for dataset, records in self._records.items():
                scores[dataset] = self._dataset(params, records)
                progress.update()
        return scores

    def _dataset(self, params: Params, records: Sequence[Record]) -> DatasetScores:
        loss, tokens = mean_loss(self._loss_fn, params, self._batches(records))
        choice = [record for record in records if record.options]
        right = self._choose(params, choice) if choice else self._answer(params, records)
        asked = len(choice) or len(records)
        return DatasetScores(loss, tokens, right / asked, asked, "options" if choice else "exact_match")

    def _batches(self, records: Sequence[Record]) -> Sequence[Batch]:
        examples: list[Example] = [
            encode(self._run.tokenizer, r.messages, self._run.config.mixture.max_length, where=r.where)[0]
            for r in records
        ]
        batches = bucketed_batches(examples, buckets=self._cfg.buckets, batch_size=self._cfg.batch_size)
        return [self._run.place_batch(batch) for _, batch in batches]

    def _choose(self, params: Params, records: Sequence[Record]) -> int:
        """Multiple-choice records whose best option is the right one."""
        questions = [multiple_choice(self._run.tokenizer, record) for record in records]
        choices = option_choices(self._inference, params, questions, self._cfg.buckets, self._cfg.batch_size)
        return sum(choice == question.answer for choice, question in zip(choices, questions, strict=True))

    def _answer(self, params: Params, records: Sequence[Record]) -> int:
        """Open records whose greedy response is the right one."""
        tokenizer = self._run.tokenizer
        prompts = [encode_prompt(tokenizer, record.messages[:-1], where=record.where) for record in records]
        written = completions(self._inference, params, prompts, self._cfg.buckets, self._cfg.batch_size)
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
        return sum(
            normalised(text) == normalised(record.messages[-1]["content"])
            for text, record in zip(texts, records, strict=True)
        )
