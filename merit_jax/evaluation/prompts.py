"""Records as questions: what is asked, what counts as right, what ends an answer."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from merit_jax.core.types import Example, Record
from merit_jax.data.chat_template import encode_prompt, encode_response, images_of


class Question(NamedTuple):
    """A multiple-choice record, ready to be asked.

    Attributes:
        prompt: What comes before the assistant's response (see `prompt`).
        options: Ids of each answer option.
        answer: Index of the right one.
    """

    prompt: Example
    options: tuple[np.ndarray, ...]
    answer: int


def prompt(tokenizer: Any, record: Record) -> Example:
    """What generation sees of a record, as an example whose last token, 0, is still to be written."""
    asked = record.messages[:-1]
    ids = np.append(encode_prompt(tokenizer, asked, where=record.where), np.int32(0))
    return Example(ids, np.zeros(len(ids), bool), images_of(asked))


def multiple_choice(tokenizer: Any, record: Record) -> Question:
    """A multiple-choice record as token ids."""
    assert record.options is not None
    asked, answer = record.messages[:-1], record.messages[-1]["content"]
    options = tuple(encode_response(tokenizer, asked, option, where=record.where) for option in record.options)
    return Question(prompt(tokenizer, record), options, record.options.index(answer))


def stop_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a response: the end-of-text token, and whatever the chat template closes a turn with."""
    turn = encode_response(tokenizer, ({"role": "user", "content": "a"},), "b")
    special = set(tokenizer.all_special_ids)
    ends = {int(turn[-1])} & special | ({tokenizer.eos_token_id} - {None})
    return tuple(sorted(ends))


def exact_match(text: str, answer: str) -> float:
    """1 if the two are the same, case folded and white space collapsed; else 0."""
    return float(normalised(text) == normalised(answer))


def fact_recall(text: str, facts: Sequence[str]) -> float:
    """Share of the facts that the text mentions as whole words."""
    said = f" {words(text)} "
    return sum(f" {words(fact)} " in said for fact in facts) / len(facts)


def normalised(text: str) -> str:
    """Text as exact match compares it."""
    return " ".join(text.casefold().split())


def words(text: str) -> str:
    """The words of a text, case folded, without punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))
