"""Identifies the questions of a suite by their content, so that two runs' scores can be paired question by question."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from merit_jax.core.errors import raise_if_of_machine
from merit_jax.core.types import Record
from merit_jax.workdir.checksums import fingerprint

DIGITS = 12
"""Hexadecimal digits of an id."""


def question_ids(records: Sequence[Record]) -> list[str]:
    """Returns the id of every record: the beginning of a digest of its messages, images, options, facts and tools.

    The same question has the same id in every run, wherever its file and its images are. Where records repeat, the second is
    "ID-2", the third "ID-3".

    Raises:
        ValueError: An image cannot be read.

    Examples:
        >>> record = Record(({"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}), None, "a.jsonl:1")
        >>> question_ids([record, record._replace(facts=("4",)), record._replace(where="b.jsonl:7")])
        ['350217b1061c', '388600b6b3cf', '350217b1061c-2']
    """
    seen: Counter[str] = Counter()
    ids = []
    for record in records:
        digest = fingerprint(_content(record))[:DIGITS]
        seen[digest] += 1
        ids.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return ids


def repeats(records: Sequence[Record]) -> list[list[int]]:
    """Returns the places of every different question, in the order in which they first occur.

    Images are read only where the words of records are the same.

    Raises:
        ValueError: Such an image cannot be read.

    Examples:
        >>> record = Record(({"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}), None, "a.jsonl:1")
        >>> repeats([record, record._replace(facts=("4",)), record._replace(where="b.jsonl:7")])
        [[0, 2], [1]]
    """
    found = []
    for places in _grouped(records, range(len(records)), images=False):
        found += _grouped(records, places, images=True) if len(places) > 1 else [places]
    return sorted(found)


def _grouped(records: Sequence[Record], places: Sequence[int], *, images: bool) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    for place in places:
        found.setdefault(fingerprint(_content(records[place], images=images)), []).append(place)
    return list(found.values())


def _content(record: Record, *, images: bool = True) -> list[Any]:
    """Returns all of a question as JSON values."""
    messages = [_message(message, record.where, images=images) for message in record.messages]
    return [messages, record.options, record.facts, *([record.tools] if record.tools else [])]


def _message(message: Mapping[str, Any], where: str, *, images: bool) -> dict[str, Any]:
    return {**message, "content": _plain(message["content"], where, images=images)}


def _plain(value: Any, where: str, *, images: bool) -> Any:
    """Returns a part of a message as JSON values, with an image's digest in its place, or nothing."""
    if isinstance(value, Mapping):
        if value.get("type") == "image" and value.keys() & {"path", "bytes"}:
            return {"type": "image", "sha256": hashlib.sha256(_image(value, where)).hexdigest() if images else ""}
        return {key: _plain(part, where, images=images) for key, part in value.items()}
    return [_plain(part, where, images=images) for part in value] if isinstance(value, list | tuple) else value


def _image(part: Mapping[str, Any], where: str) -> bytes:
    if "bytes" in part:
        return part["bytes"]
    try:
        return epath.Path(part["path"]).read_bytes()
    except OSError as error:
        raise_if_of_machine(error, part["path"])
        raise ValueError(
            f"{where}: image {part['path']} cannot be read ({error}); put it there or mend its path"
        ) from None
