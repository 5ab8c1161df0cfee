"""Record formats: a row of a dataset file -> a conversation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.data.sources import Row
from merit_jax.registry import lookup
from merit_jax.types import Record

Message = Mapping[str, Any]


class Layout(NamedTuple):
    """Where a row keeps its parts, in LLaMA-Factory's words.

    Attributes:
        columns: Part -> column, over the format's defaults (alpaca: prompt, query, response, system, history; sharegpt
            and messages: messages, system).
        tags: Over the defaults of sharegpt: role_tag, content_tag, user_tag, assistant_tag, system_tag.
    """

    columns: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}


def to_record(format_name: str | None, row: Row, where: str, layout: Layout = Layout()) -> Record:
    """Reads a row as a conversation.

    Args:
        format_name: A key of `FORMATS`; None detects it from the row's keys.
        row: One row of a file.
        where: "FILE:LINE", for error messages.
        layout: Column names and tags that differ from the format's defaults.

    Returns:
        The record; its last message is the assistant's response.

    Raises:
        ValueError: The format is unknown, or the row does not fit it.
    """
    read = lookup(FORMATS, format_name or detect(row, where, layout), f"format in {where}:")
    if images := next((key for key in ("image", "images", "video", "videos") if row.get(key)), None):
        raise ValueError(f"{where}: the row has a {images!r} field, and only text is read; remove the field or the row")
    return read(row, where, layout)


def detect(row: Row, where: str, layout: Layout = Layout()) -> str:
    """Names the format of a row from its keys."""
    columns = layout.columns
    if "inputs" in row and "targets" in row:
        return "flan"
    if columns.get("messages", "conversations") in row:
        return "sharegpt"
    if "messages" in row:
        return "messages"
    if columns.get("prompt", "instruction") in row:
        return "alpaca"
    raise ValueError(
        f"{where}: cannot tell the format from the keys {sorted(row)}; name one in the manifest's `formatting` "
        f"({', '.join(FORMATS)}) or map the names in its `columns`"
    )


def flan(row: Row, where: str, layout: Layout) -> Record:
    """FLAN: `inputs`, `targets` and, for multiple choice, `options` (the target is one of them)."""
    prompt, response = _string(row, "inputs", where), _string(row, "targets", where)
    options = row.get("options")
    if options is not None:
        options = _options(options, response, where)
    return Record(_conversation([_user(prompt), _assistant(response)], where), options, where)


def alpaca(row: Row, where: str, layout: Layout) -> Record:
    """Alpaca: `instruction`, optional `input` (on a new line), `output`; optional `system` and `history` pairs."""
    name = {part: layout.columns.get(part, default) for part, default in ALPACA_COLUMNS.items()}
    messages = _system(row, name["system"], where)
    history = row.get(name["history"]) or []
    for pair in history if isinstance(history, Sequence) else [history]:
        if not (isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError(
                f"{where}: {name['history']!r} must be a list of [prompt, response] pairs, got {history!r:.80}"
            )
        messages += [_user(pair[0]), _assistant(pair[1])]
    parts = [_string(row, name["prompt"], where)]
    if row.get(name["query"]):
        parts.append(_string(row, name["query"], where))
    messages += [_user("\n".join(filter(None, parts))), _assistant(_string(row, name["response"], where))]
    return Record(_conversation(messages, where), None, where)


def sharegpt(row: Row, where: str, layout: Layout) -> Record:
    """ShareGPT: `conversations`, a list of {`from`: human | gpt | system, `value`}; optional `system` column."""
    tag = {key: layout.tags.get(key, default) for key, default in SHAREGPT_TAGS.items()}
    roles = {tag["user_tag"]: "user", tag["assistant_tag"]: "assistant", tag["system_tag"]: "system"}
    messages = _system(row, layout.columns.get("system", "system"), where)
    for turn in _turns(row, layout.columns.get("messages", "conversations"), where):
        role = _string(turn, tag["role_tag"], where)
        if role not in roles:
            raise ValueError(
                f"{where}: unknown role {role!r}; expected one of {list(roles)}; set `tags` in the manifest"
            )
        messages.append({"role": roles[role], "content": _string(turn, tag["content_tag"], where)})
    return Record(_conversation(messages, where), None, where)


def openai(row: Row, where: str, layout: Layout) -> Record:
    """OpenAI: `messages`, a list of {`role`: system | user | assistant, `content`}."""
    messages = []
    for turn in _turns(row, layout.columns.get("messages", "messages"), where):
        messages.append({"role": _string(turn, "role", where), "content": _string(turn, "content", where)})
    return Record(_conversation(messages, where), None, where)


FORMATS = {"flan": flan, "alpaca": alpaca, "sharegpt": sharegpt, "messages": openai, "openai": openai}

ALPACA_COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "system": "system",
    "history": "history",
}
SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _system(row: Row, column: str, where: str) -> list[Message]:
    return [{"role": "system", "content": _string(row, column, where)}] if row.get(column) else []


def _string(row: Row, key: str, where: str) -> str:
    if key not in row:
        raise ValueError(
            f"{where}: missing field {key!r} (found: {sorted(row)}); add it or map its name in the manifest"
        )
    if not isinstance(row[key], str):
        raise ValueError(f"{where}: field {key!r} must be a string, got {type(row[key]).__name__}: {row[key]!r:.80}")
    return row[key]


def _turns(row: Row, key: str, where: str) -> list[Row]:
    if key not in row:
        raise ValueError(
            f"{where}: missing field {key!r} (found: {sorted(row)}); add it or map its name in the manifest"
        )
    turns = row[key]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{where}: field {key!r} must be a list of objects, got {turns!r:.80}")
    return turns


def _options(options: Any, target: str, where: str) -> tuple[str, ...]:
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"{where}: field 'options' must be null or a list of strings, got {options!r:.80}")
    if target not in options:
        raise ValueError(
            f"{where}: target {target!r:.80} is not among the options {options!r:.200}; mend one of the two"
        )
    return tuple(options)


def _conversation(messages: Iterable[Message], where: str) -> tuple[Message, ...]:
    """Checks that roles run [system,] user, assistant, user, ..., assistant, and that every response says something."""
    messages = tuple(messages)
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        raise ValueError(
            f"{where}: roles out of order: {roles}; expected [system,] user, assistant, ... ending with the assistant"
        )
    for message in messages:
        if message["role"] == "assistant" and not message["content"].strip():
            raise ValueError(f"{where}: empty response; fill it in or delete the record")
    return messages
