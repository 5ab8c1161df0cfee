"""Evaluates any number of models on the same suites of records, all suites in the same batches."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from merit_jax.core.types import LossFn, Model, Params, Record
from merit_jax.data.chat_template import encode
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.decoding import Inference
from merit_jax.evaluation.not_finite import names
from merit_jax.evaluation.prompts import exact_match, fact_recall, multiple_choice, prompt, stop_tokens
from merit_jax.evaluation.references import Reference, reference
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
        owners = [(name, record) for name, records in suites.items() for record in records]
        self._records = [record for _, record in owners]
        self._owner = np.array([name for name, _ in owners])
        self._suites = tuple(suites)
        self._layout, self._tokenizer = layout, tokenizer
        self._wholes = [
            encode(tokenizer, record.messages, max_length, tools=record.tools, where=record.where)[0]
            for record in self._records
            if losses
        ]
        self._questions = {
            i: multiple_choice(tokenizer, record) for i, record in enumerate(self._records) if record.options
        }
        written = [i for i in range(len(self._records)) if i not in self._questions]
        written.sort(key=lambda i: _response_length(self._records[i]))
        self._prompts = {i: prompt(tokenizer, self._records[i]) for i in written}
        self._references = {i: reference(tokenizer, self._records[i]) for i in written}
        self._loss_fn = jax.jit(loss_fn)
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
        likelihood = self._likelihoods(params, members)
        correct = self._correct(params, set(members))
        return {name: self._scores(self._owner == name, correct, likelihood) for name in chosen}

    def _likelihoods(self, params: Params, members: Sequence[int]) -> Float[np.ndarray, "n 2"] | None:
        """Returns (summed loss, supervised tokens) of every record, NaN for those of other suites; None without losses."""
        if not self._wholes:
            return None
        found = np.full((len(self._records), 2), np.nan)
        with names(lambda place: self._name(members[place])):
            found[members] = likelihoods(self._loss_fn, params, [self._wholes[i] for i in members], self._layout)
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

    def _scores(self, part: np.ndarray, correct: np.ndarray, likelihood: np.ndarray | None) -> Scores:
        """Summarises the records of one suite, those where `part` is True."""
        nll, tokens = likelihood[part].sum(axis=0) if likelihood is not None else (0.0, 0)
        loss = float(nll / max(tokens, 1)) if likelihood is not None else None
        metrics = "+".join(dict.fromkeys(metric_of(self._records[i]) for i in np.flatnonzero(part)))
        scores = correct[part]
        return Scores(loss, int(tokens), float(scores.mean()), len(scores), metrics, tuple(scores.tolist()))


def _score(record: Record, expected: Reference, text: str) -> float:
    answer = expected.answer(text)
    return fact_recall(answer, record.facts) if record.facts else exact_match(answer, expected.text)


def _response_length(record: Record) -> int:
    """Length of the reference response; records of like lengths share a batch, whose longest response takes the time."""
    return len(record.messages[-1]["content"])


def metric_of(record: Record) -> str:
    """Returns the name of a record's metric."""
    return "options" if record.options else "facts" if record.facts else "exact_match"
