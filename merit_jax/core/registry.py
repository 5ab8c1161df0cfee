"""Looks a name up in a table of choices."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """Returns the entry called `name`.

    Args:
        table: Name -> entry.
        name: The name.
        kind: The kind of entries ("merger", "partition method"), for the message.

    Raises:
        ValueError: No such name; the message lists the known ones.
    """
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(table))}")
    return table[name]
