"""Record formats: a row of a dataset file -> a conversation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from merit_jax.core.registry import lookup
from merit_jax.core.types import Image, Record
from merit_jax.data.images import content_parts, front_images, image_parts, place_images
from merit_jax.data.messages import Message, assistant, conversation, record, string, system, turns, user
from merit_jax.data.readers import Row


class ColumnMap(NamedTuple):
    """Where a row keeps its parts, in LLaMA-Factory's words.

    Attributes:
        columns: Part -> column, over the format's defaults (alpaca: prompt, query, response, system, history; sharegpt
            and messages: messages, system, images; llava: messages, images).
        tags: Over the defaults of sharegpt: role_tag, content_tag, user_tag, assistant_tag, system_tag.
        image_root: The folder that images lie in and relative paths start from; empty: that of the dataset's file.
    """

    columns: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    image_root: str = ""


def to_record(format_name: str | None, row: Row, where: str, layout: ColumnMap = ColumnMap()) -> Record:
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
    name = format_name or detect(row, where, layout)
    read = lookup(FORMATS, name, f"format in {where}:")
    if unused := next((key for key in _unread(name, layout) if _has(row, key)), None):
        known = ", ".join(sorted(set(FORMATS) - TEXT_FORMATS))
        remedy = "" if unused in VIDEOS else f", or set `formatting` to one of {known}, or `columns`: {{images: ...}}"
        raise ValueError(
            f"{where}: the row has a {unused!r} field, which is not read as {name!r}; remove the field or the row{remedy}"
        )
    return read(row, where, layout)


def detect(row: Row, where: str, layout: ColumnMap = ColumnMap()) -> str:
    """Names the format of a row from its keys."""
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
    """FLAN: `inputs`, `targets`; optional `options` (the target is one of them) and `facts` (what it should mention)."""
    messages = [user(string(row, "inputs", where)), assistant(string(row, "targets", where))]
    return record(row, _placed(row, messages, where, layout), where)


def alpaca(row: Row, where: str, layout: ColumnMap) -> Record:
    """Alpaca: `instruction`, optional `input` (on a new line), `output`; optional `system` and `history` pairs."""
    name = {part: layout.columns.get(part, default) for part, default in ALPACA_COLUMNS.items()}
    messages = system(row, name["system"], where)
    history = row.get(name["history"]) or []
    for pair in history if isinstance(history, list | tuple) else [history]:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError(
                f"{where}: {name['history']!r} must be a list of [prompt, response] pairs, got {history!r:.80}"
            )
        messages += [user(pair[0]), assistant(pair[1])]
    parts = [string(row, name["prompt"], where)]
    if row.get(name["query"]):
        parts.append(string(row, name["query"], where))
    messages += [user("\n".join(filter(None, parts))), assistant(string(row, name["response"], where))]
    return Record(conversation(_placed(row, messages, where, layout), where), None, where)


def sharegpt(row: Row, where: str, layout: ColumnMap) -> Record:
    """ShareGPT: `conversations`, a list of {`from`: human | gpt | system, `value`}; optional `system` and `images` columns.

    With an images column (LLaMA-Factory's), `<image>` in a user's turn says where each image goes; without, it is text.
    """
    messages = _placed(row, _tagged(row, where, layout), where, layout)
    return Record(conversation(messages, where), None, where)


def llava(row: Row, where: str, layout: ColumnMap) -> Record:
    """LLaVA and Vision-FLAN: ShareGPT's `conversations` with `image`, a path or a list of paths, none for a row of text.

    `<image>` in a user's turn says where each image goes. Optional `options` and `facts`, as in FLAN.
    """
    images = _images(row, _image_column(row, where, layout), where, layout)
    return record(row, place_images(_tagged(row, where, layout), images, where), where)


def cauldron(row: Row, where: str, layout: ColumnMap) -> Record:
    """The Cauldron: `images`, which come before the first question, and `texts`, a list of {`user`, `assistant`}."""
    messages = []
    for turn in turns(row, layout.columns.get("messages", "texts"), where):
        messages += [user(string(turn, "user", where)), assistant(string(turn, "assistant", where))]
    images = _images(row, _image_column(row, where, layout), where, layout)
    return Record(conversation(front_images(messages, images, where), where), None, where)


def openai(row: Row, where: str, layout: ColumnMap) -> Record:
    """OpenAI: `messages`, a list of {`role`: system | user | assistant, `content`}; content is text or a list of parts.

    Parts are {`type`: "text", `text`}, {`type`: "image", `image` | `path` | `url`} and {`type`: "image_url", `image_url`:
    {`url`}}. A part of type "image" that names no image stands for the next one of the row's `images` column.
    """
    column = _image_column(row, where, layout)
    spare = _images(row, column, where, layout)
    rest, messages = iter(spare), []
    for turn in turns(row, layout.columns.get("messages", "messages"), where):
        role, content = string(turn, "role", where), turn.get("content")
        text = not isinstance(content, list)
        content = string(turn, "content", where) if text else content_parts(content, rest, layout.image_root, where)
        messages.append({"role": role, "content": content})
    if left := len(list(rest)):
        raise ValueError(
            f"{where}: column {column!r} holds {len(spare)} images, the content has parts for {len(spare) - left}; add a part "
            "{'type': 'image'} where each image goes"
        )
    return Record(conversation(messages, where), None, where)


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


def _tagged(row: Row, where: str, layout: ColumnMap) -> list[Message]:
    """ShareGPT's turns as messages."""
    tag = {key: layout.tags.get(key, default) for key, default in SHAREGPT_TAGS.items()}
    roles = {tag["user_tag"]: "user", tag["assistant_tag"]: "assistant", tag["system_tag"]: "system"}
    messages = system(row, layout.columns.get("system", "system"), where)
    for turn in turns(row, layout.columns.get("messages", "conversations"), where):
        role = string(turn, tag["role_tag"], where)
        if role not in roles:
            raise ValueError(
                f"{where}: unknown role {role!r}; expected one of {list(roles)}; set `tags` in the manifest"
            )
        messages.append({"role": roles[role], "content": string(turn, tag["content_tag"], where)})
    return messages


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
    """Fields that would be dropped in silence."""
    column = layout.columns.get("images")
    if column is None and name not in TEXT_FORMATS:
        return set(VIDEOS)
    return {*IMAGES, *VIDEOS} - {column}


def _has(row: Row, key: str) -> bool:
    value = row.get(key)
    return value is not None and value is not False and (not hasattr(value, "__len__") or len(value) > 0)
