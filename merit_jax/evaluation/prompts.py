"""Turns records into prompts and options, defines the stop tokens, and compares texts with the reference."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from merit_jax.core.types import Example, Image, Record
from merit_jax.data.chat_template import encode_prompt, encode_response
from merit_jax.data.message_texts import images_of, special_ids


class Question(NamedTuple):
    """A multiple-choice record as token ids.

    Attributes:
        prompt: The messages before the assistant's response (see `prompt`).
        options: Ids of each answer option.
        answer: Index of the right one.
    """

    prompt: Example
    options: tuple[np.ndarray, ...]
    answer: int


def prompt(tokenizer: Any, record: Record) -> Example:
    """Returns the prompt of a record as an example whose last token, 0, is still to be generated."""
    messages = record.messages[:-1]
    return open_example(encode_prompt(tokenizer, messages, tools=record.tools, where=record.where), images_of(messages))


def open_example(context: Int32[np.ndarray, " n"], images: tuple[Image, ...] = ()) -> Example:
    """Returns a context as an example whose last token, 0, is still to be generated.

    Examples:
        >>> example = open_example(np.array([5, 6], np.int32))
        >>> example.tokens.tolist(), example.supervised.tolist()
        ([5, 6, 0], [False, False, False])
    """
    tokens = np.append(context, np.int32(0))
    return Example(tokens, np.zeros(len(tokens), bool), images)


def multiple_choice(tokenizer: Any, record: Record) -> Question:
    """Encodes a multiple-choice record."""
    assert record.options is not None
    messages, answer = record.messages[:-1], record.messages[-1]["content"]
    options = tuple(
        encode_response(tokenizer, messages, option, tools=record.tools, where=record.where)
        for option in record.options
    )
    return Question(prompt(tokenizer, record), options, record.options.index(answer))


def stop_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Returns the ids that end a response: the end-of-text token, and the token with which the chat template closes a turn."""
    turn = encode_response(tokenizer, ({"role": "user", "content": "a"},), "b")
    ends = {int(turn[-1])} & special_ids(tokenizer) | ({tokenizer.eos_token_id} - {None})
    return tuple(sorted(ends))


def exact_match(text: str, answer: str) -> float:
    """Returns 1 if the two are the same, case folded and white space collapsed; else 0.

    Examples:
        >>> exact_match(" New  york", "New York"), exact_match("New York City", "New York")
        (1.0, 0.0)
    """
    return float(normalised(text) == normalised(answer))


def fact_recall(text: str, facts: Sequence[str]) -> float:
    """Returns the share of the facts that the text mentions as whole words.

    Examples:
        >>> fact_recall("A red, round apple.", ["red", "round", "apple", "app"])
        0.75
    """
    padded = f" {words(text)} "
    return sum(f" {words(fact)} " in padded for fact in facts) / len(facts)


def normalised(text: str) -> str:
    """Returns a text as exact match compares it."""
    return " ".join(text.casefold().split())


def words(text: str) -> str:
    """Returns the words of a text, case folded, without punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))
