"""Gradient rows, on disk or in memory, read once and a block of coordinates at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils import epath
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


class StoredRow:
    """A vector in an `.npy` file of float32. It is read where it is asked for; nothing of it stays in memory.

    Attributes:
        path: The file.
    """

    def __init__(self, path: epath.Path) -> None:
        """Reads the file's header.

        Raises:
            OSError: The file is missing.
            ValueError: It is not an array of one axis in float32, or it is cut off.
        """
        self.path = path
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            known = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in known:
                raise ValueError(f"unknown version {version} of the .npy format")
            shape, _, dtype = known[version](file)
            self._offset = file.tell()
        if len(shape) != 1 or dtype != np.float32:
            raise ValueError(f"expected a vector of float32, got {dtype} of shape {shape}")
        self._entries = shape[0]
        held, expected = path.stat().length, self._offset + 4 * self._entries
        if held != expected:
            raise ValueError(f"expected {expected} bytes, got {held}")

    def __len__(self) -> int:
        """Number of entries."""
        return self._entries

    def __getitem__(self, index: slice) -> Float[np.ndarray, " n"]:
        """The entries of a slice of step 1."""
        start, stop, _ = index.indices(self._entries)
        out = np.empty(stop - start, np.float32)
        self.read_into(start, out)
        return out

    def read_into(self, start: int, out: Float[np.ndarray, " n"]) -> None:
        """Fills `out` with the entries from `start` on, without a copy in between.

        Raises:
            ValueError: The file ends before.
        """
        with self.path.open("rb") as file:
            file.seek(self._offset + 4 * start)
            if file.readinto(memoryview(out).cast("B")) != out.nbytes:
                raise ValueError(f"{self.path} ended while it was read; delete {self.path.parent}")


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
        if isinstance(row, StoredRow):
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
