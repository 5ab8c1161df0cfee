"""Recognises JSON that is not one record per line or list item, and says how to convert it."""

from collections.abc import Mapping
from typing import Any

RECORDS = ("data", "train", "rows", "records", "examples", "items", "instances", "samples", "dataset")
"""Names under which files keep their list of records."""
TURNS = ({"from", "value"}, {"role", "content"})
"""Keys of one turn of a conversation."""


def container_hint(value: Any) -> str:
    """Returns how to make records of a JSON value that holds several, or is a part of one; empty where it may be a record."""
    if isinstance(value, list):
        return _list_hint(value)
    if not isinstance(value, Mapping) or not value:
        return ""
    lists = [key for key, part in value.items() if isinstance(part, list) and part and _objects(part)]
    if len(lists) == 1 and lists[0] in RECORDS and not _is_turn(value[lists[0]][0]):
        count = len(value[lists[0]])
        return f"the object's {lists[0]!r} holds {count} records: write that list alone to a .json file"
    if _is_turn(value):
        return 'it is one turn: write the turns of a conversation as one record {"conversations": [...]}'
    if _are_columns(value):
        return "the object holds columns: write one record per line, with pandas: to_json(orient='records', lines=True)"
    return ""


def _list_hint(value: list[Any]) -> str:
    if value and _objects(value):
        if _is_turn(value[0]):
            return 'the list is a conversation: write it as a record {"conversations": [...]}'
        return "the list holds records: write each on a line of its own, or the list alone to a .json file"
    return ""


def _objects(values: list[Any]) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def _is_turn(value: Mapping[str, Any]) -> bool:
    return any(keys <= set(value) and all(isinstance(value[key], str) for key in keys) for keys in TURNS)


def _are_columns(value: Mapping[str, Any]) -> bool:
    """Returns whether all values are lists of one length, or objects of the same keys, as pandas writes a table."""
    parts = list(value.values())
    if len(parts) < 2 or not all(parts):
        return False
    if all(isinstance(part, list) for part in parts):
        return len({len(part) for part in parts}) == 1 and not any(map(_objects, parts))
    return all(isinstance(part, Mapping) for part in parts) and len({tuple(part) for part in parts}) == 1
