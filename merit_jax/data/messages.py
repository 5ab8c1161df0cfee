"""The fields of a row, checked, and the conversation that they make."""

from collections.abc import Iterable, Mapping
from typing import Any

from merit_jax.core.types import Record
from merit_jax.data.readers import Row

Message = Mapping[str, Any]


def user(text: str) -> Message:
    """What the user says."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """What the assistant answers."""
    return {"role": "assistant", "content": text}


def system(row: Row, column: str, where: str) -> list[Message]:
    """The system message of a row, if its column says anything."""
    return [{"role": "system", "content": string(row, column, where)}] if row.get(column) else []


def string(row: Row, key: str, where: str) -> str:
    """A field of text."""
    if key not in row:
        raise ValueError(
            f"{where}: missing field {key!r} (found: {sorted(row)}); add it or map its name in the manifest"
        )
    if not isinstance(row[key], str):
        raise ValueError(f"{where}: field {key!r} must be a string, got {type(row[key]).__name__}: {row[key]!r:.80}")
    return row[key]


def turns(row: Row, key: str, where: str) -> list[Row]:
    """A field that is a list of objects."""
    if key not in row:
        raise ValueError(
            f"{where}: missing field {key!r} (found: {sorted(row)}); add it or map its name in the manifest"
        )
    turns = row[key]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{where}: field {key!r} must be a list of objects, got {turns!r:.80}")
    return turns


def choices(options: Any, target: str, where: str) -> tuple[str, ...]:
    """The options of a multiple-choice row, one of which is the target."""
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"{where}: field 'options' must be null or a list of strings, got {options!r:.80}")
    if target not in options:
        raise ValueError(
            f"{where}: target {target!r:.80} is not among the options {options!r:.200}; mend one of the two"
        )
    return tuple(options)


def record(row: Row, messages: Iterable[Message], where: str) -> Record:
    """A conversation with what the row says of its last response."""
    messages = conversation(messages, where)
    options, facts = row.get("options"), row.get("facts")
    if options is not None:
        options = choices(options, messages[-1]["content"], where)
    if facts is not None:
        facts = _facts(facts, where)
    return Record(messages, options, where, facts)


def _facts(facts: Any, where: str) -> tuple[str, ...]:
    said = isinstance(facts, list) and facts and all(isinstance(fact, str) and fact.strip() for fact in facts)
    if not said:
        raise ValueError(
            f"{where}: field 'facts' must be null or a list of strings that say something, got {facts!r:.80}"
        )
    return tuple(facts)


def conversation(messages: Iterable[Message], where: str) -> tuple[Message, ...]:
    """Checks that roles run [system,] user, assistant, user, ..., assistant, and that every response says something."""
    messages = tuple(messages)
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        raise ValueError(
            f"{where}: roles out of order: {roles}; expected [system,] user, assistant, ... ending with the assistant"
        )
    for message in messages:
        if message["role"] != "user" and not isinstance(message["content"], str):
            raise ValueError(
                f"{where}: an image in a turn of role {message['role']!r}; images belong into the user's turns"
            )
        if message["role"] == "assistant" and not message["content"].strip():
            raise ValueError(f"{where}: empty response; fill it in or delete the record")
    return messages
