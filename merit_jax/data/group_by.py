"""Reads files that hold many datasets: their rows by the value of a column, each file parsed once."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from merit_jax.data.readers import OnError, Row, fail, file_digest, read_rows
from merit_jax.workdir.checksums import Stamp, stamp

FILES = 2
"""Parsed files that are kept: those of one manifest entry, training and held-out."""


class Parsed(NamedTuple):
    """The content of a file.

    Attributes:
        groups: Value of the column -> ("FILE:LINE", row) of every row that has it, in file order.
        errors: An error for each other line.
    """

    groups: Mapping[str, Sequence[tuple[str, Row]]]
    errors: tuple[ValueError, ...]


def read_groups(path: str, column: str, on_error: OnError = fail) -> Mapping[str, Sequence[tuple[str, Row]]]:
    """Returns the rows of a file by the value of a column; those of the last few files are kept in memory.

    Args:
        path: A file that `readers.read_rows` reads.
        column: A column of strings.
        on_error: Called with the error of every line that is bad or has no group.

    Raises:
        ValueError: The file is missing or of an unknown type; or `on_error` raises.
    """
    parsed = _parse(path, column, _stamp(path))
    for error in parsed.errors:
        on_error(error)
    return parsed.groups


def group_digest(path: str) -> str:
    """Returns the sha256 of a file's bytes, in hex, computed once for all groups of the file."""
    return _digest(path, _stamp(path))


def forget() -> None:
    """Clears the kept rows and digests."""
    _parse.cache_clear()
    _digest.cache_clear()


@functools.lru_cache(maxsize=FILES)
def _parse(path: str, column: str, _: Stamp) -> Parsed:
    groups: dict[str, list[tuple[str, Row]]] = {}
    errors: list[ValueError] = []
    for where, row in read_rows(path, errors.append):
        name = row.get(column)
        if isinstance(name, str) and name.strip():
            groups.setdefault(name, []).append((where, row))
        else:
            reason = f"holds {name!r:.80}" if column in row else f"is missing (found: {sorted(row)})"
            errors.append(ValueError(f"{where}: the column {column!r}, which names the dataset, {reason}; fill it in"))
    return Parsed(groups, tuple(errors))


@functools.lru_cache(maxsize=FILES)
def _digest(path: str, _: Stamp) -> str:
    return file_digest(path)


def _stamp(path: str) -> Stamp:
    try:
        return stamp(path)
    except (OSError, ValueError):
        raise ValueError(f"{path}: no such file; correct the path") from None
