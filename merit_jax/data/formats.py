"""Reads rows of dataset files as conversations, whichever format the rows are in."""

from collections.abc import Callable, Sequence

from merit_jax.core.registry import lookup
from merit_jax.core.types import Record, Tools
from merit_jax.data.column_map import IMAGES, ColumnMap, has
from merit_jax.data.conversation import check_conversation
from merit_jax.data.messages import Message
from merit_jax.data.readers import Row, text_field
from merit_jax.data.row_fields import check_row, read_facts, read_options
from merit_jax.data.row_formats import alpaca, cauldron, flan, llava, openai, sharegpt
from merit_jax.data.tool_calls import is_blank, read_tools

FORMATS: dict[str, Callable[[Row, str, ColumnMap], Sequence[Message]]] = {
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
VIDEOS = ("video", "videos", "audio", "audios")
TOOLS = ("tools", "functions")


def to_record(format_name: str, row: Row, where: str, layout: ColumnMap = ColumnMap()) -> Record:
    """Reads a row as a conversation.

    Args:
        format_name: A key of `FORMATS`.
        row: One row of a file.
        where: "FILE:LINE", for error messages.
        layout: Column names and tags that differ from the format's defaults.

    Returns:
        The record; its last message is the last response of the assistant that is trained.

    Raises:
        ValueError: The format is unknown, the row does not fit it, or the row has a field that changes training and is not read.
    """
    read = lookup(FORMATS, format_name, f"format in {where}:")
    if unused := next((key for key in _unread(format_name, layout) if has(row, key)), None):
        known = ", ".join(sorted(set(FORMATS) - TEXT_FORMATS))
        remedy = "" if unused in VIDEOS else f", or set `formatting` to one of {known}, or `columns`: {{images: ...}}"
        raise ValueError(
            f"{where}: the row has a {unused!r} field, which is not read as {format_name!r}; remove the field or the "
            f"row{remedy}"
        )
    check_row(row, format_name, layout.columns, where)
    system = _system(row, layout.columns.get("system", "system"), where)
    messages = check_conversation([*system, *read(row, where, layout)], where)
    target = messages[-1]["content"]
    return Record(messages, read_options(row, target, where), where, read_facts(row, where), _tools(row, layout, where))


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


def _system(row: Row, column: str, where: str) -> list[Message]:
    """The system message of a row, if its column is filled."""
    return [] if is_blank(row.get(column)) else [{"role": "system", "content": text_field(row, column, where)}]


def _tools(row: Row, layout: ColumnMap, where: str) -> Tools | None:
    """The functions that a row announces."""
    named = layout.columns.get("tools")
    others = set(layout.columns.values()) - {named}
    filled = [key for key in dict.fromkeys((*([named] if named else []), *TOOLS)) if not is_blank(row.get(key))]
    filled = [key for key in filled if key not in others]
    if named and (unread := [key for key in filled if key != named]):
        raise ValueError(
            f"{where}: the row has a field {unread[0]!r}, which is not read, for `columns` in the manifest names {named!r}; "
            "name the one that is meant, and remove the other"
        )
    if len(filled) > 1:
        raise ValueError(
            f"{where}: both 'tools' and 'functions' are set; set `columns`: {{tools: ...}} in the manifest"
        )
    return read_tools(row[filled[0]], where, filled[0]) if filled else None


def _unread(name: str, layout: ColumnMap) -> set[str]:
    """Fields that the format would drop without a word."""
    column = layout.columns.get("images")
    if column is None and name not in TEXT_FORMATS:
        return set(VIDEOS)
    return {*IMAGES, *VIDEOS} - {column}
