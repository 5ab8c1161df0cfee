"""Evaluates any number of models on the same suites of records, all suites in the same batches."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Batch, LossFn, Model, Params, Record
from merit_jax.data.chat_template import encode
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.decoding import Inference
from merit_jax.evaluation.not_finite import names
from merit_jax.evaluation.prompts import exact_match, fact_recall, multiple_choice, prompt, stop_tokens
from merit_jax.evaluation.references import Reference, reference
from merit_jax.evaluation.scoring import Scores, completions, continuation_scores, likelihoods, option_choices

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
        agreement: Names of suites whose records, whatever their kind, are scored by how far the model agrees with the reference:
            the share of its tokens that are the likeliest after those before them. Their loss is always computed.
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
        agreement: Collection[str] = (),
    ) -> None:
        owners = [(name, record) for name, records in suites.items() for record in records]
        self._records = [record for _, record in owners]
        self._owner = np.array([name for name, _ in owners])
        self._suites = tuple(suites)
        self._layout, self._tokenizer = layout, tokenizer
        self._compared = {i for i, name in enumerate(self._owner.tolist()) if name in agreement}
        self._wholes = {
            i: encode(tokenizer, record.messages, max_length, tools=record.tools, where=record.where)[0]
            for i, record in enumerate(self._records)
            if losses or i in self._compared
        }
        asked = [i for i in range(len(self._records)) if i not in self._compared]
        self._questions = {i: multiple_choice(tokenizer, self._records[i]) for i in asked if self._records[i].options}
        written = [i for i in asked if i not in self._questions]
        written.sort(key=lambda i: _response_length(self._records[i]))
        self._prompts = {i: prompt(tokenizer, self._records[i]) for i in written}
        self._references = {i: reference(tokenizer, self._records[i]) for i in written}
        self._loss_fn, self._continuation_scores = jax.jit(loss_fn), jax.jit(continuation_scores(model))
        self._inference = Inference(
            model,
            max_new_tokens=max_new_tokens,
            longest_option=max((len(option) for q in self._questions.values() for option in q.options), default=0),
            stop=stop_tokens(tokenizer),
        )

    def evaluate(self, params: Params, suites: Collection[str] | None = None) -> dict[str, Scores]:
        """Computes the scores of one model, by suite.

        Args:
            params: The model's.
            suites: Names of the suites, scored in the same batches; None: all.

        Raises:
            NotFiniteError: A loss, the score of an option or the logits of a response are NaN or infinite; suite and record are
                named.
        """
        chosen = [name for name in self._suites if suites is None or name in suites]
        members = np.flatnonzero(np.isin(self._owner, chosen)).tolist()
        likelihood = self._likelihoods(params, [i for i in members if i not in self._compared], self._loss_fn)
        correct = self._correct(params, set(members))
        compared = [i for i in members if i in self._compared]
        if compared:
            counts = [int(self._wholes[i].supervised.sum()) for i in compared]
            nll, misses = self._likelihoods(params, compared, self._continuation_scores)[compared].T
            likelihood[compared], correct[compared] = np.stack([nll, counts], axis=1), 1 - misses / counts
        return {name: self._scores(self._owner == name, correct, likelihood) for name in chosen}

    def _likelihoods(
        self, params: Params, members: Sequence[int], score: Callable[[Params, Batch], Any]
    ) -> Float[np.ndarray, "n 2"]:
        """Returns (summed loss, what else `score` computes) of the records that have a loss, NaN for all others."""
        found, known = np.full((len(self._records), 2), np.nan), [i for i in members if i in self._wholes]
        with names(lambda place: self._name(known[place])):
            found[known] = likelihoods(score, params, [self._wholes[i] for i in known], self._layout)
        return found

    def _correct(self, params: Params, members: Collection[int]) -> Float[np.ndarray, " n"]:
        """Returns the score of every record in 0..1, NaN for those of other suites."""
        found = np.full(len(self._records), np.nan)
        asked = [i for i in self._questions if i in members]
        questions = [self._questions[i] for i in asked]
        with names(lambda place: self._name(asked[place])):
            choices = option_choices(self._inference, params, questions, self._layout)
        found[asked] = [choice == question.answer for choice, question in zip(choices, questions, strict=True)]
        written = [i for i in self._prompts if i in members]
        with names(lambda place: self._name(written[place])):
            responses = completions(self._inference, params, [self._prompts[i] for i in written], self._layout)
        for i, ids in zip(written, responses, strict=True):
            text = self._tokenizer.decode(ids, skip_special_tokens=True)
            found[i] = _score(self._records[i], self._references[i], text)
        return found

    def _name(self, index: int) -> str:
        """A record's name in an error."""
        return f"{self._owner[index]}, {self._records[index].where}"

    def _scores(self, part: np.ndarray, correct: np.ndarray, likelihood: np.ndarray) -> Scores:
        """Summarises the records of one suite, those where `part` is True."""
        places, (nll, tokens) = np.flatnonzero(part), likelihood[part].sum(axis=0)
        known = all(i in self._wholes for i in places)
        loss, tokens = (float(nll / max(tokens, 1)), tokens) if known else (None, 0)
        metrics = "+".join(
            dict.fromkeys("agreement" if i in self._compared else metric_of(self._records[i]) for i in places)
        )
        scores = correct[part]
        return Scores(loss, int(tokens), float(scores.mean()), len(scores), metrics, tuple(scores.tolist()))


def _score(record: Record, expected: Reference, text: str) -> float:
    answer = expected.answer(text)
    return fact_recall(answer, record.facts) if record.facts else exact_match(answer, expected.text)


def _response_length(record: Record) -> int:
    """Length of the reference response; records of like lengths share a batch, whose longest response takes the time."""
    return len(record.messages[-1]["content"])


def metric_of(record: Record) -> str:
    """Returns the name of a record's metric, where its suite is not scored by agreement."""
    return "options" if record.options else "facts" if record.facts else "exact_match"
