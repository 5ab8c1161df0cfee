"""Reads rows of dataset files as conversations, whichever format the rows are in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.core.registry import lookup
from merit_jax.core.types import Image, Record
from merit_jax.data.images import content_parts, front_images, image_parts, place_images
from merit_jax.data.readers import Row, field, text_field

Message = Mapping[str, Any]


class ColumnMap(NamedTuple):
    """Names of a row's columns, in LLaMA-Factory's words.

    Attributes:
        columns: Part -> column, over the format's defaults (alpaca: prompt, query, response, system, history; sharegpt
            and messages: messages, system, images; llava: messages, images).
        tags: Over the defaults of sharegpt: role_tag, content_tag, user_tag, assistant_tag, system_tag.
        image_root: The folder of the images, from which relative paths start; empty: that of the dataset's file.
    """

    columns: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    image_root: str = ""


def to_record(format_name: str, row: Row, where: str, layout: ColumnMap = ColumnMap()) -> Record:
    """Reads a row as a conversation.

    Args:
        format_name: A key of `FORMATS`.
        row: One row of a file.
        where: "FILE:LINE", for error messages.
        layout: Column names and tags that differ from the format's defaults.

    Returns:
        The record; its last message is the assistant's response.

    Raises:
        ValueError: The format is unknown, or the row does not fit it.
    """
    read = lookup(FORMATS, format_name, f"format in {where}:")
    if unused := next((key for key in _unread(format_name, layout) if _has(row, key)), None):
        known = ", ".join(sorted(set(FORMATS) - TEXT_FORMATS))
        remedy = "" if unused in VIDEOS else f", or set `formatting` to one of {known}, or `columns`: {{images: ...}}"
        raise ValueError(
            f"{where}: the row has a {unused!r} field, which is not read as {format_name!r}; remove the field or the "
            f"row{remedy}"
        )
    return read(row, where, layout)


def detect(row: Row, where: str, layout: ColumnMap = ColumnMap()) -> str:
    """Returns the name of a row's format, by the row's keys."""
    columns = layout.columns
    if "inputs" in row and "targets" in row:
        return "flan"
    if "texts" in row and columns.get("images", "images") in row:
        return "cauldron"
    if columns.get("messages", "conversations") in row:
        return "llava" if "image" in row and "images" not in columns else "sharegpt"
    if "messages" in row:
        return "messages"
    if columns.get("prompt", "instruction") in row:
        return "alpaca"
    raise ValueError(
        f"{where}: cannot tell the format from the keys {sorted(row)}; name one in the manifest's `formatting` "
        f"({', '.join(FORMATS)}) or map the names in its `columns`"
    )


def flan(row: Row, where: str, layout: ColumnMap) -> Record:
    """Reads FLAN: `inputs`, `targets`; optional `options` (the target is one of them) and `facts` (what it should mention)."""
    messages = [_user(text_field(row, "inputs", where)), _assistant(text_field(row, "targets", where))]
    return _rated(row, _placed(row, messages, where, layout), where)


def alpaca(row: Row, where: str, layout: ColumnMap) -> Record:
    """Reads Alpaca: `instruction`, optional `input` (on a new line), `output`; optional `system` and `history` pairs."""
    name = {part: layout.columns.get(part, default) for part, default in ALPACA_COLUMNS.items()}
    messages = _system(row, name["system"], where)
    history = row.get(name["history"]) or []
    for pair in history if isinstance(history, list | tuple) else [history]:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError(
                f"{where}: {name['history']!r} must be a list of [prompt, response] pairs, got {history!r:.80}"
            )
        messages += [_user(pair[0]), _assistant(pair[1])]
    parts = [text_field(row, name["prompt"], where)]
    if row.get(name["query"]):
        parts.append(text_field(row, name["query"], where))
    messages += [_user("\n".join(filter(None, parts))), _assistant(text_field(row, name["response"], where))]
    return Record(_conversation(_placed(row, messages, where, layout), where), None, where)


def sharegpt(row: Row, where: str, layout: ColumnMap) -> Record:
    """Reads ShareGPT: `conversations`, a list of {`from`: human | gpt | system, `value`}; optional `system` and `images`.

    With an images column (LLaMA-Factory's), `<image>` in a user's message says where each image goes; without, it is text.
    """
    messages = _placed(row, _tagged(row, where, layout), where, layout)
    return Record(_conversation(messages, where), None, where)


def llava(row: Row, where: str, layout: ColumnMap) -> Record:
    """Reads LLaVA and Vision-FLAN: ShareGPT's `conversations` with `image`, a path or a list of paths, none for text alone.

    `<image>` in a user's message says where each image goes. Optional `options` and `facts`, as in FLAN.
    """
    images = _images(row, _image_column(row, where, layout), where, layout)
    return _rated(row, place_images(_tagged(row, where, layout), images, where), where)


def cauldron(row: Row, where: str, layout: ColumnMap) -> Record:
    """Reads The Cauldron: `images`, put before the first question, and `texts`, a list of {`user`, `assistant`}."""
    messages = []
    for turn in _turns(row, layout.columns.get("messages", "texts"), where):
        messages += [_user(text_field(turn, "user", where)), _assistant(text_field(turn, "assistant", where))]
    images = _images(row, _image_column(row, where, layout), where, layout)
    return Record(_conversation(front_images(messages, images, where), where), None, where)


def openai(row: Row, where: str, layout: ColumnMap) -> Record:
    """Reads OpenAI's `messages`, a list of {`role`: system | user | assistant, `content`}; content is text or a list of parts.

    Parts are {`type`: "text", `text`}, {`type`: "image", `image` | `path` | `url`} and {`type`: "image_url", `image_url`:
    {`url`}}. A part of type "image" that names no image stands for the next one of the row's `images` column.
    """
    column = _image_column(row, where, layout)
    spare = _images(row, column, where, layout)
    rest, messages = iter(spare), []
    for turn in _turns(row, layout.columns.get("messages", "messages"), where):
        role, content = text_field(turn, "role", where), turn.get("content")
        if isinstance(content, list):
            content = content_parts(content, rest, layout.image_root, where)
        else:
            content = text_field(turn, "content", where)
        messages.append({"role": role, "content": content})
    if left := len(list(rest)):
        raise ValueError(
            f"{where}: column {column!r} holds {len(spare)} images, the content has parts for {len(spare) - left}; add a part "
            "{'type': 'image'} where each image goes"
        )
    return Record(_conversation(messages, where), None, where)


FORMATS = {
    "flan": flan,
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "llava": llava,
    "cauldron": cauldron,
    "messages": openai,
    "openai": openai,
}
TEXT_FORMATS = {"flan", "alpaca"}
"""Formats that read images only from a column that `columns` names."""
IMAGES, VIDEOS = ("image", "images"), ("video", "videos")

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
    """The system message of a row, if its column is filled."""
    return [{"role": "system", "content": text_field(row, column, where)}] if row.get(column) else []


def _tagged(row: Row, where: str, layout: ColumnMap) -> list[Message]:
    """ShareGPT's turns as messages."""
    tag = {key: layout.tags.get(key, default) for key, default in SHAREGPT_TAGS.items()}
    roles = {tag["user_tag"]: "user", tag["assistant_tag"]: "assistant", tag["system_tag"]: "system"}
    messages = _system(row, layout.columns.get("system", "system"), where)
    for turn in _turns(row, layout.columns.get("messages", "conversations"), where):
        role = text_field(turn, tag["role_tag"], where)
        if role not in roles:
            raise ValueError(
                f"{where}: unknown role {role!r}; expected one of {list(roles)}; set `tags` in the manifest"
            )
        messages.append({"role": roles[role], "content": text_field(turn, tag["content_tag"], where)})
    return messages


def _turns(row: Row, key: str, where: str) -> list[Row]:
    """A field that is a list of objects."""
    turns = field(row, key, where)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{where}: field {key!r} must be a list of objects, got {turns!r:.80}")
    return turns


def _placed(row: Row, messages: Sequence[Message], where: str, layout: ColumnMap) -> Sequence[Message]:
    """Puts the row's images at their markers; in a row without an images column a marker is text."""
    column = _image_column(row, where, layout)
    return messages if column is None else place_images(messages, _images(row, column, where, layout), where)


def _images(row: Row, column: str | None, where: str, layout: ColumnMap) -> list[Image]:
    return image_parts(row.get(column), layout.image_root, where) if column else []


def _image_column(row: Row, where: str, layout: ColumnMap) -> str | None:
    """The column of the row's images; None if it has none."""
    if "images" in layout.columns:
        return layout.columns["images"]
    filled = [key for key in IMAGES if _has(row, key)]
    if len(filled) == 2:
        raise ValueError(f"{where}: both 'image' and 'images' are set; set `columns`: {{images: ...}} in the manifest")
    return next((key for key in (*filled, *IMAGES) if key in row), None)


def _unread(name: str, layout: ColumnMap) -> set[str]:
    """Fields that the format would drop without a word."""
    column = layout.columns.get("images")
    if column is None and name not in TEXT_FORMATS:
        return set(VIDEOS)
    return {*IMAGES, *VIDEOS} - {column}


def _has(row: Row, key: str) -> bool:
    value = row.get(key)
    return value is not None and value is not False and (not hasattr(value, "__len__") or len(value) > 0)


def _rated(row: Row, messages: Iterable[Message], where: str) -> Record:
    """A conversation with the row's `options` and `facts`, by which its last response is scored."""
    messages = _conversation(messages, where)
    options, facts, target = row.get("options"), row.get("facts"), messages[-1]["content"]
    if options is not None:
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise ValueError(f"{where}: field 'options' must be null or a list of strings, got {options!r:.80}")
        if target not in options:
            raise ValueError(
                f"{where}: target {target!r:.80} is not among the options {options!r:.200}; mend one of the two"
            )
    if facts is not None:
        filled = isinstance(facts, list) and facts and all(isinstance(fact, str) and fact.strip() for fact in facts)
        if not filled:
            raise ValueError(
                f"{where}: field 'facts' must be null or a list of strings that say something, got {facts!r:.80}"
            )
    return Record(messages, tuple(options) if options else None, where, tuple(facts) if facts else None)


def _conversation(messages: Iterable[Message], where: str) -> tuple[Message, ...]:
    """Checks that roles run [system,] user, assistant, user, ..., assistant, and that no response is empty."""
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
