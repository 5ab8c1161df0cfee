"""`evaluation.json`: every model on every dataset's held-out records."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from merit_jax.data.batching import bucketed_batches
from merit_jax.data.chat import encode, encode_prompt
from merit_jax.evaluate.inference import Inference
from merit_jax.evaluate.questions import Question, multiple_choice, normalised, stop_tokens
from merit_jax.evaluate.scores import DatasetScores, completions, mean_loss, option_choices
from merit_jax.merge.leaves import OrbaxLeaves
from merit_jax.progress import bar
from merit_jax.run import Run
from merit_jax.types import Batch, LeafReader, Params, Record
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


def evaluate(run: Run, baselines: Mapping[str, Workdir] | None = None) -> bool:
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
        return False
    exam = _Exam(run)
    for name, candidate in wanted.items():
        log.info("evaluating %s", name)
        params = run.params if name == "base" else run.place(candidate.leaves())
        scores = exam.take(params, name)
        known[name] = {"inputs": dict(candidate.inputs), "mean": _mean(list(scores.values())), "datasets": scores}
        ordered = {other: known[other] for other in [*candidates, *(set(known) - set(candidates))] if other in known}
        run.on_first_process(lambda models=ordered: write_json(path, {"inputs": inputs, "models": _plain(models)}))
    return True


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


class _Paper(NamedTuple):
    """The held-out records of one dataset as token ids.

    Attributes:
        batches: Whole conversations, for the loss.
        questions: Multiple-choice records; where there are none, `prompts` are asked.
        prompts: What generation sees of every record.
        answers: The right responses.
    """

    batches: list[Batch]
    questions: list[Question]
    prompts: list[np.ndarray]
    answers: list[str]


class _Exam:
    """All datasets' papers, and the compiled functions that ask them."""

    def __init__(self, run: Run) -> None:
        self._run, self._cfg = run, run.config.evaluate
        self._papers = {d.name: self._paper(d.held_out) for d in run.datasets if d.held_out}
        if not self._papers:
            raise ValueError("no dataset of the mixture has held-out records; give held-out files or `held_out` rows")
        options = [option for paper in self._papers.values() for q in paper.questions for option in q.options]
        self._loss_fn = jax.jit(run.loss_fn)
        self._inference = Inference(
            run.model,
            max_new_tokens=self._cfg.max_new_tokens,
            longest_option=max(map(len, options), default=0),
            stop=stop_tokens(run.tokenizer),
            place=run.place_batch,
        )

    def take(self, params: Params, name: str) -> dict[str, DatasetScores]:
        """Scores of one model, by dataset."""
        scores = {}
        with bar(len(self._papers), f"evaluate {name}", "dataset") as progress:
            for dataset, paper in self._papers.items():
                scores[dataset] = self._mark(params, paper)
                progress.update()
        return scores

    def _paper(self, records: Sequence[Record]) -> _Paper:
        tokenizer, length = self._run.tokenizer, self._run.config.mixture.max_length
        examples = [encode(tokenizer, record.messages, length, where=record.where)[0] for record in records]
        batches = bucketed_batches(examples, buckets=self._cfg.buckets, batch_size=self._cfg.batch_size)
        return _Paper(
            [batch for _, batch in batches],
            [multiple_choice(tokenizer, record) for record in records if record.options],
            [encode_prompt(tokenizer, record.messages[:-1], where=record.where) for record in records],
            [record.messages[-1]["content"] for record in records],
        )

    def _mark(self, params: Params, paper: _Paper) -> DatasetScores:
        loss, tokens = mean_loss(self._loss_fn, params, map(self._run.place_batch, paper.batches))
        if paper.questions:
            return DatasetScores(loss, tokens, self._choose(params, paper.questions), len(paper.questions), "options")
        return DatasetScores(loss, tokens, self._answer(params, paper), len(paper.answers), "exact_match")

    def _choose(self, params: Params, questions: Sequence[Question]) -> float:
        """Share of questions whose best option is the right one."""
        choices = option_choices(self._inference, params, questions, self._cfg.buckets, self._cfg.batch_size)
        return float(np.mean([choice == q.answer for choice, q in zip(choices, questions, strict=True)]))

    def _answer(self, params: Params, paper: _Paper) -> float:
        """Share of prompts whose greedy response is the right one."""
        written = completions(self._inference, params, paper.prompts, self._cfg.buckets, self._cfg.batch_size)
        texts = [self._run.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
        right = [normalised(text) == normalised(answer) for text, answer in zip(texts, paper.answers, strict=True)]
        return float(np.mean(right))
