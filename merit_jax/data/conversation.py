"""Checks a conversation: the order of its roles, that every response says something, and that one is trained."""

import itertools
from collections.abc import Iterable, Sequence

from merit_jax.data.messages import Message

HEADS = ("system", "developer")
FOLLOWERS = {"": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant")}
"""Role -> roles that may follow it, behind the heads."""


def check_conversation(messages: Iterable[Message], where: str) -> tuple[Message, ...]:
    """Checks the messages of a record.

    Args:
        messages: The whole conversation.
        where: "FILE:LINE", for error messages.

    Returns:
        The messages up to the last response that is trained; those after it change nothing.

    Raises:
        ValueError: Roles are out of order, a response is empty, an image is in another turn than the user's, or no response is
            trained.
    """
    messages = tuple(messages)
    _check_order(messages, where)
    for message in messages:
        if message["role"] != "user" and not isinstance(message["content"], str):
            raise ValueError(
                f"{where}: an image in a turn of role {message['role']!r}; images belong into the user's turns"
            )
        if message["role"] == "assistant" and not message["content"].strip() and not message.get("tool_calls"):
            raise ValueError(f"{where}: empty response; fill it in or delete the record")
    trained = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("train", True)]
    if not trained:
        raise ValueError(
            f"{where}: nothing is left to train, every response is marked as not trained; delete the record"
        )
    return messages[: trained[-1] + 1]


def _check_order(messages: Sequence[Message], where: str) -> None:
    if problem := _order_problem(messages):
        roles = [message["role"] for message in messages]
        raise ValueError(
            f"{where}: roles out of order: {roles!s:.200}: {problem}; expected [system,] user, assistant, ... ending with "
            "the assistant, and calls followed by the tools' messages"
        )


def _order_problem(messages: Sequence[Message]) -> str:
    """The first message out of order, or an empty text."""
    heads = [message["role"] for message in itertools.takewhile(lambda message: message["role"] in HEADS, messages)]
    if len(set(heads)) < len(heads):
        return f"{heads[-1]!r} comes twice"
    before, calls = "", False
    for message in messages[len(heads) :]:
        expected = ("tool",) if calls else FOLLOWERS[before]
        if message["role"] not in expected:
            place = f"after {before!r}{' with a call' if calls else ''}" if before else "at the start"
            return f"{message['role']!r} {place}, where {' or '.join(map(repr, expected))} is expected"
        before, calls = message["role"], bool(message.get("tool_calls"))
    return "" if before == "assistant" else "the last message must be the assistant's"
