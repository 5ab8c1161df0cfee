"""Takes from a record the text that a generated response is compared with, and from the response the part that is compared."""

import sys
from typing import Any, NamedTuple

from merit_jax.core.types import Record
from merit_jax.data.chat_template import encode, encode_prompt
from merit_jax.data.messages import REASONING
from merit_jax.evaluation.prompts import normalised


class Reference(NamedTuple):
    """The right response of a record.

    Attributes:
        text: The response's content; where it calls functions, all of it as the chat template writes it.
        mark: What the chat template writes between reasoning and content; empty without either.
        is_end: Whether the text is the end of a response that begins with reasoning, and calls functions.
    """

    text: str
    mark: str = ""
    is_end: bool = False

    def answer(self, written: str) -> str:
        """Returns the part of a generated response behind its reasoning.

        Examples:
            >>> Reference("Seven.", "</think>").answer("<think>3 + 4</think> Seven."), Reference("a").answer("a b")
            (' Seven.', 'a b')
        """
        if self.is_end:
            return normalised(written)[-len(normalised(self.text)) :]
        return written.rpartition(self.mark)[2] if self.mark else written


def reference(tokenizer: Any, record: Record) -> Reference:
    """Returns the reference of a record whose response is generated.

    Raises:
        ValueError: The chat template fails.
    """
    *before, last = record.messages
    reasoning = last.get(REASONING, "")
    if not (reasoning or last.get("tool_calls")):
        return Reference(last["content"])
    prompt = encode_prompt(tokenizer, before, tools=record.tools, where=record.where)
    whole, _ = encode(tokenizer, record.messages, sys.maxsize, tools=record.tools, where=record.where)
    rendered = tokenizer.decode(whole.tokens[len(prompt) :].tolist(), skip_special_tokens=True)
    _, found, rest = rendered.partition(reasoning.strip()) if reasoning else ("", "", "")
    if last.get("tool_calls"):
        return Reference(rest, is_end=True) if found else Reference(rendered)
    return Reference(last["content"], rest.rpartition(last["content"].strip())[0].strip() if found else "")
