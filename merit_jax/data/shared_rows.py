"""Counts held-out rows that are trained on too."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64


class SharedRows(NamedTuple):
    """Held-out rows of a dataset that are training rows of the same or another one.

    Attributes:
        held_out: The dataset of the held-out rows.
        train: The dataset of the training rows.
        rows: Their number, held-out rows that repeat each counted.
    """

    held_out: str
    train: str
    rows: int


def short_digests(digests: Iterable[bytes]) -> UInt64[np.ndarray, " n"]:
    """Returns the first 64 bits of digests."""
    return np.frombuffer(b"".join(digest[:8] for digest in digests), np.uint64)


def shared_rows(
    train: Mapping[str, UInt64[np.ndarray, " n"]], held_out: Mapping[str, UInt64[np.ndarray, " m"]]
) -> list[SharedRows]:
    """Counts the held-out rows of each dataset that are training rows of any: those of its own first, then by number.

    Args:
        train: Dataset -> `short_digests` of its training rows.
        held_out: The same of its held-out rows.

    Examples:
        >>> rows = {"a": np.array([1, 2, 3], np.uint64), "b": np.array([3, 9], np.uint64)}
        >>> shared_rows(rows, {"a": np.array([2, 3, 7], np.uint64), "b": np.array([4], np.uint64)})
        [SharedRows(held_out='a', train='a', rows=2), SharedRows(held_out='a', train='b', rows=1)]
    """
    names = list(train)
    distinct = [np.unique(train[name]) for name in names]
    rows = np.concatenate([*distinct, np.zeros(0, np.uint64)])
    owners = np.repeat(np.arange(len(names)), [len(part) for part in distinct])
    order = np.argsort(rows, kind="stable")
    rows, owners = rows[order], owners[order]
    found = []
    for name, digests in held_out.items():
        start, end = np.searchsorted(rows, digests, "left"), np.searchsorted(rows, digests, "right")
        inside = [owners[first:last] for first, last in zip(start, end, strict=True) if last > first]
        counts = np.bincount(np.concatenate(inside), minlength=len(names)) if inside else np.zeros(0, int)
        found += [SharedRows(name, names[index], int(counts[index])) for index in np.flatnonzero(counts)]
    return sorted(found, key=lambda pair: (pair.held_out != pair.train, -pair.rows, pair.held_out, pair.train))
