"""Reads the conversation of a row, one function for each format."""

import itertools
from collections.abc import Mapping, Sequence

from merit_jax.core.types import Image
from merit_jax.data.column_map import ALPACA_COLUMNS, SHAREGPT_TAGS, TAGGED_ROLES, ColumnMap, image_column
from merit_jax.data.images import IMAGE_KEYS, content_parts, front_images, image_parts, place_images
from merit_jax.data.messages import ROLES, Message, read_message, turn_fields
from merit_jax.data.readers import Row, field, text_field
from merit_jax.data.tool_calls import is_blank

OPENAI_KEYS = ("role", "content")
PART_KEYS = {"type", "text", "detail", "source", *IMAGE_KEYS}
"""Keys of a part of a content; `detail` is for OpenAI's models."""
IMAGE_TYPES = ("image", "image_url")


def flan(row: Row, where: str, layout: ColumnMap) -> Sequence[Message]:
    """Reads FLAN: `inputs`, `targets`."""
    messages = [_user(text_field(row, "inputs", where)), _assistant(text_field(row, "targets", where))]
    return _placed(row, messages, where, layout)


def alpaca(row: Row, where: str, layout: ColumnMap) -> Sequence[Message]:
    """Reads Alpaca: `instruction`, optional `input` (on a new line), `output`; optional `history` pairs.

    Instruction and output may also be lists of messages, as TRL's prompt and completion; those of the instruction are context.
    """
    name = {part: layout.columns.get(part, default) for part, default in ALPACA_COLUMNS.items()}
    messages: list[Message] = []
    history = [] if is_blank(row.get(name["history"])) else row[name["history"]]
    for pair in history if isinstance(history, list | tuple) else [history]:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError(
                f"{where}: {name['history']!r} must be a list of [prompt, response] pairs, got {history!r:.80}"
            )
        messages += [_user(pair[0]), _assistant(pair[1])]
    return _placed(row, [*messages, *_asked(row, name, where), *_answered(row, name, where)], where, layout)


def sharegpt(row: Row, where: str, layout: ColumnMap) -> Sequence[Message]:
    """Reads ShareGPT: `conversations`, a list of {`from`: human | gpt | system | function_call | observation, `value`}.

    With an images column (LLaMA-Factory's), `<image>` in a user's message says where each image goes; without, it is text.
    """
    return _placed(row, _tagged(row, where, layout), where, layout)


def llava(row: Row, where: str, layout: ColumnMap) -> Sequence[Message]:
    """Reads LLaVA and Vision-FLAN: ShareGPT's `conversations` with `image`, a path or a list of paths, none for text alone.

    `<image>` in a user's message says where each image goes.
    """
    images = _images(row, image_column(row, where, layout), where, layout)
    return place_images(_tagged(row, where, layout), images, where)


def cauldron(row: Row, where: str, layout: ColumnMap) -> Sequence[Message]:
    """Reads The Cauldron: `images`, put before the first question, and `texts`, a list of {`user`, `assistant`}."""
    messages: list[Message] = []
    for turn in _turns(row, layout.columns.get("messages", "texts"), where):
        question, answer = text_field(turn, "user", where), text_field(turn, "assistant", where)
        fields = turn_fields(turn, "assistant", ("user", "assistant"), where)
        messages += [_user(question), {**_assistant(answer), **fields}]
    images = _images(row, image_column(row, where, layout), where, layout)
    return front_images(messages, images, where)


