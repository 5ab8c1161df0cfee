"""Records as questions: what is asked, what counts as right, what ends an answer."""

from typing import Any, NamedTuple

import numpy as np

from merit_jax.data.chat import encode_prompt, encode_response
from merit_jax.types import Record


class Question(NamedTuple):
    """A multiple-choice record, ready to be asked.

    Attributes:
        prompt: Ids up to where the assistant's response begins.
        options: Ids of each answer option.
        answer: Index of the right one.
    """

    prompt: np.ndarray
    options: tuple[np.ndarray, ...]
    answer: int


def multiple_choice(tokenizer: Any, record: Record) -> Question:
    """A multiple-choice record as token ids."""
    assert record.options is not None
    asked, answer = record.messages[:-1], record.messages[-1]["content"]
    options = tuple(encode_response(tokenizer, asked, option, where=record.where) for option in record.options)
    return Question(encode_prompt(tokenizer, asked, where=record.where), options, record.options.index(answer))


def stop_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a response: the end-of-text token, and whatever the chat template closes a turn with."""
    turn = encode_response(tokenizer, ({"role": "user", "content": "a"},), "b")
    special = set(tokenizer.all_special_ids)
    ends = {int(turn[-1])} & special | ({tokenizer.eos_token_id} - {None})
    return tuple(sorted(ends))


def normalised(text: str) -> str:
    """Text as exact match compares it: case folded, white space collapsed."""
    return " ".join(text.casefold().split())
