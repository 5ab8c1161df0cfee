"""Gradient rows, on disk or in memory, read once and a block of coordinates at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array

BLOCK = 2**23
"""Entries that are read at a time (32 MiB in float32)."""


@runtime_checkable
class Row(Protocol):
    """One gradient: anything with a length that gives the entries of a slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Any: ...


Rows = Float[Array, "_ _"] | Sequence[Row]
"""A matrix, or one `Row` for each dataset."""


def entries(rows: Rows) -> int:
    """The common length of the rows.

    Raises:
        ValueError: They differ in length, or there are none.
    """
    found = sorted({len(row) for row in rows})
    if len(found) != 1:
        raise ValueError(f"expected gradients of one length, got {len(rows)} of the lengths {found}")
    return found[0]


def block_width(rows: Rows) -> int:
    """Coordinates in a block: `BLOCK` entries over all rows."""
    return max(1, min(entries(rows), BLOCK // len(rows)))


def read(rows: Rows, start: int, out: Float[np.ndarray, "t w"]) -> Float[np.ndarray, "t w"]:
    """Fills `out` with coordinates `start` to `start + w` of every row."""
    for row, place in zip(rows, out, strict=True):
        if hasattr(row, "read_into"):
            row.read_into(start, place)
        else:
            place[:] = row[start : start + len(place)]
    return out


def blocks(rows: Rows, first: int = 0, step: int = 1) -> Iterator[Float[np.ndarray, "t w"]]:
    """All coordinates once, in order, float32; each block may be written to, and is gone when the next is asked for.

    Args:
        rows: The gradients.
        first: Number of the first block that is read.
        step: Of so many blocks one is read.
    """
    total, width = entries(rows), block_width(rows)
    buffer = np.empty(len(rows) * width, np.float32)
    for start in range(first * width, total, step * width):
        here = min(width, total - start)
        yield read(rows, start, buffer[: len(rows) * here].reshape(len(rows), here))
