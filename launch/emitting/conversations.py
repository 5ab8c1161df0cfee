"""Turns conversations into rows that other tools read, and names those that they cannot take."""

from collections.abc import Iterator, Mapping
from typing import Any

from merit_jax.core.types import Record
from merit_jax.data.message_texts import images_of
from merit_jax.launch.emitting.interface import BranchData

Message = Mapping[str, Any]

MARKER = "<image>"
MARKERS = (MARKER, "<video>", "<audio>")
"""Texts that LLaMA-Factory takes for a place of an image, a video or a sound."""
ROLES = ("system", "user", "assistant")
"""Roles that every tool knows."""


def texts(message: Message) -> Iterator[str]:
    """Yields the texts of a message's content."""
    if isinstance(message["content"], str):
        yield message["content"]
    else:
        yield from (part["text"] for part in message["content"] if part["type"] == "text")


def marked(message: Message) -> dict[str, str]:
    """Returns a message as role and text, with a marker in the place of each image.

    Examples:
        >>> marked({"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "What is it?"}]})
        {'role': 'user', 'content': '<image>What is it?'}
    """
    content = message["content"]
    if not isinstance(content, str):
        content = "".join(MARKER if part["type"] == "image" else part["text"] for part in content)
    return {"role": message["role"], "content": content}


def in_parts(message: Message) -> dict[str, Any]:
    """Returns a message as role and parts, without the images' paths.

    Examples:
        >>> in_parts({"role": "assistant", "content": "A cat."})
        {'role': 'assistant', 'content': [{'type': 'text', 'text': 'A cat.'}]}
    """
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    shown = [{"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["text"]} for part in parts]
    return {"role": message["role"], "content": shown}


def image_paths(record: Record) -> list[str]:
    """Returns the files of a record's images, in order."""
    return [image["path"] for image in images_of(record.messages)]


def has_one_response(record: Record) -> bool:
    """Returns whether the last turn is the only one that is trained."""
    trained = [message.get("train", True) for message in record.messages if message["role"] == "assistant"]
    return sum(trained) == 1


def more_than_text(record: Record) -> str:
    """Returns what a record has besides a conversation of system, user and assistant; "" for nothing."""
    if record.tools:
        return "functions (tools)"
    for message in record.messages:
        if message["role"] not in ROLES:
            return f"a turn of role {message['role']!r}"
        for key in message:
            if key not in ("role", "content", "train"):
                return f"a turn with {key!r}"
    return ""


def untrained_turn(record: Record) -> str:
    """Returns what is said of a response that is not trained; "" where all are."""
    off = any(message.get("train", True) is False for message in record.messages)
    return "a response that is marked as not trained" if off else ""


def marker_in_text(record: Record) -> str:
    """Returns what is said of a text with a marker that stands for no image; "" where there is none."""
    for message in record.messages:
        for text in texts(message):
            for marker in MARKERS:
                if marker in text:
                    return f"the text {marker!r}, which stands for a file there"
    return ""


def first_with(data: BranchData, *findings: Any) -> Iterator[str]:
    """Yields for each dataset its first row with something that a tool cannot take, in a sentence.

    Args:
        data: The data of a branch.
        findings: Functions of a record that return what is wrong with it, or "".
    """
    for file in data.files:
        for record in file.records:
            if found := next(filter(None, (finding(record) for finding in findings)), ""):
                yield (
                    f"dataset {file.dataset!r}: {record.where} has {found}, which is not written for this tool; leave the "
                    "dataset out with mixture.include, or train its branch here with merit branch"
                )
                break
