"""Finds the texts of a conversation that its chat template leaves out, by a second rendering in which each has a sign in it.

A text that is in the rendering may be there for another reason: "4" as reasoning is also in "The answer is 4.". So each text that
has to be written gets a sign of its own, and is left out where its sign does not come back.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from merit_jax.core.types import Tools
from merit_jax.data.message_texts import REASONING, Messages, is_blank_response
from merit_jax.data.template_turns import Renderer, Turn

NUMBER = 918_273 * 10**6
"""Numbers of a call's arguments become this one and those after it."""
_FIRST_WORD = re.compile(r"(?:<[^<>]*>|\W)*\w+")


def unseen(
    tokenizer: Any, messages: Messages, tools: Tools | None, rendered: str, turns: Sequence[Turn]
) -> tuple[str, ...]:
    """Returns the names of the texts that a rendering lacks, white space aside.

    Those are contents, reasoning, calls (the function, and names and values of arguments), announced functions and their
    parameters, and what an assistant's message says where its trained span has no word.

    Args:
        tokenizer: A `chat_template.Tokenizer`.
        messages: OpenAI messages.
        tools: Functions that the template announces; None for none.
        rendered: Their rendering.
        turns: The characters of its responses.
    """
    missing = {name for name, text in _texts(messages) if not _has(rendered, text)}
    missing |= set(_empty(tokenizer, messages, rendered, turns))
    if tools or any(_is_at_risk(message) for message in messages):
        missing |= _without_sign(tokenizer, messages, tools, rendered)
    return tuple(name for name in _names(messages) if name in missing)


class _Signs:
    """Puts signs into texts, and knows whose they are."""

    def __init__(self, rendered: str):
        self._base = next(base for n in itertools.count(1) if (base := n * "q" + "7x") not in rendered.casefold())
        self.placed: dict[str, list[str]] = {}
        self._made = 0

    def new(self, name: str) -> str:
        """Makes a sign that stands for something of `name`."""
        self._made += 1
        sign = f"{self._base}{self._made}x{self._base}"
        self.placed.setdefault(name, []).append(sign)
        return sign

    def text(self, text: str, name: str) -> str:
        """Puts a sign behind the first word that is in no tag; what begins and ends a text may tell a template what it is."""
        return self.with_sign(text, self.new(name)) if text.strip() else text

    @staticmethod
    def with_sign(text: str, sign: str) -> str:
        found = _FIRST_WORD.match(text)
        place = found.end() if found else len(text.rstrip())
        return text[:place] + sign + text[place:]

    def value(self, value: Any, name: str) -> Any:
        """Puts signs into a JSON value: its keys, texts and numbers."""
        if isinstance(value, str):
            return self.text(value, name)
        if isinstance(value, Mapping):
            return {self.text(key, name): self.value(part, name) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(part, name) for part in value]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        self._made += 1
        self.placed.setdefault(name, []).append(str(NUMBER + self._made))
        return NUMBER + self._made + (0.5 if isinstance(value, float) else 0)

    def absent(self, rendered: str) -> set[str]:
        """Returns the names of which a sign is not in a rendering; reasoning is under several keys, and written from one."""
        rendered = rendered.casefold()
        return {name for name, signs in self.placed.items() if not all(sign in rendered for sign in signs)}


def _without_sign(tokenizer: Any, messages: Messages, tools: Tools | None, rendered: str) -> set[str]:
    """Returns the names of what has a sign that a rendering does not show; none where the template refuses signs."""
    signs = _Signs(rendered)
    signed = [_message(message, name, signs) for name, message in _named(messages)]
    announced = None if tools is None else tuple(_tool(tool, signs) for tool in tools)
    try:
        return signs.absent(Renderer(tokenizer, announced, "")(signed))
    except ValueError:
        return set()


def _message(message: Mapping[str, Any], name: str, signs: _Signs) -> Mapping[str, Any]:
    found = dict(message)
    content = message.get("content")
    if isinstance(content, str):
        found["content"] = signs.text(content, name)
    elif content is not None:
        found["content"] = [
            {**part, "text": signs.text(part["text"], name)} if part["type"] == "text" else part for part in content
        ]
    thoughts = [key for key in REASONING if isinstance(message.get(key), str) and message[key].strip()]
    sign = signs.new(f"reasoning of {name}") if thoughts else ""
    found |= {key: signs.with_sign(message[key], sign) for key in thoughts}
    if message.get("tool_calls"):
        found["tool_calls"] = [_call(call, f"tool calls of {name}", signs) for call in message["tool_calls"]]
    return found


def _call(call: Mapping[str, Any], name: str, signs: _Signs) -> Mapping[str, Any]:
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _call(call["function"], name, signs)}
    return {**call, **{key: signs.value(call[key], name) for key in ("name", "arguments") if key in call}}


def _tool(tool: Mapping[str, Any], signs: _Signs) -> Mapping[str, Any]:
    """Puts signs into a function's name and the names of its parameters."""
    if isinstance(tool.get("function"), Mapping):
        return {**tool, "function": _tool(tool["function"], signs)}
    found = dict(tool)
    if isinstance(tool.get("name"), str):
        found["name"] = signs.text(tool["name"], "tools")
    parameters = tool.get("parameters")
    if not isinstance(parameters, Mapping):
        return found
    properties = parameters.get("properties")
    known = properties if isinstance(properties, Mapping) else parameters
    names = {key: signs.text(key, "tools") for key, part in known.items() if isinstance(part, Mapping)}
    renamed = {names.get(key, key): part for key, part in known.items()}
    found["parameters"] = renamed if known is parameters else {**parameters, "properties": renamed}
    required = parameters.get("required")
    if isinstance(required, list | tuple) and known is not parameters:
        found["parameters"]["required"] = [names.get(key, key) if isinstance(key, str) else key for key in required]
    return found


def _empty(tokenizer: Any, messages: Messages, rendered: str, turns: Sequence[Turn]) -> Iterator[str]:
    """Yields the names of assistant's messages that say something, and whose trained span says nothing."""
    said = [(name, message) for name, message in _named(messages) if message["role"] == "assistant"]
    for (name, message), turn in zip(said, turns, strict=True):
        if message.get("train", True) and is_blank_response(tokenizer, rendered[turn.start : turn.end]):
            if message.get("tool_calls"):
                yield f"tool calls of {name}"
            if any(text.strip() for _, text in _texts((message,))):
                yield name


def _is_at_risk(message: Mapping[str, Any]) -> bool:
    """Returns whether templates are known to leave out something of such a message."""
    return message["role"] in ("system", "developer", "tool") or any(
        message.get(key) for key in ("tool_calls", *REASONING)
    )


def _named(messages: Messages) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, message in enumerate(messages, start=1):
        yield f"message {number} ({message['role']})", message


def _names(messages: Messages) -> Iterator[str]:
    """Yields all names of what may be left out, in order."""
    for name, _ in _named(messages):
        yield from (name, f"reasoning of {name}", f"tool calls of {name}")
    yield "tools"


def _texts(messages: Messages) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of contents and reasoning."""
    for name, message in _named(messages):
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
        yield from ((name, part["text"]) for part in parts if part["type"] == "text")
        yield from ((f"reasoning of {name}", message[key]) for key in REASONING if isinstance(message.get(key), str))


def _has(rendered: str, text: str) -> bool:
    return text in rendered or "".join(text.split()) in _without_space(rendered)


@functools.lru_cache(maxsize=2)
def _without_space(text: str) -> str:
    return "".join(text.split())