def openai(row: Row, where: str, layout: ColumnMap) -> Sequence[Message]:
    """Reads OpenAI's `messages`, a list of {`role`: system | developer | user | assistant | tool, `content`}.

    Content is text or a list of parts, {`type`: "text", `text`}, {`type`: "image", `image` | `path` | `url`} and {`type`:
    "image_url", `image_url`: {`url`}}. A part of type "image" that names no image stands for the next one of the row's `images`
    column; the `index` of an image's part is its number in the row, from 0.
    """
    column = image_column(row, where, layout)
    spare = _images(row, column, where, layout)
    rest, numbers = iter(spare), itertools.count()

    def parts(content: list[object]) -> object:
        for part in content:
            _check_part(part, where)
            if isinstance(part, dict) and part.get("type") in IMAGE_TYPES:
                _check_index(part.get("index"), next(numbers), where)
        return content_parts(content, rest, layout.image_root, where)

    turns = _turns(row, layout.columns.get("messages", "messages"), where)
    messages = [read_message(turn, OPENAI_KEYS, ROLES, where, parts) for turn in turns]
    if left := len(list(rest)):
        raise ValueError(
            f"{where}: column {column!r} holds {len(spare)} images, the content has parts for {len(spare) - left}; add a part "
            "{'type': 'image'} where each image goes"
        )
    return messages


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _asked(row: Row, name: Mapping[str, str], where: str) -> list[Message]:
    """The messages of Alpaca's instruction and input; responses among them are not trained."""
    if isinstance(row.get(name["prompt"]), list) and is_blank(row.get(name["query"])):
        said = [read_message(turn, OPENAI_KEYS, ROLES, where) for turn in _turns(row, name["prompt"], where)]
        return [{**message, "train": False} if message["role"] == "assistant" else message for message in said]
    parts = [text_field(row, name["prompt"], where)]
    if not is_blank(row.get(name["query"])):
        parts.append(text_field(row, name["query"], where))
    return [_user("\n".join(filter(None, parts)))]


def _answered(row: Row, name: Mapping[str, str], where: str) -> list[Message]:
    if isinstance(row.get(name["response"]), list):
        return [read_message(turn, OPENAI_KEYS, ROLES, where) for turn in _turns(row, name["response"], where)]
    return [_assistant(text_field(row, name["response"], where))]


def _tagged(row: Row, where: str, layout: ColumnMap) -> list[Message]:
    """ShareGPT's turns as messages."""
    tag = {key: layout.tags.get(key, default) for key, default in SHAREGPT_TAGS.items()}
    roles: dict[str, str] = {}
    for name, role in [
        *((tag[key], role) for key, role in TAGGED_ROLES.items()),
        ("tool", "tool"),
        ("developer", "developer"),
    ]:
        roles.setdefault(name, role)
    keys = (tag["role_tag"], tag["content_tag"])
    turns = _turns(row, layout.columns.get("messages", "conversations"), where)
    return [read_message(turn, keys, roles, where) for turn in turns]


def _turns(row: Row, key: str, where: str) -> list[Row]:
    """A field that is a list of objects."""
    turns = field(row, key, where)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{where}: field {key!r} must be a list of objects, got {turns!r:.80}")
    return turns


def _placed(row: Row, messages: Sequence[Message], where: str, layout: ColumnMap) -> Sequence[Message]:
    """Puts the row's images at their markers; in a row without an images column a marker is text."""
    column = image_column(row, where, layout)
    return messages if column is None else place_images(messages, _images(row, column, where, layout), where)


def _images(row: Row, column: str | None, where: str, layout: ColumnMap) -> list[Image]:
    return image_parts(row.get(column), layout.image_root, where) if column else []


def _check_part(part: object, where: str) -> None:
    """Refuses keys of a content's part that would be lost."""
    if not isinstance(part, dict) or part.get("type") not in ("text", *IMAGE_TYPES):
        return
    known = PART_KEYS if part["type"] == "text" else {*PART_KEYS, "index"}
    if lost := [key for key, value in part.items() if key not in known and not is_blank(value)]:
        raise ValueError(f"{where}: a content part has a field {lost[0]!r}, which is not read; remove it")


def _check_index(index: object, number: int, where: str) -> None:
    """Refuses an image's part whose index is not its number among the images of the row."""
    if index is not None and (isinstance(index, bool) or index != number):
        raise ValueError(
            f"{where}: a content part has the 'index' {index!r:.80} and is image {number} of the row; images are read in order: "
            "put the parts, and the row's images, into the order of their indices from 0, or remove 'index'"
        )
