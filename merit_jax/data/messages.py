"""Reads one turn of a conversation, an object of a data file, as a message of a chat template.

All that changes training is used or refused: flags that leave a response out of the loss, reasoning, and calls of functions.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from merit_jax.data.readers import Row, field, text_field
from merit_jax.data.tool_calls import is_blank, read_calls

Message = Mapping[str, Any]

TURN_FLAGS = (
    "weight",
    "loss",
    "loss_weight",
    "loss_mask",
    "loss_scale",
    "train",
    "training",
    "trainable",
    "train_on_turn",
)
"""Names under which datasets say whether a turn is trained; 0 or false is not."""
REASONING = "reasoning_content"
"""The field of an assistant's reasoning; `transformers` shows it to chat templates as `thinking` too."""
REASONINGS = (REASONING, "thinking", "reasoning")
"""Names of that field in datasets."""
UNUSED = ("id", "source")
"""Fields of a turn that say where it is from."""
FIELDS = {"assistant": (*REASONINGS, "tool_calls", "function_call"), "tool": ("name", "tool_call_id")}
"""Role -> fields of its messages besides the content and flags."""

CALL = "function_call"
"""The role of a turn whose content is the JSON of an assistant's calls."""
ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    CALL: CALL,
}
"""Name of a role in OpenAI's messages -> role of a chat template."""

SWITCHES = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
REMEDIES = {
    "name": "write it into the text",
    "tool_calls": "calls belong into the assistant's turns",
    "function_call": "calls belong into the assistant's turns",
    **dict.fromkeys(REASONINGS, "reasoning belongs into the assistant's turns"),
}


def read_message(
    turn: Row,
    keys: tuple[str, str],
    roles: Mapping[str, str],
    where: str,
    parts: Callable[[list[Any]], Any] | None = None,
) -> Message:
    """Reads one turn.

    Args:
        turn: The turn, as it is in the file.
        keys: Names of the fields of its role and its content.
        roles: Name of a role in the file -> role of a chat template, or `CALL`.
        where: "FILE:LINE", for error messages.
        parts: Reads a content that is a list; None where content is text alone.

    Returns:
        The message: role, content, and what its other fields say. "train" is False on a response that is not trained.

    Raises:
        ValueError: The role is unknown, the content is no text, or a field is not read.
    """
    role_key, content_key = keys
    name = text_field(turn, role_key, where)
    if name not in roles:
        raise ValueError(
            f"{where}: unknown role {name!r:.80}; expected one of {list(roles)}; rename it, or set `tags` in the "
            "manifest (format sharegpt)"
        )
    role = "assistant" if roles[name] == CALL else roles[name]
    fields = turn_fields(turn, role, keys, where)
    if roles[name] == CALL:
        calls = [*read_calls(field(turn, content_key, where), where, content_key), *fields.pop("tool_calls", ())]
        return {"role": role, "content": "", "tool_calls": calls, **fields}
    content = turn.get(content_key)
    if content is None and "tool_calls" in fields:
        content = ""
    elif isinstance(content, list) and parts is not None:
        content = parts(content)
    else:
        content = text_field(turn, content_key, where)
    return {"role": role, "content": content, **fields}


def turn_fields(turn: Row, role: str, read: Collection[str], where: str) -> dict[str, Any]:
    """Reads the fields of a turn besides its role and content.

    Args:
        turn: The turn, as it is in the file.
        role: Its role, as chat templates name it.
        read: Names of the fields that are read elsewhere.
        where: "FILE:LINE", for error messages.

    Returns:
        Fields of the message; "train" is False on a response that is not trained.

    Raises:
        ValueError: A field is not read with this role, or has a value that is not.
    """
    rest = {key: value for key, value in turn.items() if key not in (*read, *UNUSED) and not is_blank(value)}
    marks = {key: rest.pop(key) for key in TURN_FLAGS if key in rest}
    fields: dict[str, Any] = {}
    for key, value in rest.items():
        if key not in FIELDS.get(role, ()):
            remedy = f"{REMEDIES[key]}, or remove it" if key in REMEDIES else "remove it if it changes nothing"
            raise ValueError(f"{where}: a turn of role {role!r} has a field {key!r}, which is not read; {remedy}")
        if key in ("tool_calls", "function_call"):
            fields["tool_calls"] = [*fields.get("tool_calls", ()), *read_calls(value, where, key)]
        else:
            name, text = REASONING if key in REASONINGS else key, text_field(rest, key, where)
            if fields.setdefault(name, text) != text:
                raise ValueError(f"{where}: a turn has two fields of reasoning that differ; keep one of {REASONINGS}")
    trained = is_trained(marks, where)
    if trained and marks and role != "assistant":
        raise ValueError(
            f"{where}: {next(iter(marks))!r} asks to train a turn of role {role!r}; only the assistant's turns are trained: "
            "remove the field, or set it to 0"
        )
    return fields if trained or role != "assistant" else {**fields, "train": False}


def is_trained(marks: Mapping[str, Any], where: str) -> bool:
    """Returns what marks say: True with 1, "true" or no mark, False with 0 or "false".

    Raises:
        ValueError: A mark has another value, or two disagree.

    Examples:
        >>> is_trained({"weight": 0, "train": "false"}, "a.jsonl:1"), is_trained({}, "a.jsonl:1")
        (False, True)
    """
    said = {}
    for key, value in marks.items():
        if (switch := SWITCHES.get(str(value).lower())) is None:
            raise ValueError(
                f"{where}: {key!r} is {value!r:.80}; a turn is trained (1, true) or not (0, false): write either, or rename "
                "the field if it means something else"
            )
        said[key] = switch
    if len(set(said.values())) > 1:
        raise ValueError(f"{where}: the fields {dict(marks)!r:.120} contradict each other; keep one")
    return all(said.values())
