"""Evaluates any number of models on the same suites of records, all suites in the same batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from merit_jax.core.types import LossFn, Model, Params, Record
from merit_jax.data.chat_template import encode
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.decoding import Inference
from merit_jax.evaluation.prompts import exact_match, fact_recall, multiple_choice, prompt, stop_tokens
from merit_jax.evaluation.scoring import Scores, completions, likelihoods, option_choices

Suites = Mapping[str, Sequence[Record]]
"""Name of a suite (a dataset's held-out records, or a held-out suite) -> its records."""


class Evaluator:
    """Suites of records as token ids, and the compiled functions that score a model on them.

    Args:
        suites: The suites; a record with options is multiple choice, one with facts is open-ended, others expect exactly their
            response.
        model: The model whose params are evaluated.
        loss_fn: Its loss.
        tokenizer: Its tokenizer.
        layout: Shapes of batches.
        max_length: Tokens of a whole conversation; the rest is truncated.
        max_new_tokens: Tokens of a response.
        losses: Whether the loss of the reference responses is computed too.
    """

    def __init__(
        self,
        suites: Suites,
        model: Model,
        loss_fn: LossFn,
        tokenizer: Any,
        layout: BatchShapes,
        *,
        max_length: int,
        max_new_tokens: int,
        losses: bool = True,
    ) -> None:
        self._names = {name: len(records) for name, records in suites.items()}
        self._records = [record for records in suites.values() for record in records]
        self._layout, self._tokenizer = layout, tokenizer
        self._wholes = [
            encode(tokenizer, record.messages, max_length, where=record.where)[0] for record in self._records if losses
        ]
        chosen = [bool(record.options) for record in self._records]
        self._choices, self._open = np.flatnonzero(chosen), np.flatnonzero(np.logical_not(chosen))
        self._open = self._open[np.argsort([_response_length(self._records[i]) for i in self._open], kind="stable")]
        self._questions = [multiple_choice(tokenizer, self._records[i]) for i in self._choices]
        self._prompts = [prompt(tokenizer, self._records[i]) for i in self._open]
        self._loss_fn = jax.jit(loss_fn)
        self._inference = Inference(
            model,
            max_new_tokens=max_new_tokens,
            longest_option=max((len(option) for q in self._questions for option in q.options), default=0),
            stop=stop_tokens(tokenizer),
        )

    def evaluate(self, params: Params) -> dict[str, Scores]:
        """Computes the scores of one model, by suite."""
        likelihood = likelihoods(self._loss_fn, params, self._wholes, self._layout) if self._wholes else None
        accuracy = np.zeros(len(self._records))
        choices = option_choices(self._inference, params, self._questions, self._layout)
        accuracy[self._choices] = [choice == q.answer for choice, q in zip(choices, self._questions, strict=True)]
        written = completions(self._inference, params, self._prompts, self._layout)
        for index, ids in zip(self._open, written, strict=True):
            accuracy[index] = self._score(self._records[index], self._tokenizer.decode(ids, skip_special_tokens=True))
        return self._by_suite(accuracy, likelihood)

    def _score(self, record: Record, text: str) -> float:
        if record.facts:
            return fact_recall(text, record.facts)
        return exact_match(text, record.messages[-1]["content"])

    def _by_suite(self, accuracy: np.ndarray, likelihood: np.ndarray | None) -> dict[str, Scores]:
        scores, start = {}, 0
        for name, count in self._names.items():
            part = slice(start, start + count)
            nll, tokens = likelihood[part].sum(axis=0) if likelihood is not None else (np.nan, 0)
            loss = float(nll / max(tokens, 1)) if likelihood is not None else None
            metrics = "+".join(dict.fromkeys(metric_of(record) for record in self._records[part]))
            scores[name] = Scores(loss, int(tokens), float(accuracy[part].mean()), count, metrics)
            start += count
        return scores


def _response_length(record: Record) -> int:
    """Length of the reference response; records of like lengths share a batch, whose longest response takes the time."""
    return len(record.messages[-1]["content"])


def metric_of(record: Record) -> str:
    """Returns the name of a record's metric."""
    return "options" if record.options else "facts" if record.facts else "exact_match"
