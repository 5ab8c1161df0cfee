"""A choice is a dict of functions; this is the one way to look a name up in it."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """The entry called `name`.

    Args:
        table: Name -> entry.
        name: The name asked for.
        kind: What the entries are ("merger", "partition method"), for the message.

    Raises:
        ValueError: No such name; the message lists the known ones.
    """
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(table))}")
    return table[name]
