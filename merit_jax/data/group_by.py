"""Reads files that hold many datasets: their rows by the value of a column, each file parsed once."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from merit_jax.core.errors import raise_if_of_machine
from merit_jax.data.readers import files_digest, read_rows
from merit_jax.data.rows import OnError, Row, RowError, fail
from merit_jax.workdir.checksums import Stamp, stamp

KEPT = 2
"""Parsed sets of files that are kept: those of one manifest entry, training and held-out."""

Groups = Mapping[str, Mapping[str, Sequence[tuple[str, Row]]]]
Stamps = tuple[Stamp, ...]


class Parsed(NamedTuple):
    """The content of some files.

    Attributes:
        groups: Value of the column -> file -> ("FILE:LINE", row) of every row that has it, in order.
        errors: An error for each other line.
    """

    groups: Groups
    errors: tuple[ValueError, ...]


def read_groups(files: Sequence[str], column: str, on_error: OnError = fail) -> Groups:
    """Returns the rows of some files by the value of a column; those of the last two calls' files are kept in memory.

    Args:
        files: Files that `readers.read_rows` reads.
        column: A column of strings.
        on_error: Called with the error of every line that is bad or has no group.

    Raises:
        ValueError: A file is missing or of an unknown type; or `on_error` raises.
    """
    parsed = _parse(tuple(files), column, _stamps(files))
    for error in parsed.errors:
        on_error(error)
    return parsed.groups


def group_digest(files: Sequence[str]) -> str:
    """Returns `readers.files_digest`, computed once for all groups of the files."""
    return _digest(tuple(files), _stamps(files))


def forget() -> None:
    """Clears the kept rows and digests."""
    _parse.cache_clear()
    _digest.cache_clear()


@functools.lru_cache(maxsize=KEPT)
def _parse(files: tuple[str, ...], column: str, _: Stamps) -> Parsed:
    groups: dict[str, dict[str, list[tuple[str, Row]]]] = {}
    errors: list[ValueError] = []
    for file in files:
        for where, row in read_rows(file, errors.append):
            name = row.get(column)
            if isinstance(name, str) and name.strip():
                groups.setdefault(name, {}).setdefault(file, []).append((where, row))
            else:
                reason = f"holds {name!r:.80}" if column in row else f"is missing (found: {sorted(row)})"
                errors.append(RowError(where, f"the column {column!r}, which names the dataset, {reason}; fill it in"))
    return Parsed(groups, tuple(errors))


@functools.lru_cache(maxsize=KEPT)
def _digest(files: tuple[str, ...], _: Stamps) -> str:
    return files_digest(files)


def _stamps(files: Sequence[str]) -> Stamps:
    return tuple(map(_stamp, files))


def _stamp(path: str) -> Stamp:
    try:
        return stamp(path)
    except (OSError, ValueError) as error:
        raise_if_of_machine(error, path)
        raise ValueError(f"{path}: no such file; correct the path") from None
