"""Reads the texts of messages: which images they have, which control tokens they contain, and which responses say nothing."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from merit_jax.core.types import Image, Tools
from merit_jax.data.template_source import CLOSE, OPEN

Messages = Sequence[Mapping[str, Any]]

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys of an assistant's message under which `transformers` finds its reasoning."""

SHOWN = ("{'type': 'text'", "{'type': 'image'", "{'text': '")
"""Beginnings of a message's part as Python shows it."""


def images_of(messages: Messages) -> tuple[Image, ...]:
    """Returns the images of a conversation, in order."""
    return tuple(part for message in messages for part in _parts(message) if part["type"] == "image")


def check_texts(tokenizer: Any, messages: Messages, tools: Tools | None, where: str) -> None:
    """Checks that no text would be read as the beginning or the end of a turn.

    Raises:
        ValueError: A text has a special token of the tokenizer, or a sign that stands for `{% generation %}`.
    """
    control = _control(tokenizer)
    for name, text in _all_texts(messages, tools):
        if found := control.search(text):
            raise ValueError(
                f"{where}: {name} contains {found[0]!r}, which the tokenizer reads as a special token and not as text; take it "
                "out (the chat template writes what opens and ends a turn), or write it another way, such as with a space in it"
            )


def parts_written(messages: Messages, rendered: str) -> str | None:
    """Returns the beginning of a part as Python shows it, where a rendering has more of it than the texts; else None."""
    for sign in SHOWN:
        if sign in rendered and rendered.count(sign) > sum(text.count(sign) for _, text in _all_texts(messages, None)):
            place = rendered.index(sign)
            return rendered[max(place - 1, 0) : place + 40]
    return None


def is_blank_response(tokenizer: Any, text: str) -> bool:
    """Returns whether a rendered response has nothing but special tokens and white space."""
    return not _control(tokenizer).sub("", text).strip()


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Returns the ids of a tokenizer's special tokens, named (end of text) or not (end of turn)."""
    return frozenset(_specials(tokenizer).values())


@functools.lru_cache(maxsize=16)
def _specials(tokenizer: Any) -> dict[str, int]:
    """Special token -> id."""
    added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {**added, **{token: number for token, number in named if number is not None}}


@functools.lru_cache(maxsize=16)
def _control(tokenizer: Any) -> re.Pattern[str]:
    """Finds what is not read as text; an image's placeholder is the image tokenizer's business."""
    tokens = {*_specials(tokenizer), OPEN, CLOSE} - {"", getattr(tokenizer, "placeholder", "")}
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


def _all_texts(messages: Messages, tools: Tools | None) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of every text that a template may write."""
    for number, message in enumerate(messages, start=1):
        rest = {key: value for key, value in message.items() if key not in ("role", "content", "train")}
        for text in (*_contents(message), *_strings(rest)):
            yield f"message {number} ({message['role']})", text
    for text in _strings(tools or ()):
        yield "tools", text


def _contents(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    yield from (part["text"] for part in _parts(message) if part["type"] == "text")


def _parts(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    content = message.get("content")
    return () if content is None or isinstance(content, str) else content


def _strings(value: Any) -> Iterator[str]:
    """Yields all texts of a JSON value, the keys of its objects included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _strings(key)
            yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)
