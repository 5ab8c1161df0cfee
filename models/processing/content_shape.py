"""Finds out in which shape a chat template takes a message's text: as a list of parts, or as a string."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

PROBE = "probe 7"
ROLES = ("user", "system", "developer", "assistant", "tool")


def shaped(messages: Sequence[Mapping[str, Any]], strings: frozenset[str]) -> list[dict[str, Any]]:
    """Returns messages with their text in the shape that the template takes; images are always in a list of parts.

    Args:
        messages: OpenAI messages, whose content is text, a list of parts, or None.
        strings: The result of `roles_of_strings`.

    Examples:
        >>> shaped([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}], frozenset({"tool"}))
        [{'role': 'user', 'content': [{'type': 'text', 'text': 'a'}]}, {'role': 'tool', 'content': 'b'}]
    """
    return [{**message, **_content(message, strings)} for message in messages]


@functools.lru_cache(maxsize=32)
def roles_of_strings(tokenizer: Any, template: str) -> frozenset[str]:
    """Returns the roles whose text the chat template writes from a string and not from a list of parts.

    Args:
        tokenizer: A Hugging Face tokenizer.
        template: The template.
    """
    found: frozenset[str] = frozenset()
    for role in ROLES:
        conversation = [{"role": role, "content": PROBE}]
        if role in ("system", "developer"):
            conversation.append({"role": "user", "content": "a"})
        if role in ("assistant", "tool"):
            conversation.insert(0, {"role": "user", "content": "a"})
        if role == "tool":
            conversation.insert(1, {"role": "assistant", "content": "b"})
        in_parts, in_strings = (
            _writes(tokenizer, template, shaped(conversation, roles)) for roles in (found, found | {role})
        )
        if in_strings and not in_parts:
            found |= {role}
    return found


def _writes(tokenizer: Any, template: str, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether the template writes the probe, and not as Python shows a list."""
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=template)
    except Exception:  # a template fails in any way on what it does not take
        return False
    return PROBE in text and f"'{PROBE}'" not in text


def _content(message: Mapping[str, Any], strings: frozenset[str]) -> dict[str, Any]:
    content = message.get("content")
    if content is None:
        return {}
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    if message["role"] in strings and all(part["type"] == "text" for part in parts):
        return {"content": "".join(part["text"] for part in parts)}
    return {"content": parts}
